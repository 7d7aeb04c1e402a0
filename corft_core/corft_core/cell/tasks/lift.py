"""Tasks in the spirit of the paper: grasp one object and lift it off the table.

Scenes of all of them lie alike: a rectangle of 14 × 17 cm, less a patch of 5 × 5 cm in it. ``demo`` and ``ind`` draw
from it with disjoint seeds. ``ood``: even numbers lie in the patch, which demonstrations surround, odd ones in a strip
beyond the rectangle, which they don't reach. ``fixed_demo`` and ``fixed_ind``: always the same place, but for noise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.habits import Habits
from corft_core.cell.scene import (
    SPLITS,
    Region,
    Scene,
    draw_joint_noise,
    draw_light,
    draw_xy,
    inside,
    scene_name,
    scene_rng,
)
from corft_core.cell.tasks.base import Task

if TYPE_CHECKING:
    from corft_core.cell.simulation import Cell
    from corft_core.cell.teleoperator import ImperfectOperator

Array = NDArray[np.float64]

REGION_M: Region = (0.42, 0.56, -0.085, 0.085)
PATCH_M: Region = (0.465, 0.515, -0.025, 0.025)
NOMINAL_XY_M = (0.45, -0.055)
NOMINAL_NOISE_M, NOMINAL_NOISE_RAD = 0.003, 0.05
# The strip around the rectangle: from this far to that far beyond its border.
STRIP_M = (0.01, 0.04)
LIFTED_M = 0.06
FINGERS = frozenset({"panda_leftfinger", "panda_rightfinger"})
HAND = FINGERS | {"panda_hand"}


@dataclass(frozen=True)
class Grip:
    """How to take an object: the tool frame's pose where the gripper closes, and how to get there.

    ``position_m`` (3,), ``yaw_rad`` and ``pitch_rad`` as in :func:`kinematics.tool_orientation`. ``approach_m`` (3,)
    leads from there back to where the tool comes straight in from. ``beside_m`` (3,): where a miss closes instead,
    without touching the object; its horizontal part may go either way.
    """

    position_m: Array
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    approach_m: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.08]))
    beside_m: Array = field(default_factory=lambda: np.array([0.055, 0.0, 0.01]))


class LiftTask(Task):
    """Grasp ``target`` and lift it by 6 cm or more, held by the hand alone for 0.3 s."""

    splits = SPLITS
    hold_s = 0.3
    clear_m = 0.13
    faulty_habits = Habits(miss=0.2, give_up=0.55)
    time_limit_s = 25.0
    instruction: ClassVar[str]
    target: ClassVar[str]
    yaw_rad: ClassVar[float] = 0.3
    """Objects stand turned by at most this much."""
    lift_m: ClassVar[float] = 0.11
    """How high the operator lifts."""

    @abstractmethod
    def grip(self, hand: ImperfectOperator) -> Grip:
        """How to take the target where the hand sees it (``hand.view.objects``)."""

    def make_scene(self, split: str, number: int) -> Scene:
        rng = scene_rng(f"{self.name}/{split}", number)
        if split.startswith("fixed_"):
            x, y = (at + float(rng.uniform(-NOMINAL_NOISE_M, NOMINAL_NOISE_M)) for at in NOMINAL_XY_M)
            yaw = float(rng.uniform(-NOMINAL_NOISE_RAD, NOMINAL_NOISE_RAD))
        else:
            x, y = _draw_place(rng, split, number)
            yaw = float(rng.uniform(-self.yaw_rad, self.yaw_rad))
        return Scene(scene_name(self.name, split, number), self.name, self.instruction, self.target,
                     ((self.target, (x, y, yaw)),), draw_joint_noise(rng), draw_light(rng))

    def achieved(self, cell: Cell) -> bool:
        """The target is 6 cm higher than at the start, touches a finger and nothing but the hand."""
        if cell.risen_m(self.target) < LIFTED_M:
            return False
        touching = cell.touching(self.target)
        return bool(touching & FINGERS) and touching <= HAND

    def work(self, hand: ImperfectOperator, scene: Scene) -> Iterator[None]:
        habits, rng = hand.habits, hand.rng
        start_m = hand.view.objects[self.target][0][2]
        yield from hand.wait(rng.uniform(*habits.idle_s))
        gives_up = rng.random() < habits.give_up
        for attempt in range(1 if gives_up else habits.attempts):
            if attempt == 0 and not gives_up:
                yield from self._hesitant_approach(hand)
            yield from self._grasp(hand, _aside(rng, 0.04, 0.06) if gives_up else np.zeros(3))
            yield from self.lift(hand)
            if hand.view.objects[self.target][0][2] > start_m + 0.7 * self.lift_m:
                yield from hand.wait(1.0)
                break
            yield from hand.open(0.2)

    def lift(self, hand: ImperfectOperator) -> Iterator[None]:
        """The motion after the gripper has closed."""
        yield from hand.move(hand.position_m + np.array([0.0, 0.0, self.lift_m]), 0.7)
        yield from hand.wait(0.3)

    def _hesitant_approach(self, hand: ImperfectOperator) -> Iterator[None]:
        """Aim wrong or close beside the object, as often as the habits say."""
        habits, rng = hand.habits, hand.rng
        fault = rng.random()
        if fault < habits.aim_error:
            yield from _to(hand, self.grip(hand), 0.8, _aside(rng, 0.025, 0.05), 1.0)
            yield from hand.wait(rng.uniform(0.2, 0.8))
        elif fault < habits.aim_error + habits.miss:
            grip = self.grip(hand)
            side = rng.choice([-1.0, 1.0])
            beside = grip.beside_m * [side, side, 1.0]
            yield from _to(hand, grip, 1.0, beside, 1.0)
            yield from _to(hand, grip, 0.0, beside, 0.5)
            yield from hand.close(0.4)
            yield from hand.wait(rng.uniform(0.1, 0.5))
            yield from hand.open(0.3)
            yield from _to(hand, grip, 1.0, beside, 0.7)

    def _grasp(self, hand: ImperfectOperator, wrong: Array) -> Iterator[None]:
        yield from _to(hand, self.grip(hand), 1.0, wrong, 1.0)
        # The object may have been pushed: look again before going in.
        grip = self.grip(hand)
        yield from _to(hand, grip, 1.0, wrong, 0.5)
        yield from _to(hand, grip, 0.0, wrong, 0.5)
        if hand.rng.random() < hand.habits.late:
            yield from hand.wait(hand.rng.uniform(0.5, 1.5))
        yield from hand.close(0.4)


def yaw_of(quaternion: Array) -> float:
    """Turn about z [rad] of a quaternion (4,) x, y, z, w."""
    x, y, z, w = quaternion
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def _to(hand: ImperfectOperator, grip: Grip, away: float, offset_m: Array, pace: float) -> Iterator[None]:
    """To the grip plus an offset (3,); ``away`` 1 is where the approach starts, 0 the grip itself."""
    goal = grip.position_m + away * grip.approach_m + offset_m
    yield from hand.move(goal, pace, yaw_rad=grip.yaw_rad, pitch_rad=grip.pitch_rad)


def _aside(rng: np.random.Generator, least_m: float, most_m: float) -> Array:
    """A horizontal offset (3,) of random direction."""
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(least_m, most_m)
    return np.array([np.cos(angle), np.sin(angle), 0.0]) * size


def _draw_place(rng: np.random.Generator, split: str, number: int) -> tuple[float, float]:
    if split == "ood" and number % 2 == 0:
        return draw_xy(rng, PATCH_M)
    allowed, left_out = (_grown(STRIP_M[1]), _grown(STRIP_M[0])) if split == "ood" else (REGION_M, PATCH_M)
    while inside(place := draw_xy(rng, allowed), left_out):
        pass
    return place


def _grown(margin_m: float) -> Region:
    return (REGION_M[0] - margin_m, REGION_M[1] + margin_m, REGION_M[2] - margin_m, REGION_M[3] + margin_m)
