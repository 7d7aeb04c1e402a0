"""A controller that scales its speed, as by a pendant's slider: the same motion, passed through ever later.

joint_trajectory_controller with speed scaling advances its trajectory's time by the factor times what passes, and
starts a new trajectory at the present: whatever is sent continues the setpoint when it is as late as the setpoint is.
Nothing else of a motion changes; its velocity is scaled by the factor, its acceleration by the factor squared.
"""

from __future__ import annotations

import numpy as np

from corft_core.execution.command import Command
from corft_core.execution.watchdog import Measured

FULL = 0.999  # a factor above counts as one
MOVING_RAD_S = 1e-3
SLACK_NS = 3_000_000  # by which stamps may be off


def scaled(before: Measured, setpoint: Measured) -> bool:
    """Whether the controller said that it scaled its speed between two setpoints."""
    return min(before.scaling, setpoint.scaling) < FULL


def expected_slip_ns(before: Measured, setpoint: Measured) -> int:
    """By how much the factor makes a motion later between two setpoints."""
    if not scaled(before, setpoint):
        return 0
    return round((1.0 - (before.scaling + setpoint.scaling) / 2) * (setpoint.stamp_ns - before.stamp_ns))


def slip_ns(command: Command, late_ns: int, arrived: bool, before: Measured, setpoint: Measured) -> int:
    """By how much later than thought the controller follows ``command``, if it does, at a ``setpoint``.

    ``late_ns``: how late it was at the setpoint ``before``; it may since have become later by the time between them at
    most, or have begun anew, in time, when it is not known to have ``arrived``.
    """
    if setpoint.stamp_ns >= command.end_ns:
        return 0
    most = setpoint.stamp_ns - before.stamp_ns + SLACK_NS
    least = max(-SLACK_NS if arrived else -late_ns, -late_ns)
    expected = float(expected_slip_ns(before, setpoint))
    return min(_nearest(command, setpoint, guess, least, most)
               for guess in ((expected,) if arrived else (expected, float(-late_ns))))[1]


def _nearest(command: Command, setpoint: Measured, guess: float, least: float, most: float) -> tuple[float, int]:
    """Distance [rad] from the motion, and the slip of the nearest point on it near the slip ``guess`` (Newton)."""
    slip = float(np.clip(guess, least, most))
    for _ in range(3):
        state = command.state(setpoint.stamp_ns - round(slip))
        square = float(state.velocity @ state.velocity)
        if square < MOVING_RAD_S**2:
            break
        ahead_s = float((setpoint.position - state.position) @ state.velocity) / square
        slip = float(np.clip(slip - 1e9 * ahead_s, least, most))
    away = setpoint.position - command.state(setpoint.stamp_ns - round(slip)).position
    return float(np.max(np.abs(away))), round(slip)
