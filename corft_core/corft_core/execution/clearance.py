"""Whether a path stays clear of obstacles, the robot itself, and the edge of the workspace (step 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import Waypoints
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
# A quintic that accelerates at 10 rad/s² leaves the straight line between points so far apart by 0.001 rad.
CURVE_STEP_S = 0.03
STEP_RAD = 0.005  # between two looks: less than 5 mm at the end of an arm


class Clearance:
    """Collision check over chunk and braking tail, and the tool frame's workspace."""

    def __init__(self, contract: Contract, planner: MotionPlanner) -> None:
        self._planner = planner
        self._tool = contract.robot.tool_frame
        self._low = np.array(contract.workspace.min_m)
        self._high = np.array(contract.workspace.max_m)

    def first_hit(self, path: JointPath) -> Refusal | None:
        """Where the path, as a controller interpolates it, first collides or takes the tool out of the workspace."""
        hit = self.collision(path)
        outside = self._leaves_workspace(path.positions)
        if hit is not None and (outside is None or hit[0] <= path.times_s[outside[0]]):
            return Refusal(Reason.COLLISION, f"{hit[1]} {hit[0]:.2f} s from now")
        return None if outside is None else outside[1]

    def collision(self, path: JointPath, from_s: float = 0.0) -> tuple[float, str] | None:
        """When [s] the path first collides from ``from_s`` on, and what would touch; looks at the same straight lines
        whatever ``from_s``."""
        times = curve_times(path)
        times = times[max(int(np.searchsorted(times, from_s, side="right")) - 1, 0):]
        curve = path.positions_at(times)
        segment = self._planner.first_collision(curve, STEP_RAD)
        return None if segment is None else (float(times[segment]), self._pair(curve, segment))

    def leaves_workspace(self, path: JointPath, to_its_end: bool) -> Refusal | None:
        """Where a path takes the tool out of the workspace; ``to_its_end``: its end may lie outside."""
        outside = self._leaves_workspace(path.positions_at(curve_times(path)), to_its_end)
        return None if outside is None else outside[1]

    def free(self, position: Array) -> bool:
        """Whether the arm may stand at ``position`` (J,)."""
        return not self._planner.in_collision(position) and self._leaves_workspace(position[None]) is None

    def clear_count(self, start: Array, positions: Array) -> tuple[int, NDArray[np.bool_]]:
        """How many leading actions (M, J) straight lines from ``start`` reach, and which of the M can be reached from
        the last clear one before them, (M,) bool."""
        clear = np.zeros(len(positions), dtype=bool)
        last = start
        for row, position in enumerate(positions):
            line = np.stack([last, position])
            clear[row] = self._planner.first_collision(line) is None and self._leaves_workspace(line) is None
            if clear[row]:
                last = position
        return int(np.argmin(clear)) if not np.all(clear) else len(clear), clear

    def _leaves_workspace(self, curve: Array, to_its_end: bool = False) -> tuple[int, Refusal] | None:
        """A row outside, and farther outside than the first: an arm that stands outside may come back in.
        ``to_its_end``: nor farther than the last."""
        tools = self._planner.poses(curve)[:, :3, 3]
        excess = np.maximum(self._low - tools, tools - self._high)
        most = np.maximum(excess[[0, -1]] if to_its_end else excess[[0]], 0.0).max(axis=0)
        worse = np.argwhere(excess > (most + 1e-3 if len(curve) > 1 else 0.0))
        if len(worse) == 0:
            return None
        row, axis = worse[0]
        message = (f"{self._tool} would be at {'xyz'[axis]} = {tools[row, axis]:.3f} m, the workspace is "
                   f"{self._low[axis]:.3f} to {self._high[axis]:.3f} m")
        return max(int(row) - 1, 0), Refusal(Reason.WORKSPACE, message)

    def _pair(self, curve: Array, segment: int) -> str:
        begin, end = curve[segment], curve[min(segment + 1, len(curve) - 1)]
        for part in np.linspace(0.0, 1.0, 9):
            pairs = self._planner.in_collision(begin + part * (end - begin))
            if pairs:
                return " and ".join(pairs[0]) + " would touch"
        return "the arm would touch something"


def curve_times(path: JointPath, step_s: float = CURVE_STEP_S) -> Array:
    """The path's times, with more in between so that they are at most ``step_s`` apart."""
    spans = np.diff(path.times_s)
    parts = np.maximum(np.ceil(spans / step_s - 1e-9), 1).astype(int)
    within = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    inner = np.repeat(path.times_s[:-1], parts) + within * np.repeat(spans / parts, parts)
    return np.append(inner, path.times_s[-1])


def held(start: Array, waypoints: Waypoints, clear: NDArray[np.bool_], press_rad: float, back: int,
         reason: Refusal) -> Waypoints:
    """The waypoints without what is not ``clear`` (M,).

    An action within ``press_rad`` of the last clear one is replaced by that one: the arm waits at the obstacle while
    the gripper goes on, as when a grasp is aimed a little into the table. An action farther in ends the chunk. The arm
    then stops ``back`` actions earlier. Raises RefusedError with ``reason`` when nothing is left.
    """
    positions: list[Array] = []
    first_held: int | None = None
    last = start
    for position, is_clear in zip(waypoints.positions, clear, strict=True):
        if is_clear:
            last = position
        elif np.max(np.abs(position - last)) > press_rad:
            break
        elif first_held is None:
            first_held = len(positions)
        positions.append(last)
    count = len(positions)
    if first_held is None:
        count -= back
    else:
        wait = positions[first_held]
        stop = max(first_held - back, 0)
        rest = start if stop == 0 else positions[stop - 1]
        for i in range(stop, count):
            if i > first_held and positions[i] is not wait:
                break
            positions[i] = rest
    if count < 1:
        raise RefusedError(reason.reason, reason.message)
    return waypoints.first(count).at(np.stack(positions[:count]))
