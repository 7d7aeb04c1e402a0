"""Pick up the cube that the instruction names, of two, and put it in the bin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.scene import SPLITS, Scene, draw_joint_noise, draw_light, draw_xy, scene_name, scene_rng
from corft_core.cell.tasks.base import Task

if TYPE_CHECKING:
    from corft_core.cell.simulation import Cell
    from corft_core.cell.teleoperator import ImperfectOperator

Array = NDArray[np.float64]
Target = Literal["red_cube", "blue_cube"]

CUBE_HALF_M = 0.02
BIN_CENTRE_M = (0.50, 0.235)
BIN_INNER_HALF_M = 0.062
BIN_WALL_THICKNESS_M = 0.005
BIN_WALL_HEIGHT_M = 0.045
BIN_FLOOR_M = 0.004

# (x low, x high, y low, y high) of cube centres.
DEMONSTRATED_REGION_M = (0.42, 0.56, -0.11, 0.06)
UNSEEN_REGION_M = (0.42, 0.56, -0.19, -0.13)
CUBE_YAW_RAD = 0.2
# Cubes this far apart along the fingers' width (x) or their opening (y) don't hinder a grasp.
CLEARANCE_M = (0.055, 0.10)
CUBES: tuple[Target, Target] = ("red_cube", "blue_cube")
# The cube rests when it is slower than this, and the gripper is open when a finger is further out than that.
REST_M_S, RELEASED_M = 0.03, 0.028

HOVER_M, GRASP_M, CARRY_M, RELEASE_M = 0.115, 0.022, 0.15, 0.085
HOLDING_M = 0.012

_RED, _BLUE, _BIN = (0.84, 0.14, 0.12, 1.0), (0.10, 0.30, 0.85, 1.0), (0.98, 0.78, 0.22, 1.0)


class CubeScene(Scene):
    """Two cubes, one of them the target."""

    @property
    def cubes(self) -> tuple[tuple[float, float, float], ...]:
        """(x, y, yaw) of the red and the blue cube."""
        return tuple(place for _, place in self.places)

    def with_target(self, target: Target) -> CubeScene:
        """The same table with the other instruction."""
        return replace(self, target=target, instruction=instruction_for(target))


class CubeToBin(Task):
    """See the module's docstring. ``ood``: the target lies in a strip where no demonstration ever has it, while the
    other cube stays in the demonstrated region. Even scenes ask for the red cube, odd ones for the blue."""

    name = "cube_to_bin"
    splits = SPLITS[:3]
    bodies = (*CUBES, "bin")

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        half, wall, height = BIN_INNER_HALF_M, BIN_WALL_THICKNESS_M / 2, BIN_WALL_HEIGHT_M / 2
        tray = spec.worldbody.add_body(name="bin", pos=[*BIN_CENTRE_M, 0.0])
        inside = (0.72 * _BIN[0], 0.72 * _BIN[1], 0.72 * _BIN[2], 1.0)
        shapes.box(tray, "bin_floor", [half, half, BIN_FLOOR_M / 2], [0, 0, BIN_FLOOR_M / 2], inside)
        for i, (x, y) in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
            size = [wall, half + 2 * wall, height] if x else [half, wall, height]
            shapes.box(tray, f"bin_wall_{i}", size, [x * (half + wall), y * (half + wall), height], _BIN)
        for name, rgba in zip(CUBES, (_RED, _BLUE), strict=True):
            body = shapes.free_body(spec, name, CUBE_HALF_M)
            shapes.box(body, name, [CUBE_HALF_M] * 3, [0, 0, 0], rgba, mass=0.05, **shapes.GRIPPY)

    def make_scene(self, split: str, number: int) -> CubeScene:
        rng = scene_rng(split, number)
        target = CUBES[number % 2]
        region = UNSEEN_REGION_M if split == "ood" else DEMONSTRATED_REGION_M
        wanted = draw_xy(rng, region)
        other = draw_xy(rng, DEMONSTRATED_REGION_M)
        while not _clear_of(wanted, other):
            # Both are drawn again, so that the target's distribution stays the same everywhere but near corners.
            wanted, other = draw_xy(rng, region), draw_xy(rng, DEMONSTRATED_REGION_M)
        yaws = rng.uniform(-CUBE_YAW_RAD, CUBE_YAW_RAD, size=2)
        red, blue = (wanted, other) if target == "red_cube" else (other, wanted)
        places = (("red_cube", (*red, float(yaws[0]))), ("blue_cube", (*blue, float(yaws[1]))))
        return CubeScene(scene_name(self.name, split, number), self.name, instruction_for(target), target, places,
                         draw_joint_noise(rng), draw_light(rng))

    def achieved(self, cell: Cell) -> bool:
        """The target cube, and only it, rests in the bin and the gripper has let go of it."""
        if cell.scene is None or cell.finger_position_m < RELEASED_M or cell.gripper_target_m < RELEASED_M:
            return False
        return cubes_in_bin(cell) == {cell.scene.target} and cell.speed_m_s(cell.scene.target) < REST_M_S

    def work(self, hand: ImperfectOperator, scene: Scene) -> Iterator[None]:
        habits, rng = hand.habits, hand.rng
        yield from hand.wait(rng.uniform(*habits.idle_s))
        for attempt in range(habits.attempts):
            yield from self._grasp(hand, scene, first=attempt == 0)
            yield from hand.move(hand.position_m * [1, 1, 0] + [0, 0, CARRY_M], 0.7)
            if hand.view.finger_m < HOLDING_M:
                yield from hand.open(0.2)
                continue
            yield from hand.move(np.array([*BIN_CENTRE_M, CARRY_M]) + _spread(hand, 0.015), 1.0)
            yield from hand.move(hand.position_m * [1, 1, 0] + [0, 0, RELEASE_M], 0.5)
            yield from hand.open(0.4)
            yield from hand.move(hand.position_m * [1, 1, 0] + [0, 0, CARRY_M], 0.7)
            if in_bin(hand.view.objects[scene.target][0]):
                break
        yield from hand.wait(1.0)

    def _grasp(self, hand: ImperfectOperator, scene: Scene, first: bool) -> Iterator[None]:
        habits, rng = hand.habits, hand.rng
        fault = rng.random() if first else 1.0
        if fault < habits.aim_error:
            angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.025, 0.05)
            wrong = np.array([np.cos(angle), np.sin(angle), 0.0]) * size
            yield from hand.move(_above(hand, scene, HOVER_M - 0.02) + wrong, 1.0)
            yield from hand.wait(rng.uniform(0.2, 0.8))
        elif fault < habits.aim_error + habits.miss:
            beside = _beside(hand, scene)
            yield from hand.move(_above(hand, scene, HOVER_M) + beside, 1.0)
            yield from hand.move(_above(hand, scene, GRASP_M + 0.01) + beside, 0.5)
            yield from hand.close(0.5)
            yield from hand.wait(rng.uniform(0.1, 0.5))
            yield from hand.open(0.3)
        yield from hand.move(_above(hand, scene, HOVER_M), 1.0)
        # The cube may have been pushed: look again before going down.
        yield from hand.move(_above(hand, scene, HOVER_M), 0.5)
        yield from hand.move(_above(hand, scene, GRASP_M), 0.5)
        if rng.random() < habits.late:
            yield from hand.wait(rng.uniform(0.5, 1.5))
        yield from hand.close(0.4)


TASK = CubeToBin()


def instruction_for(target: Target) -> str:
    """The instruction that asks for this cube."""
    return f"pick up the {target.replace('_', ' ')} and put it in the bin"


def in_bin(position_m: Array) -> bool:
    """Whether a cube's centre (3,) lies inside the bin, below its rim."""
    dx, dy = abs(position_m[0] - BIN_CENTRE_M[0]), abs(position_m[1] - BIN_CENTRE_M[1])
    low = position_m[2] < BIN_WALL_HEIGHT_M
    return bool(max(dx, dy) < BIN_INNER_HALF_M and low and math.isfinite(float(position_m[2])))


def cubes_in_bin(cell: Cell) -> set[str]:
    """Names of the cubes inside the bin."""
    return {name for name in CUBES if in_bin(cell.position_m(name))}


def _clear_of(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) >= CLEARANCE_M[0] or abs(a[1] - b[1]) >= CLEARANCE_M[1]


def _above(hand: ImperfectOperator, scene: Scene, height_m: float) -> Array:
    x, y, _ = hand.view.objects[scene.target][0]
    return np.array([np.clip(x, 0.3, 0.68), np.clip(y, -0.3, 0.35), height_m])


def _beside(hand: ImperfectOperator, scene: Scene) -> Array:
    """Off along the fingers' width, so that they pass the cube, and away from the other cube."""
    other = next(name for name in CUBES if name != scene.target)
    away = np.sign(hand.view.objects[scene.target][0][0] - hand.view.objects[other][0][0]) or 1.0
    return np.array([away * hand.rng.uniform(0.040, 0.05), hand.rng.uniform(-0.01, 0.01), 0.0])


def _spread(hand: ImperfectOperator, sigma_m: float) -> Array:
    return np.array([*np.clip(hand.rng.normal(0, sigma_m, 2), -0.025, 0.025), 0.0])
