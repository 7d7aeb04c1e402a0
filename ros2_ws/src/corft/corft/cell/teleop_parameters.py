"""The scripted operator's parameters. Light to import: launch files read them too."""

from __future__ import annotations

from corft.node_parameters import CONTRACT, Param
from corft_core.cell.habits import Habits
from corft_core.cell.scene import DEFAULT_TASK, SPLITS
from corft_core.cell.tasks import TASKS

TELEOP_PARAMETERS = (
    CONTRACT,
    Param("episodes", 1, "Successful demonstrations to make.", range=(1, 100_000)),
    Param("task", DEFAULT_TASK, "The cell's task; the cell must have the same.", choices=TASKS),
    Param("split", "demo", "Family of scenes.", choices=SPLITS),
    Param("first_index", 0, "Number of the first scene.", range=(0, 1_000_000_000)),
    Param("seed", 0, "Seed of the operator's imperfections.", range=(0, 1_000_000)),
    Param("speed_min", Habits().speed[0], "Slowest speed factor of an episode.", range=(0.05, 2.0)),
    Param("speed_max", Habits().speed[1], "Fastest speed factor of an episode.", range=(0.05, 2.0)),
    Param("time_limit_s", 40.0, "An episode that takes longer in simulated time is a failure.",
          range=(1.0, 600.0)),
    Param("exit_when_done", True, "End the process after the last episode."),
    Param("wait_for_recorder", False, "Start only when somebody else listens to events, commands and images."),
    Param("operator_id", "scripted", "Who the events say has demonstrated."),
)
