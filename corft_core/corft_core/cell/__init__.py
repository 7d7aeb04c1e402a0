"""The MuJoCo work cell: a Panda, two cameras, a task's objects, and a scripted teleoperator with human faults.

Names load on first use, so that scenes and controller work where MuJoCo is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corft_core.cell.controller import JointTrajectoryController, TrajectoryRejected
    from corft_core.cell.demonstrations import demonstrate, record_episode
    from corft_core.cell.habits import STEADY, Habits
    from corft_core.cell.scene import Scene, make_scene
    from corft_core.cell.simulation import Cell
    from corft_core.cell.teleoperator import ImperfectOperator

__all__ = ["STEADY", "Cell", "Habits", "ImperfectOperator", "JointTrajectoryController", "Scene", "TrajectoryRejected",
           "demonstrate", "make_scene", "record_episode"]

_HOMES = {"Cell": "simulation", "STEADY": "habits", "Habits": "habits", "ImperfectOperator": "teleoperator",
          "JointTrajectoryController": "controller", "TrajectoryRejected": "controller", "Scene": "scene",
          "make_scene": "scene", "demonstrate": "demonstrations", "record_episode": "demonstrations"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
