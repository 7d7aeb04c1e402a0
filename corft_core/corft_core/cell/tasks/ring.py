"""Take a standing ring by its top edge and lift it off the table."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.tasks.lift import Grip, LiftTask, yaw_of

if TYPE_CHECKING:
    from corft_core.cell.teleoperator import ImperfectOperator

# The ring's middle line, its tube, and the plate that it stands on.
RADIUS_M, TUBE_M, SEGMENTS = 0.034, 0.007, 10
FOOT_M = (0.026, 0.022, 0.004)
TOP_M = 2 * FOOT_M[2] + 2 * RADIUS_M + TUBE_M
# The ring's plane in the body's frame: oblique to the front camera, which so sees its hole.
TURN_RAD = 0.5
GRIP_DEPTH_M = 0.016

_PURPLE, _LILAC, _DARK = (0.45, 0.08, 0.55, 1.0), (0.70, 0.30, 0.80, 1.0), (0.22, 0.05, 0.28, 1.0)


class Ring(LiftTask):
    """A ring of rods, upright on a plate; its origin is the middle of the plate's bottom."""

    name = "ring"
    instruction = "pick up the ring by its top"
    target = "ring"
    bodies = ("ring",)
    clear_m = 0.14

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        body = shapes.free_body(spec, "ring")
        across = np.array([math.cos(TURN_RAD), math.sin(TURN_RAD), 0.0])
        middle = np.array([0.0, 0.0, 2 * FOOT_M[2] + RADIUS_M])
        around = [middle + RADIUS_M * (across * math.sin(turn) + np.array([0.0, 0.0, math.cos(turn)]))
                  for turn in np.linspace(0.0, 2 * math.pi, SEGMENTS + 1)]
        grippy = shapes.GRASPED_ONLY
        shapes.box(body, "ring_foot", FOOT_M, [0.0, 0.0, FOOT_M[2]], _DARK, TURN_RAD, mass=0.05, **grippy)
        for i, (start, end) in enumerate(itertools.pairwise(around)):
            shapes.rod(body, f"ring_{i}", TUBE_M, start, end, _LILAC if i % 2 else _PURPLE, mass=0.004, **grippy)
        shapes.bumpers(body, [*shapes.ring_of_points(0.024, shapes.BUMPER_M, 4), *around[:-1:2]])

    def grip(self, hand: ImperfectOperator) -> Grip:
        position, quaternion = hand.view.objects["ring"]
        yaw = yaw_of(quaternion) + TURN_RAD
        return Grip(position + np.array([0.0, 0.0, TOP_M - GRIP_DEPTH_M]), yaw,
                    beside_m=0.065 * np.array([math.cos(yaw), math.sin(yaw), 0.0]) + np.array([0.0, 0.0, 0.01]))


TASK = Ring()
