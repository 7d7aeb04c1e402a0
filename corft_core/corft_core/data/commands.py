"""The command in force at a time: what the arm's controller and the gripper were asked for."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.trajectory import JointPath

Vector = NDArray[np.float64]

MOVING = {"joint": 0.005, "tool_pose": 0.002}
"""Largest change of a resting command: rad of a joint; m of the tool, or change of a rotation matrix's entry."""
MOVING_SPEED = 0.005
"""Largest speed of a resting tool [m/s, rad/s]."""
MOVING_OPENING = 0.02


@dataclass(order=True)
class _Running:
    """A trajectory in force from ``since_ns``; ``path`` is what is followed from then on."""

    since_ns: int
    path: JointPath = field(compare=False)
    command: tuple[JointPath, int | None] = field(compare=False)  # as pushed

    def sample(self, tick_ns: int) -> tuple[Vector, Vector, Vector]:
        return self.path.sample((tick_ns - self.since_ns) * 1e-9)


_since = attrgetter("since_ns")


class ArmCommands:
    """Trajectories by the time they took over, with joint_trajectory_controller's semantics.

    Each replaces the one before at once and is joined to the desired state of that moment, so the setpoint never
    jumps; after its last point the setpoint holds.
    """

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._running: list[_Running] = []

    def push(self, since_ns: int, path: JointPath, measured: Vector | None, start_ns: int | None = None) -> None:
        """Add a trajectory received at ``since_ns`` whose time 0 is ``start_ns`` (None: reception).

        ``measured`` (J,) is where the arm was, used when no command ran before. Raises ValueError when the
        trajectory ended before it was received.
        """
        if self._running and since_ns < self._running[-1].since_ns - self._history_ns:
            self._running.clear()
        before = self._at(since_ns)
        if before is not None:
            desired = before.sample(since_ns)
        elif measured is not None:
            desired = (measured, np.zeros_like(measured), np.zeros_like(measured))
        else:
            desired = None
        joined = _joined(path, desired, ((start_ns or since_ns) - since_ns) * 1e-9)
        insort(self._running, _Running(since_ns, joined, (path, start_ns)))
        # Keep everything in force during the history: one trajectory that began before it, and the later ones.
        keep = bisect_right(self._running, self._running[-1].since_ns - self._history_ns, key=_since) - 1
        del self._running[: max(0, keep)]

    def setpoint(self, tick_ns: int) -> Vector | None:
        """Desired positions (J,) [rad] at ``tick_ns``, or None before the first command."""
        running = self._at(tick_ns)
        return None if running is None else running.path.positions_at((tick_ns - running.since_ns) * 1e-9)

    def clear(self, before_ns: int | None = None, measured: Vector | None = None) -> None:
        """Forget all trajectories, or those before ``before_ns``; the next one then starts at ``measured``."""
        kept = [r for r in self._running if before_ns is not None and r.since_ns >= before_ns]
        self._running.clear()
        for running in kept:
            path, start_ns = running.command
            self.push(running.since_ns, path, measured, start_ns)

    def _at(self, tick_ns: int) -> _Running | None:
        index = bisect_right(self._running, tick_ns, key=_since) - 1
        return None if index < 0 else self._running[index]


def _joined(path: JointPath, desired: tuple[Vector, Vector, Vector] | None, shift_s: float) -> JointPath:
    """``path`` shifted by ``shift_s``, its past points dropped, preceded by the ``desired`` state at time 0."""
    times = path.times_s + shift_s
    future = times > 0 if desired is not None else times >= 0
    if not future.any():
        if shift_s:
            raise ValueError(f"the trajectory ended {-times[-1]:.3f} s before it was received")
        return path  # one point at time 0: a step command
    columns = (path.positions, path.velocities, path.accelerations)
    kept = [None if values is None else values[future] for values in columns]
    times = times[future]
    if desired is not None:
        kept = [None if values is None else np.vstack([first, values])
                for first, values in zip(desired, kept, strict=True)]
        times = np.concatenate([[0.0], times])
    positions, velocities, accelerations = kept
    assert positions is not None
    return JointPath(path.names, times, positions, velocities, accelerations)


class HeldCommands:
    """Commands by time, each of which holds until the next: openings, joint positions, tool poses, tool twists."""

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._samples: list[tuple[int, Any]] = []

    def push(self, stamp_ns: int, value: Any) -> None:
        """Add a command."""
        if self._samples and stamp_ns < self._samples[-1][0] - self._history_ns:
            self._samples.clear()
        insort(self._samples, (stamp_ns, value), key=lambda sample: sample[0])
        keep = bisect_right(self._samples, self._samples[-1][0] - self._history_ns, key=lambda s: s[0]) - 1
        del self._samples[: max(0, keep)]

    def latest(self, tick_ns: int) -> tuple[int, Any] | None:
        """(stamp_ns, command) of the last one given at or before ``tick_ns``."""
        index = bisect_right(self._samples, tick_ns, key=lambda sample: sample[0]) - 1
        return None if index < 0 else self._samples[index]

    def clear(self, before_ns: int | None = None) -> None:
        """Forget all commands, or those before ``before_ns``."""
        self._samples = [s for s in self._samples if before_ns is not None and s[0] >= before_ns]


def command_moves(contract: Contract, action: Vector, held: Vector | None) -> bool:
    """Whether ``action`` (A,) moves the robot away from ``held`` (A,), the command that it rested at.

    None for ``held``: nothing was commanded before, only a twist can move then. Smaller changes than the thresholds
    are encoder noise and rounding.
    """
    gripper = contract.action_gripper
    arm = np.arange(len(action)) != gripper
    if contract.action_space == "tool_twist":
        if np.max(np.abs(action[arm])) > MOVING_SPEED:
            return True
    elif held is not None and np.max(np.abs(action - held)[arm]) > MOVING[contract.action_space]:
        return True
    return bool(gripper is not None and held is not None and abs(action[gripper] - held[gripper]) > MOVING_OPENING)
