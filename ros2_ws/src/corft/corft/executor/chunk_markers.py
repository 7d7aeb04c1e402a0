"""A chunk for RViz: the tool's path, coloured by the critic's value, and in red what is not executed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from corft_core.contract import Contract
from corft_core.execution import Chunk, Command, Refusal
from corft_core.planning import MotionPlanner

Array = NDArray[np.float64]
WIDTH_M = 0.006
KEEP_S = 5.0
POINTS = 40
GREY, RED = (0.6, 0.6, 0.6), (0.9, 0.1, 0.1)
LOW, MIDDLE, HIGH = (0.27, 0.0, 0.33), (0.13, 0.57, 0.55), (0.99, 0.91, 0.14)


class ValueColour:
    """Colour of a critic value between the lowest and the highest seen: violet, green, yellow; grey without value."""

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf

    def __call__(self, value: float) -> tuple[float, float, float]:
        if not math.isfinite(value):
            return GREY
        self._low, self._high = min(self._low, value), max(self._high, value)
        part = (value - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        below, above, rest = (LOW, MIDDLE, 2 * part) if part < 0.5 else (MIDDLE, HIGH, 2 * part - 1)
        return tuple(a + rest * (b - a) for a, b in zip(below, above, strict=True))  # type: ignore[return-value]


def tool_path(planner: MotionPlanner, chunk: Chunk, outcome: Command | Refusal, contract: Contract
              ) -> tuple[Array, Array]:
    """Tool positions in the base frame: (N, 3) of the motion that follows ``chunk``, (M, 3) of what it leaves out."""
    wanted = np.zeros((0, 3))
    if chunk.tool_poses is not None:
        wanted = chunk.tool_poses[:, :3, 3]
    elif set(chunk.names) == set(contract.robot.joints) and np.all(np.isfinite(chunk.positions)):
        order = [chunk.names.index(name) for name in contract.robot.joints]
        wanted = planner.poses(chunk.positions[:, order])[:, :3, 3]
    if isinstance(outcome, Refusal):
        return np.zeros((0, 3)), wanted
    times_s = np.linspace(0.0, outcome.path.duration_s, POINTS)
    executed = planner.poses(outcome.path.sample(times_s)[0])[:, :3, 3]
    cut = wanted[outcome.delay_steps + outcome.used:]
    return executed, np.concatenate([executed[-1:], cut]) if len(cut) else cut


def chunk_markers(frame: str, stamp: Time, executed_m: Array, cut_m: Array,
                  colour: Sequence[float]) -> MarkerArray:
    """Two line strips in ``frame``: tool positions (N, 3) that are executed, and (M, 3) that are not (M = 0: none)."""
    return MarkerArray(markers=[_strip(frame, stamp, 0, "chunk", executed_m, colour),
                                _strip(frame, stamp, 0, "not executed", cut_m, RED)])


def _strip(frame: str, stamp: Time, number: int, namespace: str, points_m: Array, colour: Sequence[float]) -> Marker:
    marker: Any = Marker(ns=namespace, id=number, type=Marker.LINE_STRIP)
    marker.header.frame_id, marker.header.stamp = frame, stamp
    marker.action = Marker.ADD if len(points_m) > 1 else Marker.DELETE
    marker.pose.orientation.w = 1.0
    marker.scale.x = WIDTH_M
    marker.lifetime.sec = int(KEEP_S)
    marker.color = ColorRGBA(r=float(colour[0]), g=float(colour[1]), b=float(colour[2]), a=1.0)
    marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in points_m]
    return marker
