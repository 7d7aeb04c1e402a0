"""The command in force at a time: what a joint trajectory controller and a gripper were asked for."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from corft_core.trajectory import JointPath

Vector = NDArray[np.float64]


@dataclass(order=True)
class _Running:
    """A trajectory since ``start_ns``; ``origin`` (J,) is the setpoint it replaced, known when it was pushed."""

    start_ns: int
    path: JointPath = field(compare=False)
    origin: Vector | None = field(compare=False)

    def setpoint(self, tick_ns: int) -> Vector:
        time_s = (tick_ns - self.start_ns) * 1e-9
        first_s = float(self.path.times_s[0])
        if self.origin is not None and time_s < first_s:
            # A controller moves from where it is to the first point; it does not jump there.
            return self.origin + (self.path.positions[0] - self.origin) * (max(time_s, 0.0) / first_s)
        return self.path.sample(time_s)[0]


class ArmCommands:
    """Trajectories by start time. Each replaces the one before at its start, as joint_trajectory_controller does."""

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._running: list[_Running] = []

    def push(self, start_ns: int, path: JointPath, measured: Vector | None) -> None:
        """Add a trajectory that starts at ``start_ns``; ``measured`` (J,) is where the arm was, if known."""
        if self._running and start_ns < self._running[-1].start_ns - self._history_ns:
            self._running.clear()
        before = self.setpoint(start_ns)
        insort(self._running, _Running(start_ns, path, measured if before is None else before))
        # Keep everything in force during the history: one trajectory that began before it, and the later ones.
        keep = bisect_right([r.start_ns for r in self._running], self._running[-1].start_ns - self._history_ns) - 1
        del self._running[: max(0, keep)]

    def setpoint(self, tick_ns: int) -> Vector | None:
        """Setpoint (J,) [rad] at ``tick_ns``, or None before the first command."""
        index = bisect_right([r.start_ns for r in self._running], tick_ns) - 1
        return None if index < 0 else self._running[index].setpoint(tick_ns)

    def clear(self) -> None:
        """Forget all trajectories."""
        self._running.clear()


class GripperCommands:
    """Gripper openings by time; a command holds until the next."""

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._samples: list[tuple[int, float]] = []

    def push(self, stamp_ns: int, opening: float) -> None:
        """Add a commanded opening 0…1."""
        if self._samples and stamp_ns < self._samples[-1][0] - self._history_ns:
            self._samples.clear()
        insort(self._samples, (stamp_ns, opening))
        keep = bisect_right(self._samples, (self._samples[-1][0] - self._history_ns, np.inf)) - 1
        del self._samples[: max(0, keep)]

    def latest(self, tick_ns: int) -> float | None:
        """The opening commanded last at or before ``tick_ns``."""
        index = bisect_right(self._samples, (tick_ns, np.inf)) - 1
        return None if index < 0 else self._samples[index][1]

    def clear(self) -> None:
        """Forget all commands."""
        self._samples.clear()
