"""Motion planning: one interface, an embedded back end and MoveIt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corft_core.contract import Contract
from corft_core.planning.description import RobotDescription, resolve_description
from corft_core.planning.interface import (
    Box,
    Cylinder,
    Mesh,
    MotionPlanner,
    PlanningError,
    SceneObject,
)
from corft_core.planning.scene import load_scene, pose_matrix

__all__ = ["Box", "Cylinder", "Mesh", "MotionPlanner", "PlanningError", "RobotDescription", "SceneObject",
           "load_scene", "make_planner", "pose_matrix", "resolve_description"]

PLANNERS = ("embedded", "moveit")


def make_planner(kind: str, contract: Contract, scene: Sequence[SceneObject] | str | Path | None = None,
                 **options: Any) -> MotionPlanner:
    """The planner ``embedded`` or ``moveit`` for a contract's robot.

    ``scene``: objects, or the path of a scene file. ``options`` go to :class:`embedded.EmbeddedPlanner` or
    :class:`moveit.MoveItPlanner`. Raises PlanningError, also when the planner's libraries aren't installed.
    """
    objects = load_scene(scene, contract.robot.base_frame) if isinstance(scene, (str, Path)) else list(scene or ())
    if kind == "embedded":
        try:
            from corft_core.planning.embedded import EmbeddedPlanner
        except ImportError as error:
            raise PlanningError(f"the embedded planner lacks a library ({error}): pip install pin ompl toppra ruckig. "
                                "A Pinocchio of the ROS installation on PYTHONPATH can hide the wheel.") from error
        return EmbeddedPlanner(contract, scene=objects, **options)
    if kind == "moveit":
        from corft_core.planning.moveit import MoveItPlanner

        return MoveItPlanner(contract, scene=objects, **options)
    raise PlanningError(f"no planner {kind!r}; choose one of {', '.join(PLANNERS)}")
