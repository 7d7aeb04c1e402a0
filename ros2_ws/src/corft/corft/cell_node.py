"""cell_node: the simulated cell in the place of a robot and its drivers.

Publishes joint_states, both cameras, cell/success and cell/objects, all stamped with simulated time, and, where
control_msgs is installed, arm_controller/controller_state; takes
arm_controller/joint_trajectory and gripper_controller/commands as ros2_control's controllers do; cell/reset sets up
a scene. Physics and rendering run in a thread of their own, in slices of 10 ms.

With publish_clock it also sets the pace: ``real_time_factor`` simulated seconds a second on /clock. Without, it
follows the node's clock: the system's, or with use_sim_time the /clock of another cell.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any

from corft_msgs.srv import ResetScene
from geometry_msgs.msg import PoseArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from corft.cell.controller import controller_node
from corft.cell.messages import (
    camera_info_message,
    controller_state_message,
    image_message,
    joint_state_message,
    objects_message,
    path_of,
    stamp_message,
)
from corft.contract_choice import panda_contract_path
from corft.executor.control_interfaces import optional_control_type
from corft.node_base import OK, WARN, CorftNode, Diagnosis
from corft.node_main import run_node
from corft.node_parameters import CONTRACT, Param
from corft_core.cell.controller import TrajectoryRejected
from corft_core.cell.grip import cell_gripper
from corft_core.cell.scene import DEFAULT_TASK, make_scene, scene_name
from corft_core.cell.tasks import TASKS
from corft_core.contract import Contract
from corft_core.errors import CorftError

SLICE_NS = 10_000_000
# Stamps start here, since a time of zero means "unset" in ROS.
FIRST_STAMP_NS = 1_000_000_000
# A cell that falls this far behind its pace goes on from there instead of rushing.
MOST_BEHIND_NS = 200_000_000
RESET_TIMEOUT_S = 30.0

# Above real time a short stall of a recorder must not cost it frames: what is not yet received is kept and resent.
IMAGE_DEPTH = 30


class CellNode(CorftNode):
    """See the module's docstring."""

    PARAMETERS = (
        CONTRACT,
        Param("real_time_factor", 1.0, "Simulated seconds a second; 0: as fast as the machine can.",
              range=(0.0, 1000.0)),
        Param("publish_clock", True, "Publish /clock and set the pace; false: follow the node's own clock.",
              read_only=True),
        Param("image_rate_hz", 20.0, "Images of each camera a simulated second.", range=(0.0, 100.0), read_only=True),
        Param("joint_state_rate_hz", 50.0, "Joint states a simulated second.", range=(1.0, 100.0), read_only=True),
        Param("image_height", 128, "Rows of the cameras' images.", range=(16, 1024), read_only=True),
        Param("image_width", 128, "Columns of the cameras' images.", range=(16, 1024), read_only=True),
        Param("task", DEFAULT_TASK, "What lies on the table.", choices=TASKS, read_only=True),
        Param("seed", 0, "Number of the scene (ind/<seed>) that the cell starts with.", range=(0, 1_000_000_000),
              read_only=True),
    )

    def __init__(self) -> None:
        super().__init__("cell_node")
        self._contract = Contract.load(self.param("contract") or panda_contract_path())
        self.hardware_id = self._contract.robot.name
        self._size = (self.param("image_height"), self.param("image_width"))
        self._image_rate_hz = self.param("image_rate_hz")
        self._joint_state_rate_hz = self.param("joint_state_rate_hz")
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[tuple[str, queue.SimpleQueue[Exception | None]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._rejected = 0
        self._achieved_factor = 0.0
        self._cell: Any = None
        self._offset_ns = self._now_ns = FIRST_STAMP_NS
        self._clock_publisher = self.create_publisher(Clock, "/clock", QoSProfile(depth=1)) \
            if self.param("publish_clock") else None
        self._joint_states = self.create_publisher(JointState, "joint_states", 100)
        self._state_type = optional_control_type("msg", "JointTrajectoryControllerState")
        self._controller_state = None if self._state_type is None else self.create_publisher(
            self._state_type, "arm_controller/controller_state", 10)
        self._success = self.create_publisher(Bool, "cell/success", 1)
        self._objects = self.create_publisher(PoseArray, "cell/objects", 1)
        self._images = {
            camera.name: (self.create_publisher(Image, f"{camera.name}_camera/image_raw", IMAGE_DEPTH),
                          self.create_publisher(CameraInfo, f"{camera.name}_camera/camera_info", IMAGE_DEPTH))
            for camera in self._contract.cameras}
        self.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", self._on_trajectory, 10)
        self.create_subscription(Float64MultiArray, "gripper_controller/commands", self._on_gripper, 10)
        self.create_service(ResetScene, "cell/reset", self._on_reset, callback_group=MutuallyExclusiveCallbackGroup())
        simulated = bool(self.param("publish_clock") or self.get_parameter("use_sim_time").value)
        self.companions.append(
            controller_node("arm_controller", self.get_namespace(), self._contract.robot.joints, simulated))
        self._thread = threading.Thread(target=self._run, name="simulation", daemon=True)
        self._thread.start()

    def safe_stop(self) -> None:
        """End the simulation."""
        self._stopping.set()

    def dispose(self) -> None:
        self._stopping.set()
        self._thread.join(5.0)

    def diagnose(self) -> Iterable[Diagnosis]:
        wanted = self.param("real_time_factor")
        slow = self._clock_publisher is not None and wanted > 0 and 0 < self._achieved_factor < 0.8 * wanted
        return (Diagnosis(WARN if slow else OK, "slower than its real_time_factor" if slow else "running",
                          {"real time factor": self._achieved_factor, "rejected commands": self._rejected}),)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        try:
            path = path_of(message)
            with self._lock:
                if self._cell is not None:
                    start_s = (stamp_ns - self._offset_ns) * 1e-9 if stamp_ns else None
                    self._cell.command_trajectory(path, start_s)
        except TrajectoryRejected as error:
            self._rejected += 1
            self.get_logger().error(f"trajectory rejected: {error}")

    def _on_gripper(self, message: Float64MultiArray) -> None:
        try:
            if len(message.data) != 1:
                raise CorftError(f"expected one finger position in m, got {len(message.data)} values")
            with self._lock:
                if self._cell is not None:
                    self._cell.command_gripper(message.data[0])
        except CorftError as error:
            self._rejected += 1
            self.get_logger().error(f"gripper command rejected: {error}")

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        try:
            scene = make_scene(request.scene_id)
            if scene.task != self.param("task"):
                raise CorftError(f"scene {scene.scene_id} belongs to the task {scene.task}; this cell runs "
                                 f"{self.param('task')}, start it with task:={scene.task}")
            answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
            self._requests.put((request.scene_id, answer))
            answer.get(timeout=RESET_TIMEOUT_S)
        except CorftError as error:
            response.success, response.message = False, str(error)
        except queue.Empty:
            response.success, response.message = False, f"the simulation did not answer within {RESET_TIMEOUT_S:.0f} s"
        else:
            response.success, response.instruction = True, scene.instruction
            response.message = f"scene {scene.scene_id} is set up"
        return response

    def _run(self) -> None:
        """The simulation thread. OpenGL contexts belong to one thread, so the cell lives here altogether."""
        try:
            from corft_core.cell.simulation import Cell

            task = self.param("task")
            cell = Cell(image_size=self._size, home_rad=self._contract.robot.home_rad, task=task)
            cell.reset(make_scene(scene_name(task, "ind", self.param("seed"))))
            for camera in self._images:
                cell.render(camera)  # a renderer that doesn't work shows before the node says it is ready
            with self._lock:
                self._cell = cell
            self.get_logger().info(f"cell ready: scene {cell.scene.scene_id}, {cell.scene.instruction!r}")  # type: ignore[union-attr]
            try:
                self._simulate(cell)
            finally:
                cell.close()
        except CorftError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            self.request_exit(2)
        except Exception:
            if not self._stopping.is_set():
                self.get_logger().fatal(f"the simulation failed:\n{traceback.format_exc()}")
                self.request_exit(1)

    def _simulate(self, cell: Any) -> None:
        if self._clock_publisher is None:
            self._await_clock()
        self._publish(cell)
        pace_wall_s, pace_ns = time.monotonic(), self._now_ns
        report_wall_s, report_ns = pace_wall_s, self._now_ns
        while not self._stopping.is_set():
            self._serve_resets(cell)
            if self._clock_publisher is None:
                behind_ns = self.get_clock().now().nanoseconds - self._now_ns - SLICE_NS
                if behind_ns > MOST_BEHIND_NS:
                    self._offset_ns += behind_ns
                    self._now_ns += behind_ns
                elif behind_ns < 0:
                    time.sleep(0.002)
                    continue
            elif (factor := self.param("real_time_factor")) > 0:
                due_s = pace_wall_s + (self._now_ns + SLICE_NS - pace_ns) * 1e-9 / factor
                ahead_s = due_s - time.monotonic()
                if ahead_s > 0:
                    time.sleep(ahead_s)
                elif -ahead_s * factor > MOST_BEHIND_NS * 1e-9:
                    pace_wall_s, pace_ns = time.monotonic(), self._now_ns
            with self._lock:
                cell.step(SLICE_NS * 1e-9)
                self._now_ns = self._offset_ns + round(cell.time_s * 1e9)
            self._publish(cell)
            if (elapsed_s := time.monotonic() - report_wall_s) > 1.0:
                self._achieved_factor = (self._now_ns - report_ns) * 1e-9 / elapsed_s
                report_wall_s, report_ns = time.monotonic(), self._now_ns

    def _await_clock(self) -> None:
        while not self._stopping.is_set() and (now_ns := self.get_clock().now().nanoseconds) == 0:
            time.sleep(0.01)
        self._offset_ns = self._now_ns = now_ns

    def _serve_resets(self, cell: Any) -> None:
        while not self._requests.empty():
            scene_id, answer = self._requests.get()
            with self._lock:
                cell.reset(make_scene(scene_id))
                # The cell's time starts anew, the clock goes on; no two samples share a stamp.
                self._now_ns += SLICE_NS
                self._offset_ns = self._now_ns
            self._publish(cell, everything=True)
            answer.put(None)

    def _due(self, rate_hz: float) -> bool:
        """Whether a topic of this rate has a sample in the slice that just ended."""
        elapsed = self._now_ns - self._offset_ns
        return rate_hz > 0 and int(elapsed * rate_hz * 1e-9 + 1e-6) != int((elapsed - SLICE_NS) * rate_hz * 1e-9 + 1e-6)

    def _publish(self, cell: Any, everything: bool = False) -> None:
        joints = everything or self._due(self._joint_state_rate_hz)
        images = everything or self._due(self._image_rate_hz)
        if not joints and not images:
            return
        stamp = stamp_message(self._now_ns)
        # First the clock: a sample must not come from its receiver's future.
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=stamp))
        if joints:
            positions, velocities = cell.joint_positions.tolist(), cell.joint_velocities.tolist()
            if self._controller_state is not None:
                self._controller_state.publish(controller_state_message(
                    self._state_type, cell.controller.joints, cell.controller.desired(cell.time_s), positions,
                    velocities, stamp))
            finger, speed = cell.finger_position_m, cell.finger_velocity_m_s
            self._joint_states.publish(joint_state_message(
                [*self._contract.robot.joints, cell_gripper(self._contract).joint, "panda_finger_joint2"],
                [*positions, finger, finger], [*velocities, speed, speed], stamp))
        if everything or self._due(10.0):
            self._success.publish(Bool(data=cell.success))
            self._objects.publish(objects_message(cell.objects(), stamp, self._contract.robot.base_frame))
        if images:
            for name, (image_publisher, info_publisher) in self._images.items():
                frame = f"{name}_camera_optical_frame"
                image_publisher.publish(image_message(cell.render(name), stamp, frame))
                info_publisher.publish(camera_info_message(self._size, cell.field_of_view_rad(name), stamp, frame))


def main() -> None:
    sys.exit(run_node(CellNode, threads=2))


if __name__ == "__main__":
    main()
