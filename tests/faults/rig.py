"""The live graph under test: `bringup.launch.py` on a simulated cell, with every topic between them in our hands.

The cell runs in the namespace `cell`; this process passes its clock, joint states, images and, where control_msgs can
be imported, its controller's state on to the graph, and the graph's commands back, through channels that can lose,
delay, repeat and change messages. It also sends chunks as a policy would, and records what the controller was asked to
do.

Cell and relay stand for the robot's side, whose controller manager runs with real-time priority: where that is allowed
they go before all other processes, and all other processes are the graph's. The controller that is judged is the
relay's, and its setpoint is what the graph hears of; the cell's own follows the same commands one step of transport
later, which no robot has.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.cell.messages import path_of
from corft.chunk_messages import chunk_message, duration_message
from corft.executor.control_interfaces import optional_control_type
from corft.node_base import qos_profile
from corft_core.contract import Contract
from faults.channel import Channel, Post, faithful
from faults.setpoint import Setpoint

HORIZON, CHUNK_PERIOD_S = 10, 0.2
STEP_RAD = 0.07
REACH_RAD = 0.35
PATIENCE_S = 60.0
NICE_ROBOT, NICE_GRAPH = -15, os.getpriority(os.PRIO_PROCESS, 0)
LAUNCH_FILE = Path(__file__).with_name("graph.launch.py")
GOAL = RunPolicy.Goal(instruction="put the red cube into the bin")
GOES_ON_S, ABORTS_S = 5.0, 10.0  # longest time until the policy's next chunk, and until a goal is aborted
IN_FLIGHT_S = 1.0  # longest time from stamping a command to passing it on


@dataclass(frozen=True)
class Seen:
    """A status and when it came: steady time and the robot's clock, in s."""

    time_s: float
    cell_s: float
    status: ExecutionStatus


def shift(stamp: Any, offset_ns: int) -> None:
    """Move a stamp in place."""
    total = max(0, stamp.sec * 1_000_000_000 + stamp.nanosec + offset_ns)
    stamp.sec, stamp.nanosec = divmod(total, 1_000_000_000)


def as_the_graph() -> None:
    """Give this process the priority of what is under test."""
    os.setpriority(os.PRIO_PROCESS, 0, NICE_GRAPH)


