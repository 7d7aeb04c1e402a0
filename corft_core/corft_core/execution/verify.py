"""An independent check of what the executor sends: tests and the fault campaign count what it finds.

It samples a command every millisecond as the controller will, takes jerk from differences of the acceleration, and
shares no limit check with the code that made the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.command import Command
from corft_core.execution.limits import MotionLimits
from corft_core.planning.interface import MotionPlanner

Array = NDArray[np.float64]
SAMPLE_S = 0.001
COLLISION_SAMPLES = 10  # of those from one collision check to the next
POSITION_TOLERANCE_RAD = 2e-3
RELATIVE_TOLERANCE = 5e-3
# Between what ran and what replaces it, of the limit where there is one.
SEAM_POSITION_RAD, SEAM_RELATIVE = 1e-5, 1e-3


@dataclass(frozen=True)
class Violation:
    """``quantity`` (position, velocity, acceleration, jerk, finite, rest, seam or collision) and what is wrong."""

    quantity: str
    message: str


@dataclass(frozen=True)
class Peaks:
    """Largest velocity, acceleration and jerk of a command as shares of the limits."""

    velocity: float
    acceleration: float
    jerk: float


def check_command(command: Command, previous: Command | None, limits: MotionLimits,
                  planner: MotionPlanner | None) -> list[Violation]:
    """All that is wrong with a command that replaced ``previous`` (None: the arm stood); empty when it is sound.

    ``planner``: for the collision check, None leaves it out.
    """
    times, states = _states(command)
    if not np.all(np.isfinite(states)):
        return [Violation("finite", "the path has values that are not finite")]
    names = command.path.names
    # An arm that stood outside its limits is moved back inside.
    low = np.minimum(limits.low, states[0, 0]) - POSITION_TOLERANCE_RAD
    high = np.maximum(limits.high, states[0, 0]) + POSITION_TOLERANCE_RAD
    found = _outside("position", names, times, np.maximum(low - states[0], states[0] - high), states[0])
    for quantity, values, limit in zip(("velocity", "acceleration", "jerk"), states[1:],
                                       (limits.velocity, limits.acceleration, limits.jerk), strict=True):
        found += _outside(quantity, names, times, np.abs(values) / limit - 1 - RELATIVE_TOLERANCE, values)
    for quantity, end in zip(("velocity", "acceleration"), states[1:3, -1], strict=True):
        if np.max(np.abs(end)) > 1e-9:
            found.append(Violation("rest", f"{quantity} of {names[int(np.argmax(np.abs(end)))]} is "
                                           f"{np.max(np.abs(end)):.4f} at the end"))
    if previous is not None:
        found += _seam(command, previous, limits)
    hit = None if planner is None else planner.first_collision(states[0, ::COLLISION_SAMPLES])
    if hit is not None:
        found.append(Violation("collision", f"{command.kind} {command.number}: collision {hit * SAMPLE_S * 10:.2f} s "
                                            "after the start"))
    return found


def peaks(command: Command, limits: MotionLimits) -> Peaks:
    """How much of the limits a command uses."""
    _, states = _states(command)
    return Peaks(*(float(np.max(np.abs(values) / limit)) for values, limit in zip(
        states[1:], (limits.velocity, limits.acceleration, limits.jerk), strict=True)))


def _states(command: Command) -> tuple[Array, Array]:
    """Times (N,) and position, velocity, acceleration, jerk (4, N, J), every SAMPLE_S and at the end."""
    duration_s = command.path.duration_s
    times: Array = np.append(np.arange(0.0, duration_s, SAMPLE_S), duration_s)
    position, velocity, acceleration = command.path.sample(times)
    jerk = np.zeros_like(position)
    # The last interval may be nearly empty, which makes its difference too small, never too large.
    jerk[1:] = np.diff(acceleration, axis=0) / np.maximum(np.diff(times), SAMPLE_S / 10)[:, None]
    return times, np.stack([position, velocity, acceleration, jerk])


def _outside(quantity: str, names: Sequence[str], times: Array, amount: Array, values: Array) -> list[Violation]:
    row, joint = divmod(int(np.argmax(amount)), len(names))
    if amount[row, joint] <= 0:
        return []
    return [Violation(quantity, f"{quantity} of {names[joint]} is {values[row, joint]:.4f} at {times[row]:.3f} s")]


def _seam(command: Command, previous: Command, limits: MotionLimits) -> list[Violation]:
    """Until the hand-off old and new agree, so that the controller may switch at any moment in between."""
    found = []
    allowed = (SEAM_POSITION_RAD, SEAM_RELATIVE * limits.velocity, SEAM_RELATIVE * limits.acceleration)
    for time_ns in np.linspace(command.start_ns, command.handoff_ns, 9).astype(np.int64):
        old, new = previous.state(int(time_ns)), command.state(int(time_ns))
        for quantity, limit in zip(("position", "velocity", "acceleration"), allowed, strict=True):
            step = np.abs(getattr(new, quantity) - getattr(old, quantity))
            if np.any(step > limit):
                joint = int(np.argmax(step / limit))
                found.append(Violation("seam", f"{quantity} of {command.path.names[joint]} steps by "
                                               f"{step[joint]:.5f} {(time_ns - command.handoff_ns) * 1e-9:.3f} s "
                                               "before the hand-off"))
    return found
