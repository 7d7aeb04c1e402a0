"""The cell's tasks. A module a task, named like it, with the task object ``TASK``; loaded on first use."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from corft_core.cell.tasks.base import Task
from corft_core.errors import CorftError

LIFT_TASKS = ("cup", "bottle", "ring", "scanner", "cube", "shelf")
"""The suite's tasks, in the order of the reports."""
TASKS = ("cube_to_bin", *LIFT_TASKS)

__all__ = ["LIFT_TASKS", "TASKS", "Task", "get_task"]


@cache
def get_task(name: str) -> Task:
    """The task of a name. Raises CorftError that lists the names."""
    if name not in TASKS:
        raise CorftError(f"no task {name!r} in the cell, it has {', '.join(TASKS)}")
    return import_module(f"{__name__}.{name}").TASK
