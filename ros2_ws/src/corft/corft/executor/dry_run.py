"""What a motion that is not sent would have done, for a person. No ROS in here."""

from __future__ import annotations

import numpy as np

from corft_core.execution import Command, Measured, MotionLimits
from corft_core.execution.limits import dense


def description(command: Command, measured: Measured | None, limits: MotionLimits) -> str:
    """One line: which joint moves most, how fast as a share of the limits, and how far it starts from the arm."""
    path = command.path
    times_s, (positions, velocities, accelerations, _) = dense(path)
    travel = np.ptp(positions, axis=0)
    most = int(np.argmax(travel))
    speed = float(np.max(np.abs(velocities) / limits.velocity))
    effort = float(np.max(np.abs(accelerations) / limits.acceleration))
    text = (f"dry run, not sent: {command.kind} {command.number}: {path.names[most]} would move most, "
            f"{travel[most]:.3f} rad within {times_s[-1]:.2f} s; at most {100 * speed:.0f} % of the velocity and "
            f"{100 * effort:.0f} % of the acceleration limit")
    if measured is not None:
        gap = np.abs(positions[0] - measured.position)
        joint = int(np.argmax(gap))
        text += f"; starts {gap[joint]:.4f} rad from the measured arm ({path.names[joint]})"
    if command.truncated is not None:
        text += f"; cut short: {command.truncated.message}"
    return text
