"""Pinch a small cube between two blocks: the suite's precision task, a declared negative control."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.scene import Scene
from corft_core.cell.tasks.lift import Grip, LiftTask, yaw_of

if TYPE_CHECKING:
    from corft_core.cell.teleoperator import ImperfectOperator

CUBE_HALF_M, GRIP_M = 0.0125, 0.002
# The blocks' inner faces leave the open fingers, which reach out to about 5.3 cm, not a centimetre a side.
BLOCK_GAP_M, BLOCK_HALF_M, FOOT_M = 0.062, (0.026, 0.012, 0.022), 0.003

_RED, _GREY, _DARK = (0.84, 0.14, 0.12, 1.0), (0.62, 0.66, 0.72, 1.0), (0.30, 0.33, 0.38, 1.0)


class Cube(LiftTask):
    """A cube of 2.5 cm on the foot of a heavy rack; the rack's blocks stop a finger that comes down wrong."""

    name = "cube"
    instruction = "pinch the small cube"
    target = "cube"
    bodies = ("cube", "rack")
    yaw_rad = 0.2

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        rack = shapes.free_body(spec, "rack")
        foot = [BLOCK_HALF_M[0] + 0.003, BLOCK_GAP_M + 2 * BLOCK_HALF_M[1] + 0.003, FOOT_M / 2]
        shapes.box(rack, "rack_foot", foot, [0, 0, FOOT_M / 2], _DARK, mass=1.0)
        for i, side in enumerate((-1, 1)):
            shapes.box(rack, f"rack_block_{i}", BLOCK_HALF_M,
                       [0, side * (BLOCK_GAP_M + BLOCK_HALF_M[1]), FOOT_M + BLOCK_HALF_M[2]], _GREY, mass=2.0)
        cube = shapes.free_body(spec, "cube", FOOT_M + CUBE_HALF_M)
        shapes.box(cube, "cube", [CUBE_HALF_M] * 3, [0, 0, 0], _RED, mass=0.03, **shapes.GRIPPY)

    def make_scene(self, split: str, number: int) -> Scene:
        scene = super().make_scene(split, number)
        (_, place), = scene.places
        return replace(scene, places=(("cube", place), ("rack", place)))

    def grip(self, hand: ImperfectOperator) -> Grip:
        position, _ = hand.view.objects["cube"]
        _, rack_turn = hand.view.objects["rack"]  # it leaves one way in, however the cube has turned
        return Grip(position + np.array([0.0, 0.0, GRIP_M]), yaw_of(rack_turn), beside_m=np.array([0.055, 0.0, 0.01]))


TASK = Cube()
