"""Everything that is broken in the campaign. A fault is a function that breaks the graph, waits, and mends it."""

from __future__ import annotations

import contextlib
import copy
import math
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from corft_msgs.msg import ActionChunk
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from corft.node_base import qos_profile
from faults.bad_chunks import bad_chunks, positions
from faults.channel import changed, delayed, dropped, duplicated, reordered
from faults.goals import goals
from faults.kinds import FaultKind, Inject
from faults.rig import Rig, as_the_graph


def catalogue() -> list[FaultKind]:
    """All kinds of faults."""
    return [*_topics(), *_joint_states(), *bad_chunks(), *_clock(), *_processes(), *goals(), *_others()]


# Topics

def _on(channel: str, fault: Callable[[random.Random], Any], duration_s: float) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        with rig.faulty(channel, fault(rng)):
            rig.run(duration_s)
    return inject


def _topics() -> Iterator[FaultKind]:
    for channel in ("joint_state", "action_chunk"):
        yield FaultKind(f"{channel}: 30 % lost", "topics", _on(channel, lambda rng: dropped(0.3, rng), 1.0))
        yield FaultKind(f"{channel}: delayed 50 to 300 ms, in any order", "topics",
                        _on(channel, lambda rng: delayed(0.05, 0.3, rng), 1.0))
        yield FaultKind(f"{channel}: three times each", "topics", _on(channel, lambda rng: duplicated(3, 0.02), 1.0))
        yield FaultKind(f"{channel}: pairs swapped", "topics", _on(channel, reordered, 1.0))
        yield FaultKind(f"{channel}: all lost", "topics", _on(channel, lambda rng: dropped(1.0, rng), 1.5), holds=True)
    for name, fault, holds in (("30 % lost", lambda rng: dropped(0.3, rng), False), ("pairs swapped", reordered, False),
                               ("all lost", lambda rng: dropped(1.0, rng), True)):
        yield FaultKind(f"controller_state: {name}", "topics", _on("controller_state", fault, 1.5), holds=holds)
    yield FaultKind("action_chunk: 1.5 s late", "topics",
                    _on("action_chunk", lambda rng: delayed(1.5, 1.5, rng), 2.5), holds=True, cost_s=5)
    yield FaultKind("arm_command: 20 % lost on the way to the controller", "topics",
                    _on("arm_command", lambda rng: dropped(0.2, rng), 1.0))
    yield FaultKind("arm_command: twice each", "topics", _on("arm_command", lambda rng: duplicated(2, 0.005), 1.0))
    yield FaultKind("arm_command: up to 20 ms late", "topics",
                    _on("arm_command", lambda rng: delayed(0.0, 0.02, rng), 1.0))
    for name, gripper_fault in (("all lost", lambda rng: dropped(1.0, rng)),
                                ("up to 0.5 s late, in any order", lambda rng: delayed(0.0, 0.5, rng)),
                                ("three times each", lambda rng: duplicated(3, 0.05))):
        yield FaultKind(f"gripper_command: {name}", "topics", _grip(gripper_fault))


def _grip(fault: Callable[[random.Random], Any]) -> Inject:
    """The gripper is to close and open; where it ends is what the chunks say."""
    def inject(rig: Rig, rng: random.Random) -> None:
        with rig.faulty("gripper_command", fault(rng)):
            for _ in range(3):
                rig.opening = 1.0 - rig.opening
                rig.run(0.4)
        rig.expect(rig.gripper_follows, "the gripper where the chunks want it", 4.0)
    return inject


# Joint states

def _joints(change: Callable[[Any, random.Random], None], duration_s: float) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        def edit(message: Any) -> Any:
            change(message, rng)
            return message
        with rig.faulty("joint_state", changed(edit)):
            rig.run(duration_s)
    return inject


def _set(index: int, value: float) -> Callable[[Any, random.Random], None]:
    def change(message: Any, rng: random.Random) -> None:
        message.position[index] = value
    return change


def _jumped(message: Any, rng: random.Random) -> None:
    message.position[0] += 0.6


def _permuted(message: Any, rng: random.Random) -> None:
    order = list(range(len(message.name)))
    rng.shuffle(order)
    message.name = [message.name[i] for i in order]
    message.position = [message.position[i] for i in order]
    message.velocity = [message.velocity[i] for i in order]


