"""The joint-space path that planner, executor and cell pass to each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
        if not np.isfinite(times).all() or (times[1:] <= times[:-1]).any():
            raise ValueError("times_s must be finite and strictly increasing")
        for field in ("positions", "velocities", "accelerations"):
            value = getattr(self, field)
            if value is None:
                continue
            value = np.asarray(value, dtype=np.float64)
            object.__setattr__(self, field, value)
            if value.shape != (len(times), len(self.names)):
                raise ValueError(f"{field} must have shape {(len(times), len(self.names))}, got {value.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{field} must be finite")
        if self.accelerations is not None and self.velocities is None:
            raise ValueError("accelerations need velocities")

    @property
    def duration_s(self) -> float:
        """Time of the last waypoint."""
        return float(self.times_s[-1])

    @cached_property
    def coefficients(self) -> Array:
        """(6, N-1, J): the polynomial of each segment in the time since its start, constant term first.

        Linear, cubic or quintic Hermite by what the path carries, as joint_trajectory_controller interpolates.
        """
        span = (self.times_s[1:] - self.times_s[:-1])[:, None]
        p0, d = self.positions[:-1], self.positions[1:] - self.positions[:-1]
        result = np.zeros((6, *d.shape))
        result[0] = p0
        if self.velocities is None:
            result[1] = d / span
            return result
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        result[1] = v0
        if self.accelerations is None:
            result[2] = (3 * d / span - 2 * v0 - v1) / span
            result[3] = (v0 + v1 - 2 * d / span) / span**2
            return result
        a0, a1 = self.accelerations[:-1], self.accelerations[1:]
        result[2] = a0 / 2
        result[3] = (20 * d - (8 * v1 + 12 * v0) * span - (3 * a0 - a1) * span**2) / (2 * span**3)
        result[4] = (-30 * d + (14 * v1 + 16 * v0) * span + (3 * a0 - 2 * a1) * span**2) / (2 * span**4)
        result[5] = (12 * d - 6 * (v1 + v0) * span + (a1 - a0) * span**2) / (2 * span**5)
        return result

    def sample(self, time_s: float | Array) -> tuple[Array, Array, Array]:
        """Position, velocity and acceleration, each (J,), at ``time_s``, or (N, J) at times (N,); held beyond the ends.

        Between waypoints as :attr:`coefficients` says.
        """
        position, velocity, acceleration = self._sampled(time_s, 3)
        return position, velocity, acceleration

    def positions_at(self, time_s: float | Array) -> Array:
        """Only the position of :meth:`sample`."""
        return self._sampled(time_s, 1)[0]

    def _sampled(self, time_s: float | Array, orders: int) -> Array:
        if isinstance(time_s, float):
            return self._sampled_once(time_s, orders)
        times = np.atleast_1d(np.asarray(time_s, dtype=np.float64))
        result = np.empty((orders, len(times), len(self.names)))
        before, after = times <= self.times_s[0], times >= self.times_s[-1]
        inside = ~(before | after)
        if np.any(inside):
            k = np.searchsorted(self.times_s, times[inside], side="right") - 1
            t = (times[inside] - self.times_s[k])[:, None]
            result[:, inside] = evaluate(self.coefficients[:, k], t, orders)
        result[:, after] = self._boundary(-1)[:orders]
        result[:, before] = self._boundary(0)[:orders]
        return result if np.ndim(time_s) else result[:, 0]

    def _sampled_once(self, time_s: float, orders: int) -> Array:
        """The same for one time (orders, J), which commands are asked for hundreds of times a second."""
        if time_s <= self.times_s[0]:
            return self._boundary(0)[:orders, 0]
        if time_s >= self.times_s[-1]:
            return self._boundary(-1)[:orders, 0]
        k = int(self.times_s.searchsorted(time_s, side="right")) - 1
        return evaluate(self.coefficients[:, k], time_s - self.times_s[k], orders)

    def _boundary(self, index: int) -> Array:
        """Position, velocity and acceleration (3, 1, J) at an end of the path."""
        zeros = np.zeros(len(self.names))
        velocity = zeros if self.velocities is None else self.velocities[index]
        acceleration = zeros if self.accelerations is None else self.accelerations[index]
        return np.stack([self.positions[index], velocity, acceleration])[:, None]


def evaluate(coefficients: Array, t: Array, orders: int = 4) -> Array:
    """(orders, …): position, velocity, acceleration and jerk at ``t`` of polynomials (6, …), shapes broadcast."""
    c0, c1, c2, c3, c4, c5 = coefficients
    result = [c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))))]
    if orders == 1:
        return np.asarray(result[0])[None]
    if orders > 1:
        result.append(c1 + t * (2 * c2 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5))))
    if orders > 2:
        result.append(2 * c2 + t * (6 * c3 + t * (12 * c4 + t * 20 * c5)))
    if orders > 3:
        result.append(6 * c3 + t * (24 * c4 + t * 60 * c5))
    return np.stack(result)
