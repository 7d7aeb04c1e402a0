"""An operator for the executor's tests: sends chunks as a policy would, watches the arm, starts executors on a cell."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rclpy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from corft_msgs.srv import ResetScene
from rclpy.node import Node
from ros.graph import (
    ACTIVATE,
    CONFIGURE,
    CONTRACT,
    PATIENCE_S,
    NodeProcess,
    call,
    change_state,
    ros_context,
    running,
    spin_until,
)
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from corft.chunk_messages import chunk_message
from corft_core.contract import Contract

SCENE = CONTRACT.parent / "scene.yaml"
HORIZON = 10
STILL_RAD_S = 0.02
BRAKED_S = 1.8  # hand-off, brake, and what a busy machine takes to hear of it; unbraked, start_moving() goes on longer
# On a machine that is busy with other things a chunk comes too late, or joint states do and the arm brakes; the next
# chunk is as good.
BUSY_MACHINE = ("PLANNING_LATE", "STALE", "TOO_FEW_LEFT", "OBSERVATION_STALE", "BUSY", "SUPERSEDED")
PARAMETERS = {"contract": CONTRACT, "scene": SCENE, "use_sim_time": True, "handoff_s": 0.2}


class Operator(Node):
    """Sends chunks as a policy would, and watches the arm."""

    def __init__(self, name: str = "operator") -> None:
        super().__init__(name)
        self.contract = Contract.load(CONTRACT)
        self.chunks = self.create_publisher(ActionChunk, "action_chunk", 1)
        self.statuses: list[ExecutionStatus] = []
        self.stamp_ns, self.position, self.speed, self.fingers_m = 0, np.zeros(7), 0.0, 0.0
        self.number = 0
        self.executors = 0
        self.create_subscription(JointState, "joint_states", self._on_joints, 1)
        self.create_subscription(ExecutionStatus, "execution_status", self.statuses.append, 10)

    @property
    def arm_node(self) -> str:
        """Name of the executor under test."""
        return f"executor_{self.executors}"

    def _on_joints(self, message: JointState) -> None:
        self.stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        names = list(message.name)
        order = [names.index(name) for name in self.contract.robot.joints]
        self.position = np.array(message.position)[order]
        self.speed = float(np.max(np.abs(np.array(message.velocity)[order])))
        self.fingers_m = message.position[names.index(self.contract.gripper.joint)]

    def chunk(self, target: np.ndarray, opening: float = 1.0, step_rad: float = 0.06,
              steps: int = HORIZON) -> ActionChunk:
        """A chunk from the present position towards ``target``, ``step_rad`` an action."""
        away = target - self.position
        length = max(float(np.max(np.abs(away))), 1e-9)
        part = np.minimum(step_rad * np.arange(1, steps + 1) / length, 1.0)
        actions = np.column_stack([self.position + part[:, None] * away, np.full(steps, opening)])
        self.number += 1
        return chunk_message(self.contract, self.stamp_ns, actions, chunk_number=self.number, policy_id="test",
                             value=float("nan"), inference_s=0.0)

    def send(self, message: ActionChunk) -> ExecutionStatus:
        """The first status about this chunk."""
        self.chunks.publish(message)
        found: list[ExecutionStatus] = []

        def seen() -> bool:
            found.extend(s for s in self.statuses if s.chunk_number == message.chunk_number)
            return bool(found)

        spin_until(self, seen, f"a status about chunk {message.chunk_number}")
        return found[0]

    def follow(self, target: np.ndarray, **shape: Any) -> ExecutionStatus:
        """Chunks towards ``target`` until one is not refused for want of a core; its first status."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            answer = self.send(self.chunk(target, **shape))
            if answer.reason not in BUSY_MACHINE:
                return answer
            assert time.monotonic() < deadline_s, answer
            self.watch(0.2)

    def drive(self, target: np.ndarray, opening: float = 1.0, timeout_s: float = PATIENCE_S) -> list[ExecutionStatus]:
        """Send chunks, each from a new observation, until the arm stands at ``target``."""
        answers = []
        deadline_s = time.monotonic() + timeout_s
        while np.max(np.abs(self.position - target)) > 0.02 or self.speed > STILL_RAD_S:
            assert time.monotonic() < deadline_s, f"{self.position} is not {target}; {answers[-1:]}"
            answer = self.send(self.chunk(target, opening))
            answers += [answer] if answer.reason not in BUSY_MACHINE else []
            after_ns = self.stamp_ns + 200_000_000
            spin_until(self, lambda after_ns=after_ns: self.stamp_ns > after_ns, "joint states")
        return answers

    def start_moving(self) -> None:
        """Send one long chunk and wait until the arm is under way."""
        goal = self.position.copy()
        goal[0] += 0.9 if goal[0] < 0 else -0.9
        answer = self.follow(goal, step_rad=0.03, steps=3 * HORIZON)
        assert answer.state == ExecutionStatus.EXECUTING, answer
        spin_until(self, lambda: self.speed > 0.2, "the arm to move")

    def wait_still(self) -> float:
        """Simulated seconds until the arm stood."""
        begin_ns = self.stamp_ns
        spin_until(self, lambda: self.speed < STILL_RAD_S, "the arm to stand")
        return (self.stamp_ns - begin_ns) * 1e-9

    def watch(self, duration_s: float) -> float:
        """Largest joint difference [rad] seen during simulated ``duration_s``."""
        begin, until_ns, moved = self.position.copy(), self.stamp_ns + round(duration_s * 1e9), 0.0
        while self.stamp_ns < until_ns:
            rclpy.spin_once(self, timeout_sec=0.1)
            moved = max(moved, float(np.max(np.abs(self.position - begin))))
        return moved


