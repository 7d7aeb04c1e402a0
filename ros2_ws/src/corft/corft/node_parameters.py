"""A node's parameters as a table: type, default, description and range in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


@dataclass(frozen=True)
class Param:
    """One row of a node's parameter table.

    `default` fixes the type; a list of strings that is empty by default is written `[""]`, since ROS cannot
    tell the type of an empty list. `range` is inclusive and for numbers, `choices` for strings.
    A float parameter takes a whole number as well (`speed_scale:=1`).
    """

    name: str
    default: bool | int | float | str | Sequence[str] | Sequence[float]
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """The rcl descriptor: text, range and constraints, as `ros2 param describe` shows them."""
        message = ParameterDescriptor(name=self.name, description=self.description, read_only=self.read_only)
        if self.choices:
            message.additional_constraints = "one of: " + ", ".join(self.choices)
        if isinstance(self.default, float):
            message.dynamic_typing = True
            if self.range is not None:
                message.floating_point_range = [
                    FloatingPointRange(from_value=float(self.range[0]), to_value=float(self.range[1]))]
        elif self.range is not None:
            message.integer_range = [
                IntegerRange(from_value=int(self.range[0]), to_value=int(self.range[1]), step=1)]
        return message

    def problem(self, value: Any) -> str | None:
        """Why `value` is refused, or None when it is fine."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else f"expected true or false, seen {value!r}"
        if isinstance(self.default, float):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return f"expected a number, seen {value!r}"
            if not math.isfinite(value):
                return f"expected a finite number, seen {value!r}"
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            return f"expected a value between {self.range[0]:g} and {self.range[1]:g}, seen {value!r}"
        if self.choices and value not in self.choices:
            return f"expected one of {', '.join(self.choices)}, seen {value!r}"
        return None


CONTRACT = Param("contract", "", "Path of the robot's contract (YAML): topics, joints, cameras, limits.")
