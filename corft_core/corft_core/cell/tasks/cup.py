"""Lift a cup by its rim: one finger inside, one outside."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.tasks.lift import Grip, LiftTask

if TYPE_CHECKING:
    from corft_core.cell.teleoperator import ImperfectOperator

RADIUS_M, WALL_M, HEIGHT_M, SIDES = 0.042, 0.004, 0.075, 10
GRIP_DEPTH_M = 0.018

_TEAL, _DARK_TEAL = (0.05, 0.45, 0.62, 1.0), (0.02, 0.22, 0.32, 1.0)


class Cup(LiftTask):
    """A cup with a wall of boxes around a floor; its origin is the middle of its bottom."""

    name = "cup"
    instruction = "lift the cup by its rim"
    target = "cup"
    bodies = ("cup",)

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        body = shapes.free_body(spec, "cup")
        grippy = shapes.GRASPED_ONLY
        shapes.cylinder(body, "cup_floor", RADIUS_M - WALL_M, 0.001, WALL_M, _DARK_TEAL, mass=0.03, **grippy)
        middle, width = RADIUS_M - WALL_M / 2, RADIUS_M * math.tan(math.pi / SIDES)
        for i in range(SIDES):
            angle = 2 * math.pi * i / SIDES
            shapes.box(body, f"cup_wall_{i}", [WALL_M / 2, width, HEIGHT_M / 2],
                       [middle * math.cos(angle), middle * math.sin(angle), HEIGHT_M / 2],
                       _TEAL if i % 2 else _DARK_TEAL, angle, mass=0.05 / SIDES, **grippy)
        for height in (shapes.BUMPER_M, HEIGHT_M - shapes.BUMPER_M):
            shapes.bumpers(body, shapes.ring_of_points(middle, height, 5))

    def grip(self, hand: ImperfectOperator) -> Grip:
        x, y, z = hand.view.objects["cup"][0]
        # The rim's point on the arm's right, where the fingers' opening, along y, crosses it.
        return Grip(np.array([x, y - RADIUS_M + WALL_M / 2, z + HEIGHT_M - GRIP_DEPTH_M]))


TASK = Cup()
