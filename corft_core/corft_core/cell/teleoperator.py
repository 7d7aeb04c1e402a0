"""A scripted teleoperator with human faults: it hesitates, strays, misses, corrects, and differs in speed.

Demonstrations from a perfect script hold no contrast between good and bad ways to act in the same state, so
offline reinforcement learning finds nothing to improve in them. This operator shows the same states handled fast
and slowly, with pauses, detours, aim errors that it corrects and grasps that it repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.cell import scene as layout
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.model import ARM_JOINTS
from corft_core.cell.scene import Scene
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
Objects = dict[str, tuple[Array, Array]]

HOVER_M, GRASP_M, CARRY_M, RELEASE_M = 0.115, 0.022, 0.15, 0.085
OPEN_M, CLOSED_M, HOLDING_M = 0.04, 0.0, 0.012


@dataclass(frozen=True)
class Habits:
    """How imperfect the operator is. Probabilities are per step of 0.1 s unless they say otherwise."""

    speed: tuple[float, float] = (0.35, 1.0)
    """Range of the speed factor, drawn once an episode."""
    cruise_m_s: float = 0.30
    """Tool speed in free space at speed 1; near objects it is half."""
    acceleration_m_s2: float = 1.2
    idle_s: tuple[float, float] = (0.1, 0.5)
    """Before the first motion."""
    pause: float = 0.018
    pause_s: tuple[float, float] = (0.4, 1.3)
    detour: float = 0.020
    detour_m: tuple[float, float] = (0.03, 0.08)
    aim_error: float = 0.30
    """Share of grasps aimed 2.5–5 cm wrong and corrected above the cube."""
    miss: float = 0.20
    """Share of grasps that close beside the cube, at first."""
    late: float = 0.30
    """Share of grasps that wait around the cube before closing."""
    noise_m: tuple[float, float] = (0.001, 0.004)
    """Range of the standard deviation of the hand's correlated tremor, drawn once an episode."""
    attempts: int = 4


@dataclass
class _View:
    """What the operator sees at a step."""

    tool_m: Array
    finger_m: float
    objects: Objects