@contextlib.contextmanager
def operator_who_sees_the_arm() -> Iterator[Operator]:
    """rclpy, and an operator who has heard joint states."""
    with ros_context():
        node = Operator()
        try:
            spin_until(node, lambda: node.stamp_ns > 0, "joint states")
            yield node
        finally:
            node.destroy_node()


@contextlib.contextmanager
def operator_on_a_cell(environment: Mapping[str, str] | None = None) -> Iterator[Operator]:
    """A cell without images on simulated time, and an operator who sees its arm."""
    with running("cell_node", {"contract": CONTRACT, "image_rate_hz": 0.0}, environment=environment), \
            operator_who_sees_the_arm() as node:
        yield node


@contextlib.contextmanager
def executor_on(operator: Operator, environment: Mapping[str, str] | None = None, reset: bool = True,
                **parameters: Any) -> Iterator[NodeProcess]:
    """An active executor, not enabled; with ``reset`` on the running cell with the arm at home."""
    if reset:
        assert call(operator, ResetScene, "cell/reset", ResetScene.Request(scene_id="ind/0")).success
    operator.statuses.clear()
    # A name of its own: discovery keeps the last one's services for a while.
    operator.executors += 1
    process = NodeProcess("executor_node", {**PARAMETERS, **parameters}, name=operator.arm_node,
                          environment=environment)
    try:
        assert change_state(operator, operator.arm_node, CONFIGURE, ACTIVATE) == [True, True]
        spin_until(operator, lambda: operator.chunks.get_subscription_count() == 1, "the executor's subscription")
        spin_until(operator, lambda: operator.count_publishers("execution_status") == 1 and operator.statuses, "status")
        operator.wait_still()
        yield process
    finally:
        process.stop()
        print(process.output)


def enable(operator: Operator, on: bool = True) -> None:
    def done() -> bool:  # until the executor has seen a joint state
        return bool(call(operator, SetBool, f"{operator.arm_node}/enable", SetBool.Request(data=on)).success)

    spin_until(operator, done, "the executor to be enabled")
    fresh_ns = operator.stamp_ns + 500_000_000
    spin_until(operator, lambda: operator.stamp_ns > fresh_ns, "joint states")
