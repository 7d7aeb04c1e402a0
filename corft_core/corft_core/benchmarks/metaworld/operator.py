"""Meta-World's scripted experts with human faults: mixed speed, tremor, pauses, detours, aim errors.

Demonstrations of a uniform expert hold no better and worse ways to act in the same state, so offline reinforcement
learning finds nothing to improve in them. Values are those of our own state-based study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.benchmarks.metaworld.environment import import_metaworld

Array = NDArray[np.float64]

GRASP_HEIGHT_M = {"pick-place-v3": 0.05, "push-v3": 0.04, "peg-insert-side-v3": 0.025}
"""How far above the object the experts have arrived. They close the gripper on the way there, timed for full speed;
a slower hand has to close it after it arrived and to wait for it, else it closes above the object."""
CLOSING = 0.01
"""The gripper is closing as long as its opening changes by more than this a step."""


@dataclass(frozen=True)
class Faults:
    """How imperfect the operator is; steps are of 12.5 ms, probabilities per step unless they say otherwise."""

    speed: tuple[float, float] = (0.3, 1.0)
    """Range of the factor on the expert's motion, drawn once an episode."""
    noise: tuple[float, float] = (0.05, 0.3)
    """Range of the deviation of the correlated noise on the motion (unit 1 cm a step), drawn once an episode."""
    noise_keep: float = 0.6
    """Correlation of the noise from step to step."""
    pause: float = 0.02
    pause_steps: tuple[int, int] = (4, 15)
    detour: float = 0.015
    detour_steps: tuple[int, int] = (3, 8)
    aim_error: float = 0.25
    """Share of episodes that first aim beside the object."""
    aim_m: tuple[float, float] = (0.025, 0.05)
    aim_steps: tuple[int, int] = (30, 70)
    lost: float = 0.0
    """Share of episodes whose aim error is never corrected; the operator gives up."""
    give_up_steps: int = 150
    slip: float = 0.0
    """Probability of the gripper opening by mistake."""
    slip_steps: tuple[int, int] = (5, 15)


MIXED = Faults()
FAILING = Faults(lost=0.3, slip=0.004)
"""More faults, for demonstrations whose failures are kept."""


class ImperfectExpert:
    """One episode's operator; the same seed gives the same faults."""

    def __init__(self, task: str, seed: list[int], faults: Faults = MIXED) -> None:
        self._expert = import_metaworld().policies.ENV_POLICY_MAP[task]()
        self._rng = rng = np.random.default_rng(seed)
        self._faults = faults
        self.speed = float(rng.uniform(*faults.speed))
        self._deviation = float(rng.uniform(*faults.noise))
        self._noise = np.zeros(3)
        fate = rng.random()
        self._lost = fate < faults.lost
        wrong = fate < faults.lost + faults.aim_error
        angle, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*faults.aim_m) if wrong else 0.0
        self._aim = size * np.array([np.cos(angle), np.sin(angle), 0.0])
        self._aim_left = faults.give_up_steps if self._lost else int(rng.integers(*faults.aim_steps, endpoint=True))
        self._pause_left = self._detour_left = self._slip_left = 0
        self._detour = np.zeros(3)
        self._grasp_height_m = GRASP_HEIGHT_M.get(task)
        self._grasped = False
        self._openings = [1.0] * 4
        self.steps = 0

    @property
    def gave_up(self) -> bool:
        return self._lost and self.steps >= self._faults.give_up_steps

    def act(self, observation: Array) -> NDArray[np.float32]:
        """Action (4,) for Meta-World's observation (39,): xyz −1…1 and gripper opening 0…1. Call it once a step."""
        faults, rng = self._faults, self._rng
        seen = observation.copy()  # some experts write into it
        if self._aim_left > 0:
            seen[4:7] += self._aim
            self._aim_left -= 1
        wanted = np.clip(self._expert.get_action(seen), -1.0, 1.0).astype(np.float64)
        motion, opening = self.speed * wanted[:3], (1.0 - wanted[3]) / 2.0
        if self._grasp_height_m is not None:
            motion, opening = self._grasp(seen, motion, opening)
        keep = faults.noise_keep
        self._noise = keep * self._noise + np.sqrt(1.0 - keep**2) * self._deviation * rng.standard_normal(3)
        if not (self._pause_left or self._detour_left):
            chance = rng.random()
            if chance < faults.pause:
                self._pause_left = int(rng.integers(*faults.pause_steps, endpoint=True))
            elif chance < faults.pause + faults.detour:
                self._detour_left = int(rng.integers(*faults.detour_steps, endpoint=True))
                direction = rng.standard_normal(3)
                self._detour = direction / np.linalg.norm(direction)
        if self._pause_left:
            self._pause_left -= 1
            motion = np.zeros(3)
        elif self._detour_left:
            self._detour_left -= 1
            motion = self.speed * self._detour + self._noise
        else:
            motion = motion + self._noise
        if faults.slip and not self._slip_left and rng.random() < faults.slip:
            self._slip_left = int(rng.integers(*faults.slip_steps, endpoint=True))
        if self._slip_left:
            self._slip_left -= 1
            opening = 1.0
        self.steps += 1
        return np.append(np.clip(motion, -1.0, 1.0), opening).astype(np.float32)

    def _grasp(self, seen: Array, motion: Array, opening: float) -> tuple[Array, float]:
        """Close the gripper only at the object, and keep still until it has stopped closing."""
        self._openings = [*self._openings[1:], float(seen[3])]
        if opening >= 0.5:
            self._grasped = False
        elif not self._grasped:
            if seen[2] - seen[6] > self._grasp_height_m:
                return motion, 1.0
            self._grasped = self._openings[0] < 0.95 and self._openings[0] - self._openings[-1] < CLOSING
            return np.zeros(3), opening
        return motion, opening
