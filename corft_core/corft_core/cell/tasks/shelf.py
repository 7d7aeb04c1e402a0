"""Take a mug out of a shelf: reach in with the tool leant forward, draw it out by its handle, lift it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.scene import Region, Scene, draw_xy, inside, scene_rng
from corft_core.cell.tasks.lift import Grip, LiftTask, yaw_of

if TYPE_CHECKING:
    from corft_core.cell.simulation import Cell
    from corft_core.cell.teleoperator import ImperfectOperator

RADIUS_M, WALL_M, HEIGHT_M, SIDES = 0.030, 0.004, 0.080, 10
# Half lengths of the handle's bars, and the distance of its middle from the mug's axis.
HANDLE_HALF_M, HANDLE_X_M = (0.017, 0.006, 0.006), 0.046
# The upper board's front edge, its underside's height above the lower one, half the width, and the thickness.
EDGE_X_M, UNDER_M, HALF_WIDTH_M, BOARD_M = 0.545, 0.135, 0.27, 0.012
# The lower board's front and both boards' back edge, and its height above the table.
FRONT_X_M, BACK_X_M, FLOOR_M = 0.46, 0.70, 0.15
# The tool leans forward: upright, the hand would meet the board's edge before the fingers reach the handle.
LEAN_RAD, GRIP_M = 0.35, 0.048
# Where the approach starts: the tool's x, and its height above the grip.
APPROACH_X_M, RISE_M = EDGE_X_M - 0.115, 0.08
# A mug with its middle here is clear of the upper board.
OUT_X_M = EDGE_X_M - 0.035

REGION_M: Region = (EDGE_X_M - 0.012, EDGE_X_M + 0.028, -0.085, 0.085)
PATCH_M: Region = (EDGE_X_M, EDGE_X_M + 0.016, -0.025, 0.025)
STRIP_M = (0.01, 0.04)
# From the other tasks' nominal place to one under the board.
FIXED_SHIFT_M = 0.105

_RED, _DARK_RED, _BLUE = (0.84, 0.14, 0.12, 1.0), (0.52, 0.06, 0.06, 1.0), (0.10, 0.30, 0.85, 1.0)
_WOOD, _DARK_WOOD, _GLASS = (0.55, 0.41, 0.28, 1.0), (0.38, 0.27, 0.19, 1.0), (0.55, 0.75, 0.85, 0.20)


class Shelf(LiftTask):
    """A mug on a shelf under a glass board, its handle towards the arm; its origin is the middle of its bottom.

    The glass stops a hand that comes from above, and a mug that is lifted where it stands. Places are drawn as in all
    lift tasks, but from a region 4 cm deep, and the strip beyond lies to the left and right only: the arm reaches in
    no further.
    """

    name = "shelf"
    instruction = "take the mug out of the shelf"
    target = "mug"
    bodies = ("mug",)
    yaw_rad = 0.15
    clear_m = 0.25

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        grippy = shapes.GRASPED_ONLY
        mug = shapes.free_body(spec, "mug", FLOOR_M)
        shapes.cylinder(mug, "mug_floor", RADIUS_M - WALL_M, 0.001, WALL_M, _DARK_RED, mass=0.04, **grippy)
        width, middle = RADIUS_M * math.tan(math.pi / SIDES), RADIUS_M - WALL_M / 2
        for i in range(SIDES):
            angle = 2 * math.pi * i / SIDES
            shapes.box(mug, f"mug_wall_{i}", [WALL_M / 2, width, HEIGHT_M / 2],
                       [middle * math.cos(angle), middle * math.sin(angle), HEIGHT_M / 2], _RED, angle,
                       mass=0.04 / SIDES, **grippy)
        for height in (shapes.BUMPER_M, HEIGHT_M - shapes.BUMPER_M):
            shapes.bumpers(mug, shapes.ring_of_points(middle, height, 5))
        length, width, thick = HANDLE_HALF_M
        for i, height in enumerate((0.018, 0.066)):
            shapes.box(mug, f"mug_handle_{i}", HANDLE_HALF_M, [-HANDLE_X_M, 0, height], _BLUE, mass=0.004, **grippy)
        shapes.box(mug, "mug_handle_2", [thick, width, 0.030], [thick - HANDLE_X_M - length, 0, 0.042], _BLUE,
                   mass=0.004, **grippy)
        for name, front, low, rgba in (("floor", FRONT_X_M, FLOOR_M - BOARD_M, _WOOD),
                                       ("glass", EDGE_X_M, FLOOR_M + UNDER_M, _GLASS)):
            shapes.box(spec.worldbody, f"shelf_{name}", [(BACK_X_M - front) / 2, HALF_WIDTH_M, BOARD_M / 2],
                       [(front + BACK_X_M) / 2, 0, low + BOARD_M / 2], rgba)
            for i, (x, y) in enumerate([(front, -1), (front, 1), (BACK_X_M, -1), (BACK_X_M, 1)]):
                post = low if name == "floor" else UNDER_M
                inside = x + math.copysign(0.012, (front + BACK_X_M) / 2 - x)
                shapes.box(spec.worldbody, f"shelf_{name}_post_{i}", [0.01, 0.01, post / 2],
                           [inside, y * (HALF_WIDTH_M - 0.012), low - post / 2], _DARK_WOOD)

    def make_scene(self, split: str, number: int) -> Scene:
        scene = super().make_scene(split, number)
        (_, (x, y, yaw)), = scene.places
        if split.startswith("fixed_"):
            x += FIXED_SHIFT_M
        else:
            x, y = _draw_place(scene_rng(f"shelf/place/{split}", number), split, number)
        return replace(scene, places=((self.target, (x, y, yaw)),))

    def achieved(self, cell: Cell) -> bool:
        """The mug is in front of the board, 6 cm higher than it stood, and touches nothing but the fingers."""
        return bool(cell.position_m("mug")[0] < OUT_X_M) and super().achieved(cell)

    def grip(self, hand: ImperfectOperator) -> Grip:
        position, quaternion = hand.view.objects["mug"]
        yaw = yaw_of(quaternion)
        handle = position + np.array([-HANDLE_X_M * math.cos(yaw), -HANDLE_X_M * math.sin(yaw), GRIP_M])
        return Grip(handle, pitch_rad=LEAN_RAD, approach_m=np.array([APPROACH_X_M - handle[0], 0.0, RISE_M]),
                    beside_m=np.array([0.0, -math.copysign(0.07, position[1]), 0.0]))

    def lift(self, hand: ImperfectOperator) -> Iterator[None]:
        x, y, z = hand.position_m
        way_out = max(hand.view.objects["mug"][0][0] - OUT_X_M, 0.0) + 0.02
        yield from hand.move(np.array([x - way_out, y, z + 0.01]), 0.6)
        yield from super().lift(hand)


TASK = Shelf()


def _draw_place(rng: np.random.Generator, split: str, number: int) -> tuple[float, float]:
    if split == "ood" and number % 2 == 0:
        return draw_xy(rng, PATCH_M)
    if split == "ood":
        x, beyond = draw_xy(rng, (*REGION_M[:2], *STRIP_M))
        return x, float(rng.choice([-1.0, 1.0])) * (REGION_M[3] + beyond)
    while inside(place := draw_xy(rng, REGION_M), PATCH_M):
        pass
    return place
