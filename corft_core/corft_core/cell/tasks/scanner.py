"""Pick up a hand scanner by its handle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.cell.tasks.lift import Grip, LiftTask, yaw_of

if TYPE_CHECKING:
    from corft_core.cell.teleoperator import ImperfectOperator

# Half lengths of the boxes: the handle lies along x, the head across it, too wide for the gripper.
HANDLE_HALF_M, HEAD_HALF_M = (0.058, 0.014, 0.013), (0.020, 0.046, 0.017)
HEAD_X_M, GRIP_X_M, GRIP_M = 0.075, -0.008, 0.014

_ORANGE, _BLACK, _GLASS = (0.93, 0.40, 0.05, 1.0), (0.10, 0.11, 0.13, 1.0), (0.45, 0.75, 0.95, 1.0)


class Scanner(LiftTask):
    """A handle with a wide head at its end, lying on the table; its origin is the middle of the handle's underside.

    It lies turned by up to 0.4 rad, and the fingers must close across the handle, so the tool turns with it.
    """

    name = "scanner"
    instruction = "pick up the scanner by its handle"
    target = "scanner"
    bodies = ("scanner",)
    yaw_rad = 0.4
    # Its long handle is held in spite of many a wrong aim.
    faulty_habits = replace(LiftTask.faulty_habits, give_up=0.85)

    def add_objects(self, spec: Any) -> None:
        from corft_core.cell import shapes

        body = shapes.free_body(spec, "scanner")
        grippy = shapes.GRIPPY
        # A battery in the handle: the scanner balances where it is held.
        shapes.box(body, "scanner_handle", HANDLE_HALF_M, [0.0, 0.0, HANDLE_HALF_M[2]], _ORANGE, mass=0.10, **grippy)
        shapes.box(body, "scanner_head", HEAD_HALF_M, [HEAD_X_M, 0.0, HEAD_HALF_M[2]], _BLACK, mass=0.02, **grippy)
        shapes.box(body, "scanner_window", [0.004, 0.034, 0.010], [HEAD_X_M + HEAD_HALF_M[0], 0.0, HEAD_HALF_M[2]],
                   _GLASS, mass=0.001)

    def grip(self, hand: ImperfectOperator) -> Grip:
        position, quaternion = hand.view.objects["scanner"]
        yaw = yaw_of(quaternion)
        along = np.array([math.cos(yaw), math.sin(yaw), 0.0])
        return Grip(position + GRIP_X_M * along + np.array([0.0, 0.0, GRIP_M]), yaw_rad=yaw,
                    beside_m=np.array([0.0, 0.07, 0.01]))


TASK = Scanner()
