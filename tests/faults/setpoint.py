"""What a controller with joint_trajectory_controller's rules asks of the arm when the commands reach it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.controller import DesiredState, JointTrajectoryController, TrajectoryRejected
from corft_core.contract import Contract
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
SAMPLE_S = 0.002
REST_RAD_S = 0.02
TOLERANCE = 1.02
"""Shares of a limit above this are violations; the rest is rounding of stamps and samples."""
COLLISION_S = 0.02


@dataclass(frozen=True)
class Motion:
    """Samples every ``sample_s`` of the robot's clock: ``times_s`` (N,), the rest (N, J) in rad, rad/s, rad/s²."""

    times_s: Array
    positions: Array
    velocities: Array
    accelerations: Array
    sample_s: float = SAMPLE_S

    def shares(self, contract: Contract) -> dict[str, float]:
        """Largest velocity, acceleration and jerk as a share of the contract's limits."""
        limits = contract.limits
        if len(self.times_s) < 2:
            return {"velocity_share": 0.0, "acceleration_share": 0.0, "jerk_share": 0.0}
        jerk = np.abs(np.diff(self.accelerations, axis=0)) / self.sample_s
        return {name: round(float(np.max(values / np.array(limit))), 4) for name, values, limit in (
            ("velocity_share", np.abs(self.velocities), limits.velocity_rad_s),
            ("acceleration_share", np.abs(self.accelerations), limits.acceleration_rad_s2),
            ("jerk_share", jerk, limits.jerk_rad_s3))}

    def collisions(self, planner: MotionPlanner) -> int:
        """How many samples, one every COLLISION_S, are in collision or outside position limits."""
        low, high = planner.position_limits
        return sum(bool(np.any(q < low - 1e-3) or np.any(q > high + 1e-3) or planner.in_collision(q))
                   for q in self.positions[::max(1, round(COLLISION_S / self.sample_s))])

    def resting(self) -> NDArray[np.bool_]:
        """(N,) whether the setpoint stands."""
        return np.asarray(np.max(np.abs(self.velocities), axis=1) < REST_RAD_S)

    def rest_after(self, time_s: float) -> float | None:
        """Seconds from ``time_s`` until the setpoint stands, None when it never does."""
        later = np.flatnonzero((self.times_s >= time_s) & self.resting())
        return None if not len(later) else float(self.times_s[later[0]] - time_s)

    def standstills(self, shortest_s: float) -> list[tuple[float, float]]:
        """(from, to) of every standstill of at least ``shortest_s``."""
        still = np.concatenate([[False], self.resting(), [False]]) if len(self.times_s) else np.zeros(2, bool)
        edges = np.flatnonzero(np.diff(still.astype(np.int8)))
        spans = [(float(self.times_s[a]), float(self.times_s[b - 1])) for a, b in zip(edges[::2], edges[1::2],
                                                                                      strict=True)]
        return [(begin, end) for begin, end in spans if end - begin >= shortest_s]


class Setpoint:
    """Follows the commands; time is the robot's clock in s."""

    def __init__(self, contract: Contract, sample_s: float = SAMPLE_S) -> None:
        self._sample_s = sample_s
        self._controller = JointTrajectoryController(contract.robot.joints, np.array(contract.robot.home_rad))
        self._until_s: float | None = None
        self._parts: list[Motion] = []
        self._before, self._since_s = copy.copy(self._controller), -math.inf
        self.begun = False
        """Whether it is known where the arm is."""
        self.rejected = 0

    def arm_at(self, position: Array) -> None:
        """Where the arm is: there the controller begins."""
        if not self.begun:
            self._controller.hold(position)
        self.begun = True

    def command(self, path: JointPath, start_s: float | None, now_s: float) -> None:
        """A trajectory arrives."""
        self.begun = True
        self.advance(now_s)
        before = copy.copy(self._controller)
        try:
            self._controller.accept(path, now_s, start_s)
            self._before, self._since_s = before, now_s
        except TrajectoryRejected:
            self.rejected += 1

    def advance(self, now_s: float) -> None:
        """Sample up to ``now_s``."""
        # Rounding alone puts the next sample a little before or after now.
        if self._until_s is None or now_s < self._until_s - 0.5 * self._sample_s:
            self._until_s = now_s
            return
        count = max(0, math.ceil((now_s - self._until_s) / self._sample_s - 1e-6))
        times = self._until_s + self._sample_s * np.arange(count)
        if count:
            state = self._controller.desired(times)
            self._parts.append(Motion(times, state.positions, state.velocities, state.accelerations))
            self._until_s = float(times[-1]) + self._sample_s

    def at(self, time_s: float) -> DesiredState:
        """What the controller asks for, or asked for just before its last command."""
        return (self._controller if time_s >= self._since_s else self._before).desired(time_s)

    def take(self) -> Motion:
        """The samples since the last call."""
        parts, self._parts = self._parts, []
        if not parts:
            nothing = np.empty((0, len(self._controller.joints)))
            return Motion(np.empty(0), nothing, nothing, nothing, self._sample_s)
        return Motion(*(np.concatenate([getattr(part, name) for part in parts])
                        for name in ("times_s", "positions", "velocities", "accelerations")), self._sample_s)
