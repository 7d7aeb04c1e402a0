"""teleop_node: a scripted, imperfect operator who demonstrates the task in the cell and marks the episodes.

For every scene: cell/reset, EpisodeEvent START, commands at the contract's rate driven by the stamps of
joint_states, SUCCESS when the cell says so (or FAILURE at the time limit), STOP. Failed episodes are recorded as
such and repeated with the next scene until ``episodes`` have succeeded.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from corft_msgs.msg import EpisodeEvent
from corft_msgs.srv import ResetScene
from geometry_msgs.msg import PoseArray
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from corft.cell.messages import objects_of, stamp_message, trajectory_message
from corft.cell.teleop_parameters import TELEOP_PARAMETERS
from corft.contract_choice import panda_contract_path
from corft.node_base import OK, CorftNode, Diagnosis, qos_profile
from corft.node_main import run_node
from corft_core.cell.grip import cell_gripper
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.scene import Scene, make_scene, scene_name
from corft_core.cell.tasks import get_task
from corft_core.cell.teleoperator import ImperfectOperator
from corft_core.contract import Contract
from corft_core.data.messages import MessageError, header_stamp_ns, joint_vector
from corft_core.errors import CorftError

# After a reset, samples of the scene before may still be under way.
SETTLE_NS = 100_000_000
PLACED_M = 0.02
# A listener is known here a little before it hears what is said.
DISCOVERY_S = 0.5
DELIVERY = Duration(seconds=2)
EARLIEST_SUCCESS_NS = 500_000_000


class TeleopNode(CorftNode):
    """See the module's docstring."""

    PARAMETERS = TELEOP_PARAMETERS

    def __init__(self) -> None:
        super().__init__("teleop_node")
        self._contract = Contract.load(self.param("contract") or panda_contract_path())
        self.hardware_id = self._contract.robot.name
        if self.param("speed_min") > self.param("speed_max"):
            raise CorftError(f"speed_min {self.param('speed_min')} is above speed_max {self.param('speed_max')}")
        self._task = get_task(self.param("task"))
        self._habits = replace(self._task.habits, speed=(self.param("speed_min"), self.param("speed_max")))
        self._kinematics = ArmKinematics(self._contract.robot.home_rad)
        self._index = self.param("first_index")
        self._successes = self._failures = 0
        self._scene: Scene | None = None
        self._operator: ImperfectOperator | None = None
        self._pending: Any = None
        self._start_ns = self._next_tick_ns = self._reset_ns = self._joint_ns = 0
        self._objects: PoseArray | None = None
        self._success = False
        self._ready_since_s: float | None = None
        self._arm = self.create_publisher(JointTrajectory, self._contract.arm_command.topic, 10)
        self._gripper = self.create_publisher(Float64MultiArray, self._contract.stream("gripper_command").topic, 10)
        self._events = self.create_publisher(EpisodeEvent, self._contract.stream("episode_event").topic, 10)
        self._resets: Client[Any, Any] = self.create_client(ResetScene, "cell/reset")
        self.create_subscription(JointState, self._contract.joint_state.topic, self._on_joint_state,
                                 qos_profile("reliable", 10))
        self.create_subscription(PoseArray, "cell/objects", self._on_objects, QoSProfile(depth=1))
        self.create_subscription(Bool, "cell/success", self._on_success, QoSProfile(depth=1))
        # Waiting for others must go on while no simulated time passes.
        self._starter = self.create_timer(0.05, self._begin, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def diagnose(self) -> list[Diagnosis]:
        return [Diagnosis(OK, self._scene.scene_id if self._scene else "between episodes",
                          {"successes": self._successes, "failures": self._failures})]

    def safe_stop(self) -> None:
        """Mark an unfinished episode, so that nobody learns from half of it."""
        if self._operator is not None:
            self._publish_event(EpisodeEvent.DISCARD, self._joint_ns)
            self._publish_event(EpisodeEvent.STOP, self._joint_ns)
            self._operator = None
            self._events.wait_for_all_acked(DELIVERY)

    def _begin(self) -> None:
        """Between episodes: wait for cell and recorder, then ask for the next scene."""
        if self._scene is not None or self._pending is not None or not self._ready():
            return
        self._scene = make_scene(scene_name(self._task.name, self.param("split"), self._index))
        self._pending = self._resets.call_async(ResetScene.Request(scene_id=self._scene.scene_id))
        self._pending.add_done_callback(self._on_reset)

    def _ready(self) -> bool:
        missing = [] if self._resets.service_is_ready() else ["the service cell/reset"]
        if not (self._arm.get_subscription_count() and self._gripper.get_subscription_count()):
            missing.append("the cell's controllers")
        if self.param("wait_for_recorder"):
            topics = [(self._contract.arm_command.topic, 2), (self._contract.stream("gripper_command").topic, 2),
                      (self._contract.stream("episode_event").topic, 1), (self._contract.joint_state.topic, 2),
                      *((camera.topic, 1) for camera in self._contract.cameras)]
            missing += [f"a recorder on {topic}" for topic, listeners in topics
                        if self.count_subscribers(topic) < listeners]
        if self._events.get_subscription_count() < self.count_subscribers(self._contract.stream("episode_event").topic):
            missing.append("the connection to a listener of episode events")
        if missing:
            self.get_logger().info(f"waiting for {', '.join(missing)}", throttle_duration_sec=5.0)
            self._ready_since_s = None
            return False
        if self._ready_since_s is None:
            self._ready_since_s = time.monotonic()
        return time.monotonic() - self._ready_since_s > DISCOVERY_S

    def _on_reset(self, future: Any) -> None:
        self._pending = None
        response = future.result()
        if not response.success:
            self.get_logger().fatal(f"the cell refused a scene: {response.message}")
            self.request_exit(1)
            return
        self._reset_ns = self._joint_ns
        self._objects = None

    def _on_objects(self, message: PoseArray) -> None:
        self._objects = message

    def _on_success(self, message: Bool) -> None:
        self._success = message.data

    def _on_joint_state(self, message: JointState) -> None:
        stamp_ns = header_stamp_ns(message) or 0
        self._joint_ns = stamp_ns
        if self._scene is None or self._pending is not None or self._objects is None:
            return
        if self._operator is None:
            if not self._scene_is_set(stamp_ns):
                return
            self._operator = ImperfectOperator(self.param("seed") * 1_000_003 + self._index,
                                               rate_hz=self._contract.rate_hz, habits=self._habits,
                                               kinematics=self._kinematics)
            self._start_ns = self._next_tick_ns = stamp_ns
            self._publish_event(EpisodeEvent.START, stamp_ns)
        if self._success and stamp_ns > self._start_ns + EARLIEST_SUCCESS_NS:
            self._end(EpisodeEvent.SUCCESS, stamp_ns)
        elif self._operator.done or stamp_ns - self._start_ns > self.param("time_limit_s") * 1e9:
            self._end(EpisodeEvent.FAILURE, stamp_ns)
        elif stamp_ns >= self._next_tick_ns:
            self._tick(message)
            # A tick that was missed is left out, not made up for.
            late = (stamp_ns - self._next_tick_ns) // self._contract.step_ns
            self._next_tick_ns += (late + 1) * self._contract.step_ns

    def _scene_is_set(self, stamp_ns: int) -> bool:
        """Whether what is seen is the scene after the reset, not remains of the one before."""
        assert self._scene is not None and self._objects is not None
        seen_ns = header_stamp_ns(self._objects) or 0
        if min(stamp_ns, seen_ns) < self._reset_ns + SETTLE_NS:
            return False
        if len(self._objects.poses) != len(self._task.bodies):
            self.get_logger().error(f"the cell has {len(self._objects.poses)} objects, the task {self._task.name} has "
                                    f"{len(self._task.bodies)}: start both with the same task",
                                    throttle_duration_sec=5.0)
            return False
        seen = objects_of(self._objects, self._task.bodies)
        return all(abs(seen[name][0][0] - x) < PLACED_M and abs(seen[name][0][1] - y) < PLACED_M
                   for name, (x, y, _) in self._scene.places)

    def _tick(self, message: JointState) -> None:
        assert self._scene is not None and self._operator is not None and self._objects is not None
        try:
            state = joint_vector(message.name, message.position, self._contract)
        except MessageError as error:
            self.get_logger().error(f"{error}", throttle_duration_sec=2.0)
            return
        time_s = (self._joint_ns - self._start_ns) * 1e-9
        finger_m = cell_gripper(self._contract).to_position(state[-1])
        path, gripper_m = self._operator.command(time_s, state[:-1], finger_m,
                                                 objects_of(self._objects, self._task.bodies), self._scene)
        self._arm.publish(trajectory_message(path))
        self._gripper.publish(Float64MultiArray(data=[gripper_m]))

    def _end(self, kind: int, stamp_ns: int) -> None:
        self._publish_event(kind, stamp_ns)
        self._publish_event(EpisodeEvent.STOP, stamp_ns)
        success = kind == EpisodeEvent.SUCCESS
        self._successes += success
        self._failures += not success
        wanted = self.param("episodes")
        number = self._successes if success else self._successes + 1
        print(f"demo {number}/{wanted} {'success' if success else 'failure, repeated with another scene'} "
              f"{(stamp_ns - self._start_ns) * 1e-9:.1f} s", flush=True)
        self._scene, self._operator, self._success = None, None, False
        self._index += 1
        if self._successes >= wanted:
            self.destroy_timer(self._starter)
            self.get_logger().info(f"done: {self._successes} successes, {self._failures} failures")
            if self.param("exit_when_done"):
                # The last episode is worth nothing to a recorder that misses how it ended.
                self._events.wait_for_all_acked(DELIVERY)
                self.request_exit(0)

    def _publish_event(self, kind: int, stamp_ns: int) -> None:
        assert self._scene is not None
        event = EpisodeEvent(kind=kind, instruction=self._scene.instruction, operator_id=self.param("operator_id"),
                             scene_id=self._scene.scene_id)
        event.header.stamp = stamp_message(stamp_ns)
        self._events.publish(event)


def main() -> None:
    sys.exit(run_node(TeleopNode))


if __name__ == "__main__":
    main()