def _without_a_joint(message: Any, rng: random.Random) -> None:
    message.name, message.position = list(message.name)[1:], list(message.position)[1:]
    message.velocity = list(message.velocity)[1:]


def _empty(message: Any, rng: random.Random) -> None:
    message.name, message.position, message.velocity = [], [], []


def _frozen(stamps_too: bool) -> Inject:
    """The same joint state again and again, with new stamps or with its old one."""
    def inject(rig: Rig, rng: random.Random) -> None:
        first: list[Any] = []

        def freeze(message: Any) -> Any:
            first.append(copy.deepcopy(message)) if not first else None
            frozen = copy.deepcopy(first[0])
            if not stamps_too:
                frozen.header.stamp = message.header.stamp
            return frozen
        with rig.faulty("joint_state", changed(freeze)):
            rig.run(1.5)
    return inject


def _joint_states() -> Iterator[FaultKind]:
    def kind(name: str, change: Callable[[Any, random.Random], None], holds: bool) -> FaultKind:
        return FaultKind(f"joint states: {name}", "joint states", _joints(change, 1.2), holds)

    yield kind("one joint NaN", _set(2, math.nan), True)
    yield kind("one joint infinite", _set(3, math.inf), True)
    yield kind("one joint jumps by 0.6 rad", _jumped, True)
    yield kind("one joint missing", _without_a_joint, True)
    yield kind("no joints", _empty, True)
    yield kind("joints in another order", _permuted, False)
    yield FaultKind("joint states: frozen, stamps go on", "joint states", _frozen(False), holds=True)
    yield FaultKind("joint states: frozen with their stamp", "joint states", _frozen(True), holds=True)


# Clock

def _step_clock(amount_s: float) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        rig.step_clock(round(amount_s * 1e9))
        rig.run(1.2)
    return inject


def _clock() -> Iterator[FaultKind]:
    # A smaller step forward can't be told from a simulator that runs unevenly.
    for amount_s in (3.0, 600.0, -0.4, -3.0):
        yield FaultKind(f"clock: {'forward' if amount_s > 0 else 'back'} {abs(amount_s):g} s", "clock",
                        _step_clock(amount_s))
    yield FaultKind("clock: stands for 1.5 s", "clock", _on("clock", lambda rng: dropped(1.0, rng), 1.5))


# Processes

def _kill(program: str, number: int = signal.SIGKILL) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        rig.kill(program, number)
        rig.run(1.0)
    return inject


def _crash_under_emergency_stop(rig: Rig, rng: random.Random) -> None:
    """The executor that takes its place is stopped until the emergency stop is released."""
    rig.call(SetBool, "executor_node/estop", SetBool.Request(data=True))
    rig.kill("executor_node")
    rig.run(1.0)
    crashed_s = time.monotonic()
    rig.expect(lambda: any(seen.time_s > crashed_s for seen in rig.statuses), "another executor", 45.0)
    rig.run(1.0)
    after = {seen.status.reason for seen in rig.statuses if seen.time_s > crashed_s}
    rig.expect(lambda: after == {"EMERGENCY_STOP"} and not rig.enable(), f"the emergency stop, not {after}", 0.0)
    rig.call(SetBool, "executor_node/estop", SetBool.Request(data=False))


def _cut_off(rig: Rig, rng: random.Random) -> None:
    """Nothing passes between the robot and the graph, in either direction."""
    with contextlib.ExitStack() as stack:
        for name in rig.channels:
            if name != "action_chunk":
                stack.enter_context(rig.faulty(name, dropped(1.0, rng)))
        rig.run(1.5)


def _hang(program: str, duration_s: float) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        # Fast DDS gives up the shared memory of a process that reads nothing for a second: what is sent to it arrives
        # a second after it goes on. A driver that hangs shall find its commands where it left off.
        hanging = [rig.channels[name] for name in ("arm_command", "gripper_command") if program == "cell_node"]
        with contextlib.ExitStack() as stack:
            for channel in hanging:
                stack.enter_context(channel.keeping())
            rig.kill(program, signal.SIGSTOP)
            try:
                rig.run(duration_s)
            finally:
                rig.kill(program, signal.SIGCONT)
    return inject


def _burn(until_s: float) -> None:
    as_the_graph()
    while time.monotonic() < until_s:
        math.sqrt(2.0)


