"""Whether a path stays clear of obstacles, the robot itself, and the edge of the workspace (step 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import Waypoints
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hit:
    """``path``'s segment from waypoint ``segment`` to the next is not clear."""

    segment: int
    refusal: Refusal


class Clearance:
    """Collision check over chunk and braking tail, and the tool frame's workspace."""

    def __init__(self, contract: Contract, planner: MotionPlanner) -> None:
        self._planner = planner
        self._names = contract.robot.joints
        self._tool = contract.robot.tool_frame
        self._low = np.array(contract.workspace.min_m)
        self._high = np.array(contract.workspace.max_m)

    def first_hit(self, path: JointPath) -> Hit | None:
        """The first segment that collides or takes the tool out of the workspace."""
        collision = self._planner.first_collision(path.positions)
        outside = self._leaves_workspace(path)
        if collision is not None and (outside is None or collision <= outside.segment):
            time_s = float(path.times_s[collision])
            return Hit(collision, Refusal(Reason.COLLISION, f"{self._pair(path, collision)} {time_s:.2f} s from now"))
        return outside

    def held(self, start: Array, waypoints: Waypoints, press_rad: float, back: int, reason: Refusal) -> Waypoints:
        """The waypoints without what is not clear, in straight lines from ``start`` (J,).

        An action within ``press_rad`` of the last clear one is replaced by that one: the arm waits at the obstacle
        while the gripper goes on, as when a grasp is aimed a little into the table. An action farther in ends the
        chunk. The arm then stops ``back`` actions earlier. Raises RefusedError with ``reason`` when nothing is left.
        """
        positions: list[Array] = []
        first_held: int | None = None
        last = start
        for position in waypoints.positions:
            line = JointPath(self._names, np.array([0.0, 1.0]), np.stack([last, position]))
            if self.first_hit(line) is None:
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
        kept = waypoints.first(count)
        return replace(kept, positions=np.stack(positions[:count]))

    def _leaves_workspace(self, path: JointPath) -> Hit | None:
        """A waypoint outside, and farther outside than the start: an arm that stands outside may come back in."""
        tools = np.stack([self._planner.forward_kinematics(q)[:3, 3] for q in path.positions])
        excess = np.maximum(self._low - tools, tools - self._high)
        worse = np.argwhere(excess > np.maximum(excess[0], 0.0) + 1e-3)
        if len(worse) == 0:
            return None
        row, axis = worse[0]
        message = (f"{self._tool} would be at {'xyz'[axis]} = {tools[row, axis]:.3f} m, the workspace is "
                   f"{self._low[axis]:.3f} to {self._high[axis]:.3f} m")
        return Hit(max(int(row) - 1, 0), Refusal(Reason.WORKSPACE, message))

    def _pair(self, path: JointPath, segment: int) -> str:
        begin = path.positions[segment]
        end = path.positions[min(segment + 1, len(path.positions) - 1)]
        for part in np.linspace(0.0, 1.0, 9):
            pairs = self._planner.in_collision(begin + part * (end - begin))
            if pairs:
                return " and ".join(pairs[0]) + " would touch"
        return "the arm would touch something"
