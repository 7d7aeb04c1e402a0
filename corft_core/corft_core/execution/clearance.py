"""Whether a path stays clear of obstacles, the robot itself, and the edge of the workspace (step 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corft_core.contract import Contract
from corft_core.execution.reasons import Reason, Refusal
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath


@dataclass(frozen=True)
class Hit:
    """``path``'s segment from waypoint ``segment`` to the next is not clear."""

    segment: int
    refusal: Refusal


class Clearance:
    """Collision check over chunk and braking tail, and the tool frame's workspace."""

    def __init__(self, contract: Contract, planner: MotionPlanner) -> None:
        self._planner = planner
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
