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
from dataclasses import dataclass
from typing import Any

import numpy as np
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Bool

from corft.node_base import qos_profile
from faults.channel import changed, delayed, dropped, duplicated, reordered
from faults.rig import Rig, shift

Inject = Callable[[Rig, random.Random], None]


@dataclass(frozen=True)
class FaultKind:
    """``holds``: the arm has to come to rest because of it. ``silent``: the executor itself is gone or hangs, so that
    no reason can be published. ``ends``: what ends with it and is started anew, ``cell`` or ``graph``. ``cost_s``:
    about how long one takes."""

    name: str
    family: str
    inject: Inject
    holds: bool = False
    silent: bool = False
    ends: str = ""
    cost_s: float = 3.0


def catalogue() -> list[FaultKind]:
    """All kinds of faults."""
    return [*_topics(), *_joint_states(), *_chunks(), *_clock(), *_processes(), *_others()]


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
    yield FaultKind("action_chunk: 1.5 s late", "topics",
                    _on("action_chunk", lambda rng: delayed(1.5, 1.5, rng), 2.5), holds=True, cost_s=5)
    yield FaultKind("arm_command: 20 % lost on the way to the controller", "topics",
                    _on("arm_command", lambda rng: dropped(0.2, rng), 1.0))
    yield FaultKind("arm_command: twice each", "topics", _on("arm_command", lambda rng: duplicated(2, 0.005), 1.0))
    yield FaultKind("arm_command: up to 20 ms late", "topics",
                    _on("arm_command", lambda rng: delayed(0.0, 0.02, rng), 1.0))


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


# Chunks

def _bad_chunks(change: Callable[[ActionChunk, random.Random], None], alone: bool) -> Inject:
    """Bad chunks in place of the good ones (``alone``), or between them."""
    def inject(rig: Rig, rng: random.Random) -> None:
        def edit(message: ActionChunk) -> ActionChunk:
            if alone or rng.random() < 0.5:
                change(message, rng)
            return message
        with rig.faulty("action_chunk", changed(edit)):
            rig.run(1.0)
    return inject


def _positions(edit: Callable[[np.ndarray[Any, Any], random.Random], np.ndarray[Any, Any]]) -> \
        Callable[[ActionChunk, random.Random], None]:
    def change(message: ActionChunk, rng: random.Random) -> None:
        table = edit(np.array([point.positions for point in message.trajectory.points]), rng)
        for point, row in zip(message.trajectory.points, table, strict=True):
            point.positions = row.tolist()
    return change


def _one_value(value: float) -> Callable[[np.ndarray[Any, Any], random.Random], np.ndarray[Any, Any]]:
    def edit(table: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any]:
        table[rng.randrange(len(table)), rng.randrange(table.shape[1])] = value
        return table
    return edit


def _alternating(table: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any]:
    return np.asarray(table + 0.25 * np.where(np.arange(len(table)) % 2, 1, -1)[:, None])


def _through_the_table(table: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any]:
    table[:, 1] = table[0, 1] + 0.1 * np.arange(1, len(table) + 1)  # the shoulder leans forward and down
    return table


def _wrong_names(message: ActionChunk, rng: random.Random) -> None:
    message.trajectory.joint_names = [f"other_{name}" for name in message.trajectory.joint_names]


def _twice_the_same_name(message: ActionChunk, rng: random.Random) -> None:
    message.trajectory.joint_names = [message.trajectory.joint_names[0], *message.trajectory.joint_names[:-1]]


def _short_points(message: ActionChunk, rng: random.Random) -> None:
    for point in message.trajectory.points:
        point.positions = point.positions[:-2]


def _no_points(message: ActionChunk, rng: random.Random) -> None:
    message.trajectory.points = []


def _no_gripper(message: ActionChunk, rng: random.Random) -> None:
    message.gripper = []


def _gripper_nan(message: ActionChunk, rng: random.Random) -> None:
    message.gripper = [math.nan] * len(message.gripper)


