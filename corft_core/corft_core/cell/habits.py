"""How imperfect the scripted operator is, one setting a human fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Habits:
    """How imperfect the operator is. Probabilities are per step of 0.1 s unless they say otherwise."""

    speed: tuple[float, float] = (0.3, 1.0)
    """Range of the speed factor, drawn once an episode."""
    cruise_m_s: float = 0.30
    """Tool speed in free space at speed 1; near objects it is half."""
    acceleration_m_s2: float = 1.2
    idle_s: tuple[float, float] = (0.1, 0.5)
    """Before the first motion."""
    pause: float = 0.03
    pause_s: tuple[float, float] = (0.4, 1.3)
    detour: float = 0.020
    detour_m: tuple[float, float] = (0.03, 0.08)
    aim_error: float = 0.30
    """Share of grasps aimed 2.5–5 cm wrong and corrected above the object."""
    miss: float = 0.0
    """Share of grasps that close beside the object, at first."""
    late: float = 0.30
    """Share of grasps that wait around the object before closing."""
    noise_m: tuple[float, float] = (0.001, 0.004)
    """Range of the standard deviation of the hand's correlated tremor, drawn once an episode."""
    attempts: int = 4
    give_up: float = 0.0
    """Share of episodes with a single attempt whose aim is wrong and stays so (not in cube_to_bin)."""


STEADY = Habits(speed=(1.0, 1.0), pause=0.0, detour=0.0, aim_error=0.0, miss=0.0, late=0.0, noise_m=(0.0, 0.0))
"""No faults, full speed."""
