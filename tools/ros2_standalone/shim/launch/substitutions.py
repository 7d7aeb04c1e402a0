"""Substitutions that this project's launch files use."""

from __future__ import annotations

import importlib
import math
import os
import shutil
from collections.abc import Sequence
from typing import Any

from ._core import (
    LaunchContext,
    SomeSubstitutionsType,
    Substitution,
    SubstitutionFailure,
    TextSubstitution,
    module_getattr,
    normalize,
    perform,
    truth,
)

__all__ = [
    "AndSubstitution", "EnvironmentVariable", "EqualsSubstitution", "FindExecutable", "IfElseSubstitution",
    "LaunchConfiguration", "NotEqualsSubstitution", "NotSubstitution", "OrSubstitution", "PathJoinSubstitution",
    "PythonExpression", "SubstitutionFailure", "TextSubstitution", "ThisLaunchFileDir",
]  # fmt: skip
__getattr__ = module_getattr(__name__)


def _value(text: str) -> Any:
    """Text as bool or number where it reads as one, for comparisons."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return float(lowered)
    except ValueError:
        return text


class LaunchConfiguration(Substitution):
    """Value of a launch argument."""

    def __init__(self, variable_name: SomeSubstitutionsType, *, default: SomeSubstitutionsType | None = None) -> None:
        self.variable_name = normalize(variable_name)
        self.default = (
            None if default is None else normalize(str(default) if isinstance(default, (int, float)) else default)
        )

    def perform(self, context: LaunchContext) -> str:
        name = perform(context, self.variable_name)
        if name in context.launch_configurations:
            return str(context.launch_configurations[name])
        if self.default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform(context, self.default)

    def describe(self) -> str:
        return "LaunchConfig(" + " + ".join(part.describe() for part in self.variable_name) + ")"


class EnvironmentVariable(Substitution):
    """Value of an environment variable."""

    def __init__(self, name: SomeSubstitutionsType, *, default_value: SomeSubstitutionsType | None = None) -> None:
        self.name = normalize(name)
        self.default_value = None if default_value is None else normalize(default_value)

    def perform(self, context: LaunchContext) -> str:
        name = perform(context, self.name)
        if name in context.environment:
            return context.environment[name]
        if self.default_value is None:
            raise SubstitutionFailure(f"environment variable '{name}' does not exist")
        return perform(context, self.default_value)

    def describe(self) -> str:
        return "EnvVar(" + " + ".join(part.describe() for part in self.name) + ")"


class PathJoinSubstitution(Substitution):
    """Parts joined by the path separator."""

    def __init__(self, substitutions: Sequence[SomeSubstitutionsType]) -> None:
        self.parts = [normalize(part) for part in substitutions]

    def perform(self, context: LaunchContext) -> str:
        return os.path.join(*[perform(context, part) for part in self.parts])

    def describe(self) -> str:
        return "PathJoin(" + ", ".join(part.describe() for parts in self.parts for part in parts) + ")"


class PythonExpression(Substitution):
    """Value of a Python expression, with the names of `math` (or of `python_modules`) at hand."""

    def __init__(self, expression: SomeSubstitutionsType, python_modules: Sequence[str] = ("math",)) -> None:
        self.expression = normalize(expression)
        self.modules = tuple(python_modules)

    def perform(self, context: LaunchContext) -> str:
        names: dict[str, Any] = {name: importlib.import_module(name) for name in self.modules}
        if "math" in names:
            names.update(vars(math))
        return str(eval(perform(context, self.expression), {}, names))

    def describe(self) -> str:
        return "PythonExpr(" + " + ".join(part.describe() for part in self.expression) + ")"


class _Logical(Substitution):
    """Base of the substitutions that yield 'true' or 'false'."""

    def holds(self, context: LaunchContext) -> bool:
        raise NotImplementedError

    def perform(self, context: LaunchContext) -> str:
        return "true" if self.holds(context) else "false"


class _Pair(_Logical):
    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        self.left, self.right = (normalize(_text(side)) for side in (left, right))

    def describe(self) -> str:
        sides = (" + ".join(part.describe() for part in side) for side in (self.left, self.right))
        return f"{type(self).__name__}({', '.join(sides)})"


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (bool, int, float)) else value


class EqualsSubstitution(_Pair):
    """Equal as text, as bools or as numbers."""

    def holds(self, context: LaunchContext) -> bool:
        left, right = perform(context, self.left), perform(context, self.right)
        a, b = _value(left), _value(right)
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b)
        return left == right or (isinstance(a, bool) and a == b)


class NotEqualsSubstitution(EqualsSubstitution):
    """The opposite of EqualsSubstitution."""

    def holds(self, context: LaunchContext) -> bool:
        return not super().holds(context)


class AndSubstitution(_Pair):
    """Both are true."""

    def holds(self, context: LaunchContext) -> bool:
        return truth(perform(context, self.left)) and truth(perform(context, self.right))


class OrSubstitution(_Pair):
    """At least one is true."""

    def holds(self, context: LaunchContext) -> bool:
        return truth(perform(context, self.left)) or truth(perform(context, self.right))


class NotSubstitution(_Logical):
    """The opposite."""

    def __init__(self, value: SomeSubstitutionsType) -> None:
        self.value = normalize(_text(value))

    def holds(self, context: LaunchContext) -> bool:
        return not truth(perform(context, self.value))


class IfElseSubstitution(Substitution):
    """One of two values, by a condition."""

    def __init__(
        self,
        condition: SomeSubstitutionsType,
        if_value: SomeSubstitutionsType = "",
        else_value: SomeSubstitutionsType = "",
    ) -> None:
        self.condition, self.if_value, self.else_value = (normalize(v) for v in (condition, if_value, else_value))

    def perform(self, context: LaunchContext) -> str:
        return perform(context, self.if_value if truth(perform(context, self.condition)) else self.else_value)


class ThisLaunchFileDir(Substitution):
    """Folder of the launch file that is being run."""

    def perform(self, context: LaunchContext) -> str:
        if context.launch_file_folder is None:
            raise SubstitutionFailure("ThisLaunchFileDir used outside of a launch file (in a script)")
        return context.launch_file_folder

    def describe(self) -> str:
        return "ThisLaunchFileDir()"


class FindExecutable(Substitution):
    """Path of a program on the PATH."""

    def __init__(self, *, name: SomeSubstitutionsType) -> None:
        self.name = normalize(name)

    def perform(self, context: LaunchContext) -> str:
        name = perform(context, self.name)
        path = shutil.which(name, path=context.environment.get("PATH"))
        if path is None:
            raise SubstitutionFailure(f"executable '{name}' not found on the PATH")
        return path
