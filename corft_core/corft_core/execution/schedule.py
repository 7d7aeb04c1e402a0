"""When each action of a chunk is to be reached (step 1), and which gripper command is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.chunk import Chunk
from corft_core.execution.limits import MotionLimits
from corft_core.execution.reasons import Reason, RefusedError
from corft_core.execution.spline import State

Array = NDArray[np.float64]
# Part of the velocity limit that straight lines between actions may use; the spline needs the rest to round corners.
CRUISE = 0.9
IN_STEP = 0.1  # of a step: how exactly an arm that lags is found on its chunk


@dataclass(frozen=True)
class Waypoints:
    """M actions still to come. ``due_s`` (M,) from the hand-off, ``positions`` (M, J), ``gripper`` (M,) or None."""

    due_s: Array
    positions: Array
    gripper: Array | None
    dropped: int = 0
    stretch: float = 1.0

    def first(self, count: int) -> Waypoints:
        """Only the first ``count`` actions."""
        return replace(self, due_s=self.due_s[:count], positions=self.positions[:count],
                       gripper=None if self.gripper is None else self.gripper[:count])

    def at(self, positions: Array) -> Waypoints:
        """The same times with other positions."""
        return replace(self, positions=positions)

    def later(self, factor: float, first: int | None = None) -> Waypoints:
        """The same positions, with the time to each of the ``first`` ones (None: all) times ``factor``."""
        intervals = np.diff(self.due_s, prepend=0.0)
        intervals[:first] *= factor
        due_s = np.cumsum(intervals)
        return replace(self, due_s=due_s, stretch=self.stretch * float(due_s[-1] / self.due_s[-1]))


def first_left(chunk: Chunk, handoff_ns: int) -> int:
    """Number of actions due less than half a step after ``handoff_ns``: they are over."""
    return int(np.sum((chunk.due_ns - handoff_ns) * 1e-9 < 0.5 * chunk.dt_s))


def in_step(chunk: Chunk, before: Array, start: Array, handoff_ns: int, lag_rad: float) -> Chunk:
    """The chunk later, as far as the arm lags behind it at the hand-off, so that it goes on from where it is.

    An arm that stood, or moved slower than the chunk takes for granted, would else leave out what it has not done yet
    and hurry after. ``before`` (J,): commanded at the observation, ``start`` (J,): at the hand-off. The way from one to
    the other is compared with the chunk's own ways until then: the last one is taken that is at most ``lag_rad``
    farther off than the best.
    """
    elapsed = (handoff_ns - chunk.stamp_ns) * 1e-9 / chunk.dt_s  # in steps
    if elapsed <= 0 or len(chunk.positions) < 2:
        return chunk
    phases: Array = np.append(np.arange(0.0, elapsed, IN_STEP), elapsed)
    knots = np.vstack([2 * chunk.positions[0] - chunk.positions[1], chunk.positions])
    below = np.minimum(phases.astype(int), len(knots) - 2)
    part = np.minimum(phases - below, 1.0)[:, None]
    ways = knots[below] + part * (knots[below + 1] - knots[below]) - knots[0]
    away = np.abs(ways - (start - before)).max(axis=1)
    phase = phases[np.flatnonzero(away <= away.min() + lag_rad)[-1]]
    return replace(chunk, stamp_ns=chunk.stamp_ns + round((elapsed - phase) * chunk.dt_s * 1e9))


def refuse_too_few(chunk: Chunk, handoff_ns: int, min_actions: int) -> None:
    """Raise RefusedError when fewer than ``min_actions`` are still to come at the hand-off."""
    left = len(chunk.positions) - first_left(chunk, handoff_ns)
    if left < min_actions:
        late_s = (handoff_ns - chunk.stamp_ns) * 1e-9
        raise RefusedError(Reason.TOO_FEW_LEFT, f"{left} of {len(chunk.positions)} actions are still to come "
                                                f"{late_s:.2f} s after the observation, {min_actions} are needed: the "
                                                "policy is too slow for its horizon")


def remaining(chunk: Chunk, handoff_ns: int, min_actions: int, horizon_s: float) -> Waypoints:
    """Actions due half a step or more after ``handoff_ns`` and within ``horizon_s``, ``min_actions`` in any case."""
    due_s = ((chunk.due_ns - handoff_ns) * 1e-9).astype(np.float64)
    dropped = first_left(chunk, handoff_ns)
    keep = slice(dropped, dropped + max(min_actions, int(np.sum(due_s[dropped:] <= horizon_s))))
    return Waypoints(due_s[keep], chunk.positions[keep], None if chunk.gripper is None else chunk.gripper[keep],
                     dropped)


def stretched(waypoints: Waypoints, start: State, limits: MotionLimits, names: Sequence[str], steepest: float,
              max_gap_rad: float) -> Waypoints:
    """The waypoints later, so that straight lines between them keep the velocity limits.

    Every interval is lengthened by what it needs. Raises RefusedError for a jump, which slowing down does not make a
    motion: between two actions more than ``steepest`` times the velocity limit, or from the start to the first action
    (where time was lost already) more than ``max_gap_rad``.
    """
    intervals = np.diff(waypoints.due_s, prepend=0.0)
    steps = np.abs(np.diff(waypoints.positions, axis=0, prepend=start.position[None]))
    joint = int(np.argmax(steps[0]))
    if steps[0, joint] > max_gap_rad:
        raise RefusedError(Reason.STEP_TOO_LARGE,
                           f"action {waypoints.dropped} of {names[joint]} is {steps[0, joint]:.3f} rad from where the "
                           f"joint is commanded to be, at most {max_gap_rad:.3f} rad are bridged")
    needed = steps / (CRUISE * limits.velocity) / intervals[:, None]
    if len(needed) > 1:
        step, joint = divmod(int(np.argmax(needed[1:])), len(names))
        if needed[step + 1, joint] > steepest:
            raise RefusedError(Reason.STEP_TOO_LARGE,
                               f"{names[joint]} would move {steps[step + 1, joint]:.3f} rad in "
                               f"{intervals[step + 1]:.2f} s after action {waypoints.dropped + step}, "
                               f"{needed[step + 1, joint]:.1f} times what its velocity limit "
                               f"{limits.velocity[joint]:.2f} rad/s allows; up to {steepest:.1f} times is slowed down")
    due_s = np.cumsum(intervals * np.maximum(np.max(needed, axis=1), 1.0))
    return replace(waypoints, due_s=due_s, stretch=waypoints.stretch * float(due_s[-1] / waypoints.due_s[-1]))


class GripperSchedule:
    """Gripper openings by the time at which they take force. Openings are never averaged."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, float]] = []

    def replace(self, entries: Sequence[tuple[int, float]], from_ns: int) -> None:
        """Entries ``(due_ns, opening)``; what was scheduled before ``from_ns`` stays."""
        self._entries = [entry for entry in self._entries if entry[0] < from_ns] + sorted(entries)

    def delay(self, by_ns: int) -> None:
        """Everything scheduled comes ``by_ns`` later."""
        self._entries = [(due_ns + by_ns, opening) for due_ns, opening in self._entries]

    def clear(self) -> None:
        """Forget everything scheduled."""
        self._entries = []

    def take_due(self, now_ns: int) -> float | None:
        """The latest opening due by ``now_ns``, once; None when none became due since the last call."""
        due = [opening for due_ns, opening in self._entries if due_ns <= now_ns]
        self._entries = [entry for entry in self._entries if entry[0] > now_ns]
        return due[-1] if due else None
