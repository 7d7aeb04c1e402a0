"""Chunks as no policy should send them, in place of good ones or between them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from corft_msgs.msg import ActionChunk

from faults.channel import changed
from faults.kinds import FaultKind, Inject
from faults.rig import Rig, shift


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


def positions(edit: Callable[[np.ndarray[Any, Any], random.Random], np.ndarray[Any, Any]]) -> \
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


def bad_chunks() -> Iterator[FaultKind]:
    """Every kind of them, alone and between good ones."""
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
    for name, change in {**{key: positions(edit) for key, edit in tables.items()}, **messages}.items():
        yield FaultKind(f"chunks: {name}", "chunks", _bad_chunks(change, alone=True))
        yield FaultKind(f"chunks: {name}, between good ones", "chunks", _bad_chunks(change, alone=False))
