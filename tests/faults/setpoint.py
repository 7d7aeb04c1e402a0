"""What the controller asks of the arm, reconstructed from the commands with joint_trajectory_controller's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.controller import JointTrajectoryController, TrajectoryRejected
from corft_core.contract import Contract
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
SAMPLE_S = 0.002
REST_RAD_S = 0.02
TOLERANCE = 1.02
"""Shares of a limit above this are violations; the rest is rounding of stamps and samples."""
COLLISION_S = 0.02
APART_RAD, APART_RAD_S = 2e-5, 2e-3
"""Farther than this from the setpoint that the controller published a reconstruction is wrong: a command reached the
controller later than it passed here, or never."""


@dataclass(frozen=True)
class Motion:
    """Samples every ``sample_s`` of the robot's clock: ``times_s`` (N,), the rest (N, J) in rad, rad/s, rad/s².
    ``published_s``: how much of it the controller itself gave."""

    times_s: Array
    positions: Array
    velocities: Array
    accelerations: Array
    sample_s: float = SAMPLE_S
    published_s: float = 0.0

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

    def replaced(self, published: Motion) -> Motion:
        """Where this is apart from what the controller itself ``published``, that counts: from the last time they agree
        to the next, with quintic polynomials between; nothing where that is not known."""
        inside = np.isin(np.round(published.times_s, 4), np.round(self.times_s, 4))
        times = published.times_s[inside]
        if len(times) < 2:
            return self
        where = np.searchsorted(self.times_s, times - 0.5 * self.sample_s)
        given = [values[inside] for values in (published.positions, published.velocities, published.accelerations)]
        apart = np.any((np.abs(self.positions[where] - given[0]) > APART_RAD)
                       | (np.abs(self.velocities[where] - given[1]) > APART_RAD_S), axis=1)
        path = JointPath(("",) * given[0].shape[1], times - times[0], *given)
        between = np.clip(np.searchsorted(times, self.times_s + 0.5 * self.sample_s) - 1, 0, len(times) - 2)
        before = self.times_s < times[0] - 0.5 * self.sample_s
        after = self.times_s > times[-1] + 0.5 * self.sample_s
        theirs = (apart[:-1] | apart[1:])[between] & ~before & ~after
        merged = []
        for mine, other in zip((self.positions, self.velocities, self.accelerations),
                               path.sample(np.clip(self.times_s - times[0], 0.0, path.duration_s)), strict=True):
            merged.append(np.where(theirs[:, None], other, mine))
        known = ~(before & apart[0]) & ~(after & apart[-1])
        return Motion(self.times_s[known], *(values[known] for values in merged), self.sample_s,
                      float(np.sum(theirs)) * self.sample_s)

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
        self._published: list[tuple[float, Array, Array, Array]] = []
        self._begun = False
        self.rejected = 0

    def arm_at(self, position: Array) -> None:
        """Where the arm is: there the controller begins."""
        if not self._begun:
            self._controller.hold(position)
        self._begun = True

    def published(self, time_s: float, positions: Array, velocities: Array, accelerations: Array) -> None:
        """The setpoint (J,) that the controller itself gave for ``time_s``."""
        if not self._published or time_s > self._published[-1][0]:
            self._published.append((time_s, positions, velocities, accelerations))

    def command(self, path: JointPath, start_s: float | None, now_s: float) -> None:
        """A trajectory arrives."""
        self._begun = True
        self.advance(now_s)
        try:
            self._controller.accept(path, now_s, start_s)
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

    def take(self) -> Motion:
        """The samples since the last call; see :meth:`Motion.replaced`."""
        parts, self._parts = self._parts, []
        published, self._published = self._published, []
        if not parts:
            nothing = np.empty((0, len(self._controller.joints)))
            return Motion(np.empty(0), nothing, nothing, nothing, self._sample_s)
        motion = Motion(*(np.concatenate([getattr(part, name) for part in parts])
                          for name in ("times_s", "positions", "velocities", "accelerations")), self._sample_s)
        return motion.replaced(Motion(*map(np.array, zip(*published, strict=True)))) if published else motion
