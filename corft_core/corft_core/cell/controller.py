"""A joint trajectory controller with the semantics of ros2_controllers' joint_trajectory_controller, in Python.

A trajectory that is accepted replaces the running one at once, also when it starts in the future; it is joined to
the *desired* state of that moment (``interpolate_from_desired_state: true``). Between points the path is linear,
cubic or quintic by what the points carry; after the last point the arm holds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]


class TrajectoryRejected(CorftError):
    """A trajectory that the controller refuses; the running one goes on."""


@dataclass(frozen=True)
class DesiredState:
    """Desired ``positions`` [rad], ``velocities`` [rad/s] and ``accelerations`` [rad/s²] of all joints, each (J,), or
    (N, J) at N times."""

    positions: Array
    velocities: Array
    accelerations: Array


class JointTrajectoryController:
    """Follows one trajectory of ``joints`` at a time; time is the caller's clock in seconds."""

    def __init__(self, joints: Sequence[str], positions_rad: Array, *,
                 allow_nonzero_velocity_at_trajectory_end: bool = False) -> None:
        self.joints = tuple(joints)
        self._allow_moving_end = allow_nonzero_velocity_at_trajectory_end
        self._start_s = 0.0
        self._path = self._standstill(np.asarray(positions_rad, dtype=np.float64))

    def hold(self, positions_rad: Array) -> None:
        """Drop the running trajectory and desire ``positions_rad`` (J,) at rest."""
        self._path = self._standstill(np.asarray(positions_rad, dtype=np.float64))

    def accept(self, path: JointPath, now_s: float, start_s: float | None = None) -> None:
        """Replace the running trajectory. ``start_s``: when ``path``'s time 0 is, None for now.

        Joints may come in any order. Raises TrajectoryRejected, and changes nothing, when a joint is missing or
        unknown, no point lies after the start, the trajectory ends before now, or it ends in motion.
        """
        order = self._order(path.names)
        start = now_s if start_s is None else start_s
        if path.times_s[0] <= 0:
            raise TrajectoryRejected(f"the first point is at time {path.times_s[0]} s; it must lie after the start, "
                                     "for the controller moves to it from its desired state")
        if start + path.duration_s < now_s:
            raise TrajectoryRejected(f"the trajectory ended {now_s - start - path.duration_s:.3f} s ago; check its "
                                     "header stamp and use_sim_time")
        if not self._allow_moving_end and path.velocities is not None and np.any(np.abs(path.velocities[-1]) > 1e-6):
            raise TrajectoryRejected("the last point's velocity is not zero; end at rest or set "
                                     "allow_nonzero_velocity_at_trajectory_end")
        current = self.desired(now_s)
        times = path.times_s + (start - now_s)
        columns = [None if values is None else values[:, order]
                   for values in (path.positions, path.velocities, path.accelerations)]
        if times[0] > 0:
            before = (current.positions, current.velocities, current.accelerations)
            times = np.concatenate([[0.0], times])
            columns = [None if values is None else np.vstack([first, values])
                       for first, values in zip(before, columns, strict=True)]
        positions, velocities, accelerations = columns
        assert positions is not None
        self._path = JointPath(self.joints, times, positions, velocities, accelerations)
        self._start_s = now_s

    def desired(self, time_s: float | Array) -> DesiredState:
        """Desired state at ``time_s``, not before the last :meth:`accept`; at rest after the end.

        For times (N,) the state's arrays are (N, J).
        """
        elapsed = np.asarray(time_s) - self._start_s
        positions, velocities, accelerations = self._path.sample(elapsed)
        ended = elapsed >= self._path.duration_s
        if np.any(ended):
            velocities[ended], accelerations[ended] = 0.0, 0.0
        return DesiredState(positions, velocities, accelerations)

    def done(self, time_s: float) -> bool:
        """Whether the trajectory has ended."""
        return time_s - self._start_s >= self._path.duration_s

    def _order(self, names: Sequence[str]) -> list[int]:
        unknown = [name for name in names if name not in self.joints]
        missing = [name for name in self.joints if name not in names]
        if unknown or missing or len(names) != len(self.joints):
            parts = [f"unknown joints {unknown}"] * bool(unknown) + [f"missing joints {missing}"] * bool(missing)
            raise TrajectoryRejected(f"{' and '.join(parts) or 'a joint is named twice'}; the controller moves "
                                     f"exactly {list(self.joints)}, in any order")
        return [list(names).index(name) for name in self.joints]

    def _standstill(self, positions: Array) -> JointPath:
        return JointPath(self.joints, np.zeros(1), positions[None])
