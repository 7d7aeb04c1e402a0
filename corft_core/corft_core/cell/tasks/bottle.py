"""Grasp a standing bottle and lift it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.tasks.lift import Grip, LiftTask

if TYPE_CHECKING:
    from corft_core.cell.teleoperator import ImperfectOperator

RADIUS_M, SHOULDER_M = 0.022, 0.07
NECK_RADIUS_M, HEIGHT_M, CAP_M = 0.011, 0.095, 0.012
# High enough that the palm, 4 cm above the fingertips' centre, stays off the cap.
GRIP_M = 0.063

_GREEN, _DARK_GREEN, _WHITE = (0.10, 0.50, 0.20, 1.0), (0.05, 0.33, 0.12, 1.0), (0.96, 0.96, 0.96, 1.0)


class Bottle(LiftTask):
    """A cylinder with a neck and a cap; its origin is the middle of its bottom."""

    name = "bottle"
    instruction = "pick up the bottle"
    target = "bottle"
    bodies = ("bottle",)

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        body = shapes.free_body(spec, "bottle")
        grippy = shapes.GRASPED_ONLY
        # Most of the mass low: a bottle with a rest of drink in it.
        shapes.cylinder(body, "bottle_foot", RADIUS_M, 0.0, 0.02, _DARK_GREEN, mass=0.12, **grippy)
        shapes.cylinder(body, "bottle_body", RADIUS_M, 0.02, SHOULDER_M, _GREEN, mass=0.03, **grippy)
        shapes.cylinder(body, "bottle_neck", NECK_RADIUS_M, SHOULDER_M, HEIGHT_M - CAP_M, _GREEN, mass=0.005, **grippy)
        shapes.cylinder(body, "bottle_cap", NECK_RADIUS_M + 0.003, HEIGHT_M - CAP_M, HEIGHT_M, _WHITE, mass=0.003,
                        **grippy)
        for height in (shapes.BUMPER_M, SHOULDER_M - shapes.BUMPER_M):
            shapes.bumpers(body, shapes.ring_of_points(RADIUS_M - shapes.BUMPER_M, height, 6))
        shapes.bumpers(body, [[0.0, 0.0, HEIGHT_M - 0.01]])

    def grip(self, hand: ImperfectOperator) -> Grip:
        x, y, z = hand.view.objects["bottle"][0]
        return Grip(np.array([x, y, z + GRIP_M]), approach_m=np.array([0.0, 0.0, 0.075]))


TASK = Bottle()
