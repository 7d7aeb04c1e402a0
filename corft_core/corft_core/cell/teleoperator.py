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

from corft_core.cell.habits import STEADY, Habits
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.model import ARM_JOINTS
from corft_core.cell.scene import Scene
from corft_core.cell.tasks import get_task
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
Objects = dict[str, tuple[Array, Array]]

OPEN_M, CLOSED_M = 0.04, 0.0
# Turning by one radian takes the hand as long as moving by this length.
TURN_M_PER_RAD = 0.12

__all__ = ["STEADY", "Habits", "ImperfectOperator", "View"]


@dataclass
class View:
    """What the operator sees at a step."""

    tool_m: Array
    finger_m: float
    objects: Objects


class ImperfectOperator:
    """One episode of teleoperation at ``rate_hz``; the same seed gives the same habits. Make a new one a scene.

    A task's script reads ``view`` (what is seen), ``position_m`` (3,), ``yaw_rad`` and ``pitch_rad`` (where the hand
    steers the tool), ``habits``, ``rng`` and ``speed``, and is built of :meth:`move`, :meth:`open`, :meth:`close` and
    :meth:`wait`, generators that yield once a step.
    """

    view: View

    def __init__(self, seed: int, *, rate_hz: int = 10, habits: Habits | None = None,
                 kinematics: ArmKinematics | None = None) -> None:
        self.rng = np.random.default_rng([seed, 0xC0])
        self.habits = habits or Habits()
        self._kinematics = kinematics or ArmKinematics()
        self._step_s = 1.0 / rate_hz
        self.speed = float(self.rng.uniform(*self.habits.speed))
        self._tremor_m = float(self.rng.uniform(*self.habits.noise_m))
        self._tremor = np.zeros(3)
        self._steady = 1.0
        self._velocity_m_s = 0.0
        self._gripper_m = OPEN_M
        self._clear_m = 0.0
        self._pose: Array = np.zeros(5)
        self._joints: Array | None = None
        self._script: Iterator[None] | None = None
        self.done = False

    @property
    def position_m(self) -> Array:
        """Where the hand steers the tool frame (3,), without its tremor."""
        return self._pose[:3]

    @property
    def yaw_rad(self) -> float:
        """Turn of the steered tool about z."""
        return float(self._pose[3])

    @property
    def pitch_rad(self) -> float:
        """Forward lean of the steered tool."""
        return float(self._pose[4])

    def command(self, time_s: float, joint_positions: Array, finger_position_m: float, objects: Objects,
                scene: Scene) -> tuple[JointPath, float]:
        """The next step's command: a path of one point, one step ahead, and the finger position [m].

        ``joint_positions`` (7,) [rad] measured; ``objects`` as from ``Cell.objects()``. Call it once a step.
        """
        self.view = View(self._kinematics.tool_position(joint_positions), finger_position_m, objects)
        if self._script is None or self._joints is None:
            self._pose = np.array([*self.view.tool_m, 0.0, 0.0])
            self._joints = np.array(joint_positions, dtype=np.float64)
            task = get_task(scene.task)
            self._script, self._clear_m = task.work(self, scene), task.clear_m
        if not self.done and next(self._script, self) is self:
            self.done = True
        keep = 0.88
        self._tremor = keep * self._tremor + np.sqrt(1 - keep**2) * self._tremor_m * self.rng.standard_normal(3)
        position = self.position_m + self._steady * self._tremor * np.array([1.0, 1.0, 0.5])
        self._joints = self._kinematics.solve(position, self.yaw_rad, self._joints, pitch_rad=self.pitch_rad)
        return JointPath(ARM_JOINTS, np.array([self._step_s]), self._joints[None]), self._gripper_m

    def move(self, goal_m: Array, pace: float, *, yaw_rad: float | None = None,
             pitch_rad: float | None = None) -> Iterator[None]:
        """Straight to ``goal_m`` (3,) with limited speed and acceleration, hesitating and straying on the way.

        ``pace``: share of the cruising speed; at 1.0 and well above the table the hand strays and trembles more. A
        ``yaw_rad`` or ``pitch_rad`` of None stays as it is.
        """
        habits, rng = self.habits, self.rng
        goal = np.array([*goal_m, self.yaw_rad if yaw_rad is None else yaw_rad,
                         self.pitch_rad if pitch_rad is None else pitch_rad])
        free = pace == 1.0 and min(self._pose[2], goal[2]) > self._clear_m - 0.025
        self._steady = 1.0 if free else 0.4
        strayed = False
        while (distance := self._way_to(goal)) > 1e-3:
            if rng.random() < habits.pause:
                yield from self.wait(rng.uniform(*habits.pause_s))
            if free and not strayed and distance > 0.05 and rng.random() < habits.detour:
                strayed = True
                direction = rng.standard_normal(3) * [1.0, 1.0, 0.5]
                away = direction / np.linalg.norm(direction) * rng.uniform(*habits.detour_m)
                point = np.clip(self.position_m + away, [0.32, -0.28, self._clear_m], [0.65, 0.33, 0.5])
                yield from self._glide(np.array([*point, *self._pose[3:]]), pace)
            yield from self._glide(goal, pace, steps=1)

    def wait(self, duration_s: float) -> Iterator[None]:
        """Stand still."""
        self._velocity_m_s = 0.0
        for _ in range(round(duration_s / self._step_s)):
            yield

    def open(self, settle_s: float) -> Iterator[None]:
        """Open the gripper and wait, the slower the operator the longer."""
        yield from self.grip(OPEN_M, settle_s)

    def close(self, settle_s: float) -> Iterator[None]:
        """Close the gripper and wait, the slower the operator the longer."""
        yield from self.grip(CLOSED_M, settle_s)

    def _glide(self, goal: Array, pace: float, steps: int | None = None) -> Iterator[None]:
        habits = self.habits
        while (distance := self._way_to(goal)) > 1e-3 and steps != 0:
            brake = np.sqrt(2 * habits.acceleration_m_s2 * self.speed * distance)
            self._velocity_m_s = min(self._velocity_m_s + habits.acceleration_m_s2 * self.speed * self._step_s,
                                     habits.cruise_m_s * self.speed * pace, brake)
            travel = min(distance, max(self._velocity_m_s, 0.01) * self._step_s)
            self._pose = self._pose + (goal - self._pose) * (travel / distance)
            steps = None if steps is None else steps - 1
            yield

    def _way_to(self, goal: Array) -> float:
        """Length of the way to a pose (5,): its straight line, or its turn as a length where that is longer."""
        way = goal - self._pose
        return max(float(np.linalg.norm(way[:3])), TURN_M_PER_RAD * float(np.abs(way[3:]).max()))

    def grip(self, position_m: float, settle_s: float) -> Iterator[None]:
        """Send the fingers to a position, 0 closed … 0.04 open, and wait, the slower the operator the longer."""
        self._gripper_m = position_m
        yield from self.wait(settle_s / (0.5 + 0.5 * self.speed))
