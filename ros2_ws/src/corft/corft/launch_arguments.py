"""Launch arguments that stand for node parameters: default, choices and meaning are the parameter's own.

For the launch files only, and without importing launch: what is returned fits `DeclareLaunchArgument(name, **…)` and
`ParameterValue(…, value_type=…)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from corft.node_parameters import Param

NAMESPACE = Param("namespace", "", "Namespace of all nodes, one a robot or cell.")
USE_SIM_TIME = Param("use_sim_time", False, "Take the time from /clock: true with a simulated cell.")
LOG_LEVEL = Param("log_level", "info", "How much is logged.", choices=("debug", "info", "warn", "error"))

LARGEST_SHOWN = 10_000  # bounds beyond only keep typing errors out


def chosen(table: Iterable[Param], *names: str) -> list[Param]:
    """The rows of a parameter table with these names, in this order; KeyError when one is missing."""
    rows = {row.name: row for row in table}
    return [rows[name] for name in names]


def argument(row: Param, default: Any = None) -> dict[str, Any]:
    """Options of DeclareLaunchArgument for a parameter, with another ``default`` where one is given."""
    value = row.default if default is None else default
    options: dict[str, Any] = {"default_value": value, "description": _meaning(row)}
    if isinstance(value, (bool, int, float, str)):
        options["default_value"] = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(row.default, bool):
        options["choices"] = ["true", "false"]
    elif row.choices:
        options["choices"] = list(row.choices)
    return options


def value_type(row: Param) -> type:
    """The type that a parameter's value must have: text such as `1` or an empty one would be guessed wrong."""
    return type(row.default)


def _meaning(row: Param) -> str:
    if row.range is None or row.range[1] > LARGEST_SHOWN:
        return row.description
    return f"{row.description.removesuffix('.')} ({row.range[0]:g} to {row.range[1]:g})."