class ImperfectOperator:
    """One episode of teleoperation at ``rate_hz``; the same seed gives the same habits. Make a new one a scene."""

    def __init__(self, seed: int, *, rate_hz: int = 10, habits: Habits | None = None,
                 kinematics: ArmKinematics | None = None) -> None:
        self._rng = np.random.default_rng([seed, 0xC0])
        self._habits = habits or Habits()
        self._kinematics = kinematics or ArmKinematics()
        self._step_s = 1.0 / rate_hz
        self.speed = float(self._rng.uniform(*self._habits.speed))
        self._tremor_m = float(self._rng.uniform(*self._habits.noise_m))
        self._tremor = np.zeros(3)
        self._steady = 1.0
        self._velocity_m_s = 0.0
        self._gripper_m = OPEN_M
        self._reference: Array = np.zeros(3)
        self._joints: Array | None = None
        self._script: Iterator[None] | None = None
        self.done = False

    def command(self, time_s: float, joint_positions: Array, finger_position_m: float, objects: Objects,
                scene: Scene) -> tuple[JointPath, float]:
        """The next step's command: a path of one point, one step ahead, and the finger position [m].

        ``joint_positions`` (7,) [rad] measured; ``objects`` as from ``Cell.objects()``. Call it once a step.
        """
        self._view = _View(self._kinematics.tool_position(joint_positions), finger_position_m, objects)
        if self._script is None or self._joints is None:
            self._reference, self._joints = self._view.tool_m.copy(), np.array(joint_positions, dtype=np.float64)
            self._script = self._work(scene)
        if not self.done and next(self._script, self) is self:
            self.done = True
        keep = 0.88
        self._tremor = keep * self._tremor + np.sqrt(1 - keep**2) * self._tremor_m * self._rng.standard_normal(3)
        position = self._reference + self._steady * self._tremor * np.array([1.0, 1.0, 0.5])
        self._joints = self._kinematics.solve(position, 0.0, self._joints)
        return JointPath(ARM_JOINTS, np.array([self._step_s]), self._joints[None]), self._gripper_m

    def _work(self, scene: Scene) -> Iterator[None]:
        """The whole task; every ``yield`` is a step."""
        habits, rng = self._habits, self._rng
        yield from self._wait(rng.uniform(*habits.idle_s))
        for attempt in range(habits.attempts):
            yield from self._grasp(scene, first=attempt == 0)
            yield from self._move(self._reference * [1, 1, 0] + [0, 0, CARRY_M], 0.7)
            if self._view.finger_m < HOLDING_M:
                yield from self._grip(OPEN_M, 0.2)
                continue
            yield from self._move(np.array([*layout.BIN_CENTRE_M, CARRY_M]) + self._spread(0.015), 1.0)
            yield from self._move(self._reference * [1, 1, 0] + [0, 0, RELEASE_M], 0.5)
            yield from self._grip(OPEN_M, 0.4)
            yield from self._move(self._reference * [1, 1, 0] + [0, 0, CARRY_M], 0.7)
            if layout.in_bin(self._view.objects[scene.target][0]):
                break
        yield from self._wait(1.0)

    def _grasp(self, scene: Scene, first: bool) -> Iterator[None]:
        habits, rng = self._habits, self._rng
        fault = rng.random() if first else 1.0
        if fault < habits.aim_error:
            angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.025, 0.05)
            wrong = np.array([np.cos(angle), np.sin(angle), 0.0]) * size
            yield from self._move(self._above(scene, HOVER_M - 0.02) + wrong, 1.0)
            yield from self._wait(rng.uniform(0.2, 0.8))
        elif fault < habits.aim_error + habits.miss:
            beside = self._beside(scene)
            yield from self._move(self._above(scene, HOVER_M) + beside, 1.0)
            yield from self._move(self._above(scene, GRASP_M + 0.01) + beside, 0.5)
            yield from self._grip(CLOSED_M, 0.5)
            yield from self._wait(rng.uniform(0.1, 0.5))
            yield from self._grip(OPEN_M, 0.3)
        yield from self._move(self._above(scene, HOVER_M), 1.0)
        # The cube may have been pushed: look again before going down.
        yield from self._move(self._above(scene, HOVER_M), 0.5)
        yield from self._move(self._above(scene, GRASP_M), 0.5)
        if rng.random() < habits.late:
            yield from self._wait(rng.uniform(0.5, 1.5))
        yield from self._grip(CLOSED_M, 0.4)

    def _above(self, scene: Scene, height_m: float) -> Array:
        x, y, _ = self._view.objects[scene.target][0]
        return np.array([np.clip(x, 0.3, 0.68), np.clip(y, -0.3, 0.35), height_m])

    def _beside(self, scene: Scene) -> Array:
        """Off along the fingers' width, so that they pass the cube, and away from the other cube."""
        other = next(name for name in layout.OBJECTS if name != scene.target)
        away = np.sign(self._view.objects[scene.target][0][0] - self._view.objects[other][0][0]) or 1.0
        return np.array([away * self._rng.uniform(0.040, 0.05), self._rng.uniform(-0.01, 0.01), 0.0])

    def _spread(self, sigma_m: float) -> Array:
        return np.array([*np.clip(self._rng.normal(0, sigma_m, 2), -0.025, 0.025), 0.0])

    def _move(self, goal: Array, pace: float) -> Iterator[None]:
        """Straight to ``goal`` with limited speed and acceleration, hesitating and straying on the way."""
        habits, rng = self._habits, self._rng
        free = pace == 1.0 and min(self._reference[2], goal[2]) > 0.09
        self._steady = 1.0 if free else 0.4
        strayed = False
        while (distance := float(np.linalg.norm(goal - self._reference))) > 1e-3:
            if rng.random() < habits.pause:
                yield from self._wait(rng.uniform(*habits.pause_s))
            if free and not strayed and distance > 0.05 and rng.random() < habits.detour:
                strayed = True
                direction = rng.standard_normal(3) * [1.0, 1.0, 0.5]
                away = direction / np.linalg.norm(direction) * rng.uniform(*habits.detour_m)
                point = np.clip(self._reference + away, [0.32, -0.28, HOVER_M], [0.65, 0.33, 0.5])
                yield from self._glide(point, pace)
            yield from self._glide(goal, pace, steps=1)

    def _glide(self, goal: Array, pace: float, steps: int | None = None) -> Iterator[None]:
        habits = self._habits
        while (distance := float(np.linalg.norm(goal - self._reference))) > 1e-3 and steps != 0:
            brake = np.sqrt(2 * habits.acceleration_m_s2 * self.speed * distance)
            self._velocity_m_s = min(self._velocity_m_s + habits.acceleration_m_s2 * self.speed * self._step_s,
                                     habits.cruise_m_s * self.speed * pace, brake)
            travel = min(distance, max(self._velocity_m_s, 0.01) * self._step_s)
            self._reference = self._reference + (goal - self._reference) * (travel / distance)
            steps = None if steps is None else steps - 1
            yield

    def _wait(self, duration_s: float) -> Iterator[None]:
        self._velocity_m_s = 0.0
        for _ in range(round(duration_s / self._step_s)):
            yield

    def _grip(self, position_m: float, settle_s: float) -> Iterator[None]:
        self._gripper_m = position_m
        yield from self._wait(settle_s / (0.5 + 0.5 * self.speed))