def _stamped(offset_s: float) -> Callable[[ActionChunk, random.Random], None]:
    def change(message: ActionChunk, rng: random.Random) -> None:
        for header in (message.header, message.trajectory.header):
            shift(header.stamp, round(offset_s * 1e9))
    return change


def _uneven_times(message: ActionChunk, rng: random.Random) -> None:
    message.trajectory.points[-1].time_from_start.sec += 5


def _all_at_once(message: ActionChunk, rng: random.Random) -> None:
    for point in message.trajectory.points:
        point.time_from_start.sec = point.time_from_start.nanosec = 0


def _very_long(message: ActionChunk, rng: random.Random) -> None:
    last = message.trajectory.points[-1]
    step_ns = message.trajectory.points[0].time_from_start.nanosec
    for row in range(len(message.trajectory.points), 2000):
        point = copy.deepcopy(last)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod((row + 1) * step_ns, 1_000_000_000)
        message.trajectory.points.append(point)
        message.gripper.append(1.0)


def _chunks() -> Iterator[FaultKind]:
    tables: dict[str, Any] = {
        "one NaN": _one_value(math.nan), "one infinite": _one_value(math.inf),
        "1000 x the amplitude": lambda table, rng: table * 1000.0, "1e300": _one_value(1e300),
        "one jump of 1 rad": lambda table, rng: table + np.eye(len(table), table.shape[1]),
        "alternating by 0.5 rad": _alternating, "beyond the joint limits": lambda table, rng: table + 2.5,
        "through the table": _through_the_table,
        "far from the arm": lambda table, rng: table + np.array([0.8] + [0.0] * (table.shape[1] - 1)),
    }
    messages: dict[str, Any] = {
        "wrong joint names": _wrong_names, "one name twice": _twice_the_same_name, "too few positions": _short_points,
        "no points": _no_points, "no gripper": _no_gripper, "gripper NaN": _gripper_nan, "5 s old": _stamped(-5.0),
        "10 s ahead": _stamped(10.0), "uneven times": _uneven_times, "all due at once": _all_at_once,
        "2000 points": _very_long,
    }
    for name, change in {**{key: _positions(edit) for key, edit in tables.items()}, **messages}.items():
        yield FaultKind(f"chunks: {name}", "chunks", _bad_chunks(change, alone=True))
        yield FaultKind(f"chunks: {name}, between good ones", "chunks", _bad_chunks(change, alone=False))


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


def _hang(program: str, duration_s: float) -> Inject:
    def inject(rig: Rig, rng: random.Random) -> None:
        rig.kill(program, signal.SIGSTOP)
        try:
            rig.run(duration_s)
        finally:
            rig.kill(program, signal.SIGCONT)
    return inject


def _burn(until_s: float) -> None:
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
                _positions(lambda table, _: table + 0.2)(message, rng)
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


def _camera_returns(rig: Rig, rng: random.Random) -> None:
    """A goal runs while a camera dies; it comes back later."""
    rig.driving = False
    goal = RunPolicy.Goal(instruction="put the red cube into the bin")
    future = rig.goals.send_goal_async(goal)
    with contextlib.suppress(TimeoutError):
        rig.wait(future.done, "the goal's acceptance", 5.0)
    rig.run(1.0)
    with rig.faulty(rig.contract.cameras[0].name, dropped(1.0, rng)):
        rig.run(2.0)
    rig.run(0.5)
    if future.done() and future.result().accepted:
        future.result().cancel_goal_async()
    rig.run(0.3)


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
    yield FaultKind("a camera dies and returns", "graph", _camera_returns, silent=True, cost_s=7)
    yield FaultKind("stop is called", "operator", _service("executor_node/stop"), holds=True)
    yield FaultKind("the emergency stop is pressed", "operator", _emergency_stop, holds=True)
    yield FaultKind("home is called in motion", "operator", _service("executor_node/home"), cost_s=6)
    yield FaultKind("the operator disables", "operator", _disabled, holds=True)
    yield FaultKind("the executor is deactivated", "operator", _deactivated, holds=True)