def _busy(rig: Rig, rng: random.Random) -> None:
    """Four times as many busy processes as cores."""
    duration_s = 1.5
    until_s = time.monotonic() + duration_s + 0.5
    processes = [multiprocessing.Process(target=_burn, args=(until_s,), daemon=True)
                 for _ in range(4 * multiprocessing.cpu_count())]
    for process in processes:
        process.start()
    rig.run(duration_s)
    for process in processes:
        process.terminate()
        process.join()


def _processes() -> Iterator[FaultKind]:
    for program in ("policy_node", "camera_node"):
        yield FaultKind(f"kill -9 {program}", "processes", _kill(program), cost_s=5)
    yield FaultKind("kill -9 lifecycle_manager", "processes", _kill("lifecycle_manager"), cost_s=5)
    for program, ends in (("executor_node", ""), ("cell_node", "cell")):
        yield FaultKind(f"kill -9 {program}", "processes", _kill(program), holds=True, silent=True, ends=ends,
                        cost_s=20)
    yield FaultKind("kill -9 executor_node under the emergency stop", "processes", _crash_under_emergency_stop,
                    holds=True, silent=True, cost_s=20)
    yield FaultKind("SIGTERM executor_node", "processes", _kill("executor_node", signal.SIGTERM), holds=True,
                    silent=True, cost_s=20)
    yield FaultKind("executor_node hangs for 1.5 s", "processes", _hang("executor_node", 1.5), False, True, cost_s=5)
    yield FaultKind("the cell hangs for 1.5 s", "processes", _hang("cell_node", 1.5), False, False, cost_s=5)
    yield FaultKind("processor saturated", "processes", _busy, cost_s=5)


# The rest

def _second_policy(rig: Rig, rng: random.Random) -> None:
    """Another policy pulls the arm elsewhere at the same time."""
    publisher = rig.node.create_publisher(ActionChunk, "action_chunk", 10)
    try:
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            message = rig.chunk()
            if message is not None:
                message.policy_id = "intruder"
                positions(lambda table, _: table + 0.2)(message, rng)
                publisher.publish(message)
            time.sleep(0.1)
    finally:
        rig.node.destroy_publisher(publisher)


def _second_commander(rig: Rig, rng: random.Random) -> None:
    """Another node sends the arm elsewhere, past the executor, while none of its commands is on the way: which of two
    comes last nobody could tell."""
    goal = np.array(rig.contract.robot.home_rad)
    goal[0] += rng.uniform(-0.3, 0.3)
    rig.driving = False
    rig.run(0.2)
    rig.foreign_command(goal, 1.5)
    rig.run(0.1)
    rig.driving = True
    rig.run(1.6)


def _service(name: str) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        rig.trigger(name)
        rig.run(1.0)
    return inject


def _disabled(rig: Rig, rng: random.Random) -> None:
    rig.enable(False)
    rig.run(1.0)


def _deactivated(rig: Rig, rng: random.Random) -> None:
    rig.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
    rig.run(1.0)
    rig.transition("executor_node", Transition.TRANSITION_ACTIVATE)


def _emergency_stop(rig: Rig, rng: random.Random) -> None:
    """Pressed, and released after a second."""
    publisher = rig.node.create_publisher(Bool, "estop", qos_profile("reliable", 1))
    try:
        rig.wait(publisher.get_subscription_count, "the executor to listen to estop", 5.0)
        for _ in range(10):
            publisher.publish(Bool(data=True))
            rig.run(0.1)
        publisher.publish(Bool(data=False))
        rig.run(0.2)
    finally:
        rig.node.destroy_publisher(publisher)


def _others() -> Iterator[FaultKind]:
    yield FaultKind("two policies at once", "graph", _second_policy)
    yield FaultKind("another node sends a trajectory to the controller", "graph", _second_commander, holds=True)
    yield FaultKind("robot and graph are cut off from each other for 1.5 s", "graph", _cut_off, holds=True)
    yield FaultKind("stop is called", "operator", _service("executor_node/stop"), holds=True)
    yield FaultKind("the emergency stop is pressed", "operator", _emergency_stop, holds=True)
    yield FaultKind("home is called in motion", "operator", _service("executor_node/home"), cost_s=6)
    yield FaultKind("the operator disables", "operator", _disabled, holds=True)
    yield FaultKind("the executor is deactivated", "operator", _deactivated, holds=True)
