"""The joint-space path that planner, executor and cell pass to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class JointPath:
    """Waypoints of named joints over time, as in trajectory_msgs/JointTrajectory.

    ``times_s`` (N,) strictly increasing, from the path's start; ``positions`` (N, J) in rad;
    ``velocities`` (N, J) in rad/s and ``accelerations`` (N, J) in rad/s² are optional.
    Raises ValueError on shapes that do not fit or values that are not finite.
    """

    names: tuple[str, ...]
    times_s: Array
    positions: Array
    velocities: Array | None = None
    accelerations: Array | None = None

    def __post_init__(self) -> None:
        times = np.asarray(self.times_s, dtype=np.float64)
        object.__setattr__(self, "times_s", times)
        if times.ndim != 1 or len(times) == 0:
            raise ValueError(f"times_s must be (N,) with N >= 1, got shape {times.shape}")
        if not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
            raise ValueError("times_s must be finite and strictly increasing")
        for field in ("positions", "velocities", "accelerations"):
            value = getattr(self, field)
            if value is None:
                continue
            value = np.asarray(value, dtype=np.float64)
            object.__setattr__(self, field, value)
            if value.shape != (len(times), len(self.names)):
                raise ValueError(f"{field} must have shape {(len(times), len(self.names))}, got {value.shape}")
            if not np.all(np.isfinite(value)):
                raise ValueError(f"{field} must be finite")
        if self.accelerations is not None and self.velocities is None:
            raise ValueError("accelerations need velocities")

    @property
    def duration_s(self) -> float:
        """Time of the last waypoint."""
        return float(self.times_s[-1])

    def sample(self, time_s: float | Array) -> tuple[Array, Array, Array]:
        """Position, velocity and acceleration, each (J,), at ``time_s``, or (N, J) at times (N,); held beyond the ends.

        Linear, cubic or quintic Hermite between waypoints, by what the path carries, as
        joint_trajectory_controller interpolates.
        """
        times = np.atleast_1d(np.asarray(time_s, dtype=np.float64))
        result = np.zeros((3, len(times), len(self.names)))
        before, after = times <= self.times_s[0], times >= self.times_s[-1]
        result[:, after] = self._boundary(-1)
        result[:, before] = self._boundary(0)
        segments = np.searchsorted(self.times_s, times, side="right") - 1
        segments[before | after] = -1
        for k in {*segments.tolist()} - {-1}:
            chosen = segments == k
            result[:, chosen] = self._segment(k, (times[chosen] - self.times_s[k])[:, None])
        position, velocity, acceleration = result if np.ndim(time_s) else result[:, 0]
        return position, velocity, acceleration

    def _segment(self, k: int, t: Array) -> Array:
        """Position, velocity and acceleration (3, N, J) at times ``t`` (N, 1) after waypoint ``k``."""
        span = self.times_s[k + 1] - self.times_s[k]
        p0, p1 = self.positions[k], self.positions[k + 1]
        if self.velocities is None:
            slope = (p1 - p0) / span
            return np.stack([p0 + slope * t, slope + 0 * t, np.zeros((len(t), len(p0)))])
        v0, v1 = self.velocities[k], self.velocities[k + 1]
        if self.accelerations is None:
            c2 = (3 * (p1 - p0) / span - 2 * v0 - v1) / span
            c3 = (v0 + v1 - 2 * (p1 - p0) / span) / span**2
            return np.stack([p0 + t * (v0 + t * (c2 + t * c3)), v0 + t * (2 * c2 + 3 * t * c3), 2 * c2 + 6 * t * c3])
        a0, a1 = self.accelerations[k], self.accelerations[k + 1]
        d = p1 - p0
        c3 = (20 * d - (8 * v1 + 12 * v0) * span - (3 * a0 - a1) * span**2) / (2 * span**3)
        c4 = (-30 * d + (14 * v1 + 16 * v0) * span + (3 * a0 - 2 * a1) * span**2) / (2 * span**4)
        c5 = (12 * d - 6 * (v1 + v0) * span + (a1 - a0) * span**2) / (2 * span**5)
        return np.stack([p0 + t * (v0 + t * (a0 / 2 + t * (c3 + t * (c4 + t * c5)))),
                         v0 + t * (a0 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5))),
                         a0 + t * (6 * c3 + t * (12 * c4 + t * 20 * c5))])

    def _boundary(self, index: int) -> Array:
        """Position, velocity and acceleration (3, 1, J) at an end of the path."""
        zeros = np.zeros(len(self.names))
        velocity = zeros if self.velocities is None else self.velocities[index]
        acceleration = zeros if self.accelerations is None else self.accelerations[index]
        return np.stack([self.positions[index], velocity, acceleration])[:, None]
