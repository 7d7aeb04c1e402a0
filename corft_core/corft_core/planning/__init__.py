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
    Sphere,
    Triangles,
)
from corft_core.planning.scene import load_scene, pose_matrix

__all__ = ["Box", "Cylinder", "Mesh", "MotionPlanner", "PlanningError", "RobotDescription", "SceneObject", "Sphere",
           "Triangles", "build_planner", "load_scene", "make_planner", "pose_matrix", "read_scene",
           "resolve_description"]

PLANNERS = ("embedded", "moveit")


def make_planner(kind: str, contract: Contract, scene: Sequence[SceneObject] | str | Path | None = None,
                 **options: Any) -> MotionPlanner:
    """The planner ``embedded``, in this process, or ``moveit``, in a process of its own, for a contract's robot.

    ``scene``: objects, or the path of a scene file, corft's or MoveIt's ``.scene``. ``options`` go to
    :class:`embedded.EmbeddedPlanner` or :class:`moveit.MoveItPlanner`; the latter needs ``config``, the folder of
    MoveIt's YAML files, by default ``moveit`` beside the scene file. Close the planner when done. Raises PlanningError,
    also when the planner's libraries aren't installed.
    """
    objects = read_scene(scene, contract) if isinstance(scene, (str, Path)) else list(scene or ())
    if kind == "moveit":
        from corft_core.planning.moveit import require_moveit
        from corft_core.planning.process import ProcessPlanner

        require_moveit()
        if isinstance(scene, (str, Path)):
            options.setdefault("config", Path(scene).parent / "moveit")
        if "config" not in options:
            raise PlanningError("planner moveit needs config, the folder with MoveIt's YAML files, for example "
                                "config/panda_cell/moveit; by default it is the folder moveit beside the scene file")
        return ProcessPlanner(kind, contract, objects, **options)
    return build_planner(kind, contract, objects, options)


def read_scene(path: str | Path, contract: Contract) -> list[SceneObject]:
    """The objects of a scene file, corft's or MoveIt's ``.scene``. Raises PlanningError."""
    if Path(path).suffix == ".scene":   # in MoveIt's planning frame
        return load_scene(path, contract.robot.base_frame,
                          resolve_description(contract.robot.description).fixed_pose(contract.robot.base_frame))
    return load_scene(path, contract.robot.base_frame)


def build_planner(kind: str, contract: Contract, objects: Sequence[SceneObject],
                  options: dict[str, Any]) -> MotionPlanner:
    """The planner itself, in this process whatever its kind. Raises PlanningError."""
    if kind not in PLANNERS:
        raise PlanningError(f"no planner {kind!r}; choose one of {', '.join(PLANNERS)}")
    try:
        if kind == "moveit":
            from corft_core.planning.moveit import MoveItPlanner

            return MoveItPlanner(contract, scene=objects, **options)
        from corft_core.planning.embedded import EmbeddedPlanner

        return EmbeddedPlanner(contract, scene=objects, **options)
    except ImportError as error:
        raise PlanningError(f"planner {kind} lacks a library ({error}). The embedded planner needs: pip install pin "
                            "ompl toppra ruckig. A Pinocchio of the ROS installation on PYTHONPATH can hide the "
                            "wheel.") from error
