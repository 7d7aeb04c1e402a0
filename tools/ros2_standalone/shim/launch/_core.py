"""What everything in this stand-in for `launch` rests on: substitutions, conditions, actions, the context.

The behaviour follows the documentation of the real package (https://docs.ros.org, package `launch`).
Only what this project's launch files use is here; everything else is refused by `refuse`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ._service import LaunchService

SomeSubstitutionsType = Any  # str, Substitution, or a sequence of both


class SubstitutionFailure(RuntimeError):
    """A substitution has no value in this context."""


class InvalidConditionExpressionError(RuntimeError):
    """A condition is neither true/1 nor false/0."""


def refuse(what: str) -> NoReturn:
    """Raise ImportError for a name or option that only the real packages have."""
    raise ImportError(
        f"{what} needs a ROS 2 installation: tools/ros2_standalone offers only the part of launch and "
        "launch_ros that this project's launch files use"
    )


def refuse_options(owner: str, options: dict[str, Any]) -> None:
    """Refuse keyword arguments that the stand-in does not implement."""
    for name in options:
        refuse(f"the option '{name}' of {owner}")


def module_getattr(module: str) -> Callable[[str], Any]:
    """`__getattr__` for a shim module: private names are missing, public ones refused with the reason."""

    def missing(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        refuse(f"{module}.{name}")

    return missing


class Substitution:
    """A value known only when the launch file runs."""

    def perform(self, context: LaunchContext) -> str:
        raise NotImplementedError

    def describe(self) -> str:
        return f"{type(self).__name__}()"


class TextSubstitution(Substitution):
    """Plain text."""

    def __init__(self, *, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"TextSubstitution expects text of type str, not {type(text).__name__}")
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        return self.text

    def describe(self) -> str:
        return f"'{self.text}'"


def normalize(value: SomeSubstitutionsType) -> list[Substitution]:
    """Text, a substitution, a path, or a sequence of those → list of substitutions (to be concatenated)."""
    if isinstance(value, Substitution):
        return [value]
    if isinstance(value, (str, os.PathLike)):
        return [TextSubstitution(text=os.fspath(value))]
    if isinstance(value, Iterable):
        return [part for item in value for part in normalize(item)]
    raise TypeError(f"expected text or a substitution, got {value!r} ({type(value).__name__})")


def perform(context: LaunchContext, value: SomeSubstitutionsType) -> str:
    """Concatenated value of text and substitutions."""
    return "".join(part.perform(context) for part in normalize(value))


def is_substitution(value: Any) -> bool:
    """True for a substitution, or a non-empty sequence of text with at least one substitution."""
    if isinstance(value, Substitution):
        return True
    if isinstance(value, (list, tuple)):
        return any(is_substitution(v) for v in value) and all(isinstance(v, str) or is_substitution(v) for v in value)
    return False


def truth(expression: str) -> bool:
    """Value of a condition's text; raises InvalidConditionExpressionError."""
    text = expression.strip().lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise InvalidConditionExpressionError(
        f"invalid condition expression, expected one of ['true', '1'] or ['false', '0'], got '{expression}'"
    )


class Condition:
    """Decides whether an action runs."""

    def evaluate(self, context: LaunchContext) -> bool:
        raise NotImplementedError


class Entity:
    """What a launch description holds."""

    def visit(self, context: LaunchContext) -> Sequence[Entity] | None:
        raise NotImplementedError

    def describe_sub_entities(self) -> Sequence[Entity]:
        """Entities to search for launch arguments without running anything."""
        return []


class Action(Entity):
    """An entity that does something, if its condition holds."""

    def __init__(self, *, condition: Condition | None = None, **options: Any) -> None:
        refuse_options(type(self).__name__, options)
        self.condition = condition

    def visit(self, context: LaunchContext) -> Sequence[Entity] | None:
        if self.condition is None or self.condition.evaluate(context):
            return self.execute(context)
        return None

    def execute(self, context: LaunchContext) -> Sequence[Entity] | None:
        raise NotImplementedError


class LaunchDescription(Entity):
    """The list of entities that `generate_launch_description` returns."""

    def __init__(self, initial_entities: Iterable[Entity] | None = None, **options: Any) -> None:
        refuse_options("LaunchDescription", options)
        self.entities: list[Entity] = list(initial_entities or [])

    def add_action(self, action: Entity) -> None:
        """Append one action."""
        self.entities.append(action)

    def add_entity(self, entity: Entity) -> None:
        """Append one entity."""
        self.entities.append(entity)

    def visit(self, context: LaunchContext) -> Sequence[Entity] | None:
        return self.entities

    def describe_sub_entities(self) -> Sequence[Entity]:
        return self.entities


class LaunchContext:
    """Launch configurations, environment and registered handlers of one launch."""

    def __init__(self, *, argv: Iterable[str] | None = None, noninteractive: bool = False) -> None:
        self.argv = list(argv or [])
        self.noninteractive = noninteractive
        self.launch_configurations: dict[str, Any] = {}
        self.environment: dict[str, str] = dict(os.environ)
        self.launch_file_folder: str | None = None
        self.is_shutdown = False
        self.service: LaunchService | None = None
        self._stack: list[tuple[dict[str, Any], dict[str, str]]] = []

    def perform_substitution(self, substitution: Substitution) -> str:
        """Value of one substitution."""
        return substitution.perform(self)

    def push(self) -> None:
        """Start a scope: configurations and environment are restored by `pop`."""
        self._stack.append((dict(self.launch_configurations), dict(self.environment)))

    def pop(self) -> None:
        """End the innermost scope."""
        self.launch_configurations, self.environment = self._stack.pop()

    def run(self) -> LaunchService:
        """The running service; raises RuntimeError outside one."""
        if self.service is None:
            raise RuntimeError("this action can only run inside a launch service")
        return self.service


def visit_all(entity: Entity, context: LaunchContext) -> None:
    """Visit an entity and everything that it yields, depth first, in order."""
    for child in entity.visit(context) or []:
        visit_all(child, context)