class Rig:
    """Start with :meth:`start`; then :meth:`drive` and break things."""

    def __init__(self, contract_file: Path, checkpoint: Path, folder: Path, seed: int) -> None:
        self.contract = Contract.load(contract_file)
        self.random = random.Random(seed)
        self._contract_file, self._checkpoint, self._folder = contract_file, checkpoint, folder
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE_ROBOT)  # threads and processes inherit it
        self._home = tempfile.TemporaryDirectory()  # stops that the last campaign left unanswered are not this one's
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._post = Post()
        self.offset_ns = 0
        """Added to the time that the graph sees."""
        self._offset_before_ns, self._stepped_s = 0, -math.inf
        self.cell_s = 0.0
        self.position = np.array(self.contract.robot.home_rad)
        self.velocity = np.zeros_like(self.position)
        self._stamp: Any = None
        self.opening, self._finger = 1.0, 0.0
        """Of the gripper in the chunks, 0 closed … 1 open, and the finger's measured position."""
        self.missed: list[str] = []
        self.setpoint = Setpoint(self.contract)
        self.statuses: list[Seen] = []
        self.chunks_sent = 0
        self.driving = False
        self._away = False
        try:
            self._make_node()
        except BaseException:
            rclpy.try_shutdown()
            raise

    def _make_node(self) -> None:
        rclpy.init()
        self.node = Node("fault_campaign")
        contract, node = self.contract, self.node

        def relay(kind: Any, source: str, target: str, qos: Any, before: Callable[[Any], Any],
                  after: Callable[[Any], Any] = lambda message: message, ordered: bool = False) -> Channel:
            """``before`` the fault every message is edited as it comes, ``after`` it as it arrives."""
            publisher = node.create_publisher(kind, target, qos)
            channel = Channel(lambda message: publisher.publish(after(message)), self._post, ordered)
            node.create_subscription(kind, source, lambda message: channel.feed(before(message)), qos)
            return channel

        reliable = qos_profile("reliable", 10)
        self.channels = {
            "clock": relay(Clock, "cell/clock", "/clock", qos_profile("reliable", 1), self._on_clock),
            "joint_state": relay(JointState, f"cell/{contract.joint_state.topic}", contract.joint_state.topic,
                                 reliable, self._on_joint_state),
            "arm_command": relay(JointTrajectory, contract.arm_command.topic, f"cell/{contract.arm_command.topic}",
                                 reliable, lambda message: message, self._on_command, ordered=True),
            "gripper_command": relay(Float64MultiArray, contract.gripper_command.topic,
                                     f"cell/{contract.gripper_command.topic}", reliable, lambda message: message)}
        state_type = optional_control_type("msg", "JointTrajectoryControllerState")
        if state_type is not None:
            topic = "arm_controller/controller_state"
            self.channels["controller_state"] = relay(state_type, f"cell/{topic}", topic, reliable,
                                                      self._on_controller_state)
        for camera in contract.cameras:
            self.channels[camera.name] = relay(Image, f"cell/{camera.topic}", camera.topic, qos_profile("reliable", 1),
                                               self._on_stamped)
        self._chunk_publisher = node.create_publisher(ActionChunk, "action_chunk", reliable)
        self.channels["action_chunk"] = Channel(self._chunk_publisher.publish, self._post)
        self.channels["execution_status"] = relay(ExecutionStatus, "executor_node/execution_status",
                                                  "execution_status", reliable, self._on_status)
        node.create_timer(CHUNK_PERIOD_S, self._send_chunk)
        self.goals: ActionClient[Any, Any, Any] = ActionClient(node, RunPolicy, "run_policy")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    # What passes through

    def _on_clock(self, message: Clock) -> Clock:
        with self._lock:
            self.cell_s = message.clock.sec + message.clock.nanosec * 1e-9
            self.setpoint.advance(self.cell_s)
        shift(message.clock, self.offset_ns)
        return message

    def _on_joint_state(self, message: JointState) -> JointState:
        names = list(message.name)
        order = [names.index(name) for name in self.contract.robot.joints]
        with self._lock:
            if self.contract.gripper is not None:
                self._finger = message.position[names.index(self.contract.gripper.joint)]
            self.position = np.array(message.position)[order]
            self.velocity = np.array(message.velocity)[order]
            self.setpoint.arm_at(self.position)
        shift(message.header.stamp, self.offset_ns)
        self._stamp = message.header.stamp
        return message

    def _on_stamped(self, message: Any) -> Any:
        shift(message.header.stamp, self.offset_ns)
        return message

    def _on_controller_state(self, message: Any) -> Any:
        """The controller that is judged is the one that speaks: the cell's own gets its commands a little later."""
        stamp = message.header.stamp
        with self._lock:
            if self.setpoint.begun:
                state = self.setpoint.at(stamp.sec + stamp.nanosec * 1e-9)
                message.reference.positions = state.positions.tolist()
                message.reference.velocities = state.velocities.tolist()
                message.reference.accelerations = state.accelerations.tolist()
        return self._on_stamped(message)

    def _on_command(self, message: JointTrajectory) -> JointTrajectory:
        if message.header.stamp.sec or message.header.stamp.nanosec:
            shift(message.header.stamp, -self._offset_of(message.header.stamp))
        stamp = message.header.stamp
        start_s = stamp.sec + stamp.nanosec * 1e-9 or None
        with self._lock:
            self.setpoint.command(path_of(message), start_s, self.cell_s)
        return message

    def foreign_command(self, goal: np.ndarray[Any, Any], duration_s: float) -> None:
        """Another node sends the controller a trajectory of one point, at rest at ``goal``."""
        point = JointTrajectoryPoint(positions=goal.tolist(), velocities=[0.0] * len(goal),
                                     accelerations=[0.0] * len(goal), time_from_start=duration_message(
                                         round(duration_s * 1e9)))
        message = JointTrajectory(joint_names=list(self.contract.robot.joints), points=[point])
        self.channels["arm_command"].publish(message)

    def step_clock(self, amount_ns: int) -> None:
        """Move the time that the graph sees; the robot's own goes on."""
        self._offset_before_ns, self._stepped_s = self.offset_ns, time.monotonic()
        self.offset_ns += amount_ns

    def _offset_of(self, stamp: Any) -> int:
        """The offset that a command was stamped with: just after a step it may still be the one before."""
        since_s = time.monotonic() - self._stepped_s
        if since_s > IN_FLIGHT_S:
            return self.offset_ns
        stamp_ns, now_ns = stamp.sec * 1_000_000_000 + stamp.nanosec, round(self.cell_s * 1e9)
        return min((self.offset_ns, self._offset_before_ns), key=lambda offset: abs(stamp_ns - offset - now_ns))

    def _on_status(self, status: ExecutionStatus) -> ExecutionStatus:
        self.statuses.append(Seen(time.monotonic(), self.cell_s, status))
        return status

    # A policy that drives to and fro

    def chunk(self) -> ActionChunk | None:
        """A chunk from the last observation towards the present goal; None before the first observation."""
        if self._stamp is None:
            return None
        stamp_ns = self._stamp.sec * 1_000_000_000 + self._stamp.nanosec
        home = np.array(self.contract.robot.home_rad)
        goal = home.copy()
        goal[[0, 3, 5]] += np.array([1.0, 0.5, 0.5]) * (REACH_RAD if self._away else -REACH_RAD)
        way = goal - self.position
        length = max(float(np.max(np.abs(way))), 1e-9)
        if length < 0.1:
            self._away = not self._away
        part = np.minimum(STEP_RAD * np.arange(1, HORIZON + 1) / length, 1.0)[:, None]
        actions = np.column_stack([self.position + part * way, np.full(HORIZON, self.opening)])
        self.chunks_sent += 1
        return chunk_message(self.contract, stamp_ns, actions, chunk_number=self.chunks_sent, policy_id="campaign",
                             value=float("nan"), inference_s=0.0)

    def _send_chunk(self) -> None:
        if self.driving and (message := self.chunk()) is not None:
            self.channels["action_chunk"].feed(message)

    # The graph

    def start(self) -> None:
        """Start cell and graph, and wait until the graph is active."""
        ros2 = shutil.which("ros2")
        assert ros2, "no ros2 command on the PATH; source the workspace first"
        self._spawn("cell", [ros2, "run", "corft", "cell_node", "--ros-args", "-r", "__ns:=/cell", "-r",
                             "/clock:=/cell/clock", "-p", f"contract:={self._contract_file}"])
        self._spawn("graph", [ros2, "launch", str(LAUNCH_FILE), f"checkpoint:={self._checkpoint}",
                              f"contract:={self._contract_file}", "use_sim_time:=true", "torch_threads:=1"])
        self.wait(self.is_active, "the graph to become active", 3 * PATIENCE_S)

    def _spawn(self, name: str, command: list[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "ROS_HOME": self._home.name},
                preexec_fn=None if name == "cell" else as_the_graph)

    def restart(self, name: str) -> None:
        """Start ``cell`` or ``graph`` anew, once it has ended, and wait until the graph is active."""
        process = self._processes[name]
        self.wait(lambda: process.poll() is not None, f"the end of the {name}")
        command = process.args
        assert isinstance(command, list)
        if name == "cell":  # another robot, whose time starts anew
            with self._lock:
                self.setpoint = Setpoint(self.contract)
        self._spawn(name, [str(part) for part in command])
        self.wait(self.is_active, "the graph to become active", 3 * PATIENCE_S)

    def close(self) -> None:
        """End everything."""
        self.driving = False
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._processes.values():
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._post.close()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
        as_the_graph()

    def kill(self, program: str, number: int = signal.SIGKILL) -> None:
        """Signal the process of a node: ``executor_node``, ``policy_node``, ``cell_node`` …"""
        self.wait(lambda: self._process_of(program), f"a process of {program}")
        process = self._process_of(program)
        assert process is not None
        process.send_signal(number)

    def _process_of(self, program: str) -> psutil.Process | None:
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(process.pid)
                for member in [*parent.children(recursive=True), parent]:
                    if any(Path(word).name == program for word in member.cmdline()[:3]):
                        return member
        return None

    # Talking to it

    def call(self, kind: Any, name: str, request: Any, timeout_s: float = 10.0) -> Any:
        """A service's answer, None when there is none in time."""
        client = self.node.create_client(kind, name)
        try:
            deadline_s = time.monotonic() + timeout_s
            if not client.wait_for_service(timeout_s):
                return None
            future = client.call_async(request)
            while not future.done():
                if time.monotonic() > deadline_s:
                    return None
                time.sleep(0.01)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def enable(self, on: bool = True) -> bool:
        """~/enable of the executor; whether it agreed."""
        answer = self.call(SetBool, "executor_node/enable", SetBool.Request(data=on))
        return answer is not None and bool(answer.success)

    def trigger(self, name: str) -> bool:
        """A Trigger service, for example ``executor_node/stop``; whether it agreed."""
        answer = self.call(Trigger, name, Trigger.Request())
        return answer is not None and bool(answer.success)

    def transition(self, node: str, number: int) -> bool:
        """A lifecycle transition; whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = number
        answer = self.call(ChangeState, f"{node}/change_state", request)
        return answer is not None and bool(answer.success)

    def is_active(self) -> bool:
        """Whether the lifecycle manager says that the graph is active."""
        return self.trigger("lifecycle_manager/is_active")

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Until ``condition()`` is true. Raises TimeoutError naming ``what``."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"waited {timeout_s:.0f} s for {what}; see {self._folder}")
            time.sleep(0.02)

    def run(self, duration_s: float) -> None:
        """Let the graph run for a while."""
        time.sleep(duration_s)

    def moving(self) -> bool:
        """Whether the arm is under way."""
        with self._lock:
            return float(np.max(np.abs(self.velocity))) > 0.1

    def drive(self, timeout_s: float = PATIENCE_S) -> None:
        """Send chunks and enable the executor until it follows new ones; clears stops on the way."""
        self.driving = True
        began_s, sent = time.monotonic(), self.chunks_sent
        deadline_s = began_s + timeout_s

        def follows(seen: Seen) -> bool:
            status = seen.status
            return (seen.time_s > began_s and status.state == ExecutionStatus.EXECUTING and not status.reason
                    and status.chunk_number > sent)

        while not (self.moving() and any(follows(seen) for seen in self.statuses[-10:])):
            state = self.statuses[-1].status.state if self.statuses else None
            if state in (None, ExecutionStatus.DISABLED, ExecutionStatus.STOPPED):
                self.enable()
            if time.monotonic() > deadline_s:
                last = self.statuses[-1].status if self.statuses else None
                raise TimeoutError(f"the arm follows no chunk within {timeout_s:.0f} s; last status: "
                                   + ("none" if last is None else f"{last.state} {last.reason} {last.message}"))
            time.sleep(0.05)

    def begin_goal(self) -> Any:
        """Let the policy drive; its goal's handle once the arm follows its chunks. None, and missed, when none does."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            # A process that was killed just now is active by the manager's word still.
            self.wait(lambda: self._lives("camera_node") and self._lives("policy_node"), "cameras and policy")
            self.driving = False
            future = self.goals.send_goal_async(GOAL)
            with contextlib.suppress(TimeoutError):
                self.wait(future.done, "the goal's acceptance", 10.0)
            handle, sent_s = future.result() if future.done() else None, time.monotonic()
            if handle is not None and handle.accepted:
                result = handle.get_result_async()
                self.wait(lambda result=result, sent_s=sent_s: result.done() or self._policy_drives(sent_s),
                          "the policy's chunks")
                if not result.done():
                    return handle
            self.drive()
        self.missed.append("a goal that drives the arm")
        return None

    def _lives(self, name: str) -> bool:
        """Whether a lifecycle node says that it is active."""
        answer = self.call(GetState, f"{name}/get_state", GetState.Request(), 2.0)
        return answer is not None and answer.current_state.label == "active"

    def judge_goal(self, handle: Any, aborts: str) -> str:
        """How the goal ended: ``aborted: …`` by what is in the reason, or ``went on`` until it is cancelled here."""
        result, mended_s = handle.get_result_async(), time.monotonic()
        if aborts:
            self.expect(result.done, f"the goal's end: {aborts}", ABORTS_S)
        else:
            self.expect(lambda: result.done() or self._policy_drives(mended_s), "the policy's next chunk", GOES_ON_S)
        if not result.done():
            handle.cancel_goal_async()
            self.wait(result.done, "the goal's cancellation")
            return "went on"
        reason = str(result.result().result.reason)
        self.expect(lambda: bool(aborts) and aborts in reason, f"the goal ended: {reason}", 0.0)
        return f"aborted: {aborts or reason}"

    def _policy_drives(self, since_s: float) -> bool:
        """Whether a chunk of the policy was taken since then."""
        return any(seen.time_s > since_s and seen.status.source == "/policy_node" and not seen.status.reason
                   and seen.status.state == ExecutionStatus.EXECUTING for seen in self.statuses[-40:])

    def gripper_follows(self) -> bool:
        """Whether the fingers are where the chunks want them."""
        gripper = self.contract.gripper
        assert gripper is not None
        return abs(self._finger - gripper.to_position(self.opening)) < 0.2 * abs(
            gripper.open_position - gripper.closed_position)

    def expect(self, condition: Callable[[], Any], what: str, timeout_s: float) -> None:
        """Wait for what has to come; where it does not, the fault is not as expected."""
        try:
            self.wait(condition, what, timeout_s)
        except TimeoutError:
            self.missed.append(what)

    @contextlib.contextmanager
    def faulty(self, name: str, fault: Any) -> Iterator[None]:
        """A channel with a fault for the length of the block."""
        self.channels[name].fault = fault
        try:
            yield
        finally:
            self.channels[name].fault = faithful

    def take_motion(self) -> Any:
        """The setpoint's samples since the last call."""
        with self._lock:
            self.setpoint.advance(self.cell_s)
            return self.setpoint.take()
