"""Actions that this project's launch files use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ._core import (
    Action,
    Entity,
    LaunchContext,
    SomeSubstitutionsType,
    SubstitutionFailure,
    is_substitution,
    module_getattr,
    normalize,
    perform,
    refuse,
)
from ._process import ExecuteProcess
from .event_handlers import EventHandler
from .events import Shutdown as ShutdownEvent
from .launch_description_sources import LaunchDescriptionSource, PythonLaunchDescriptionSource

__all__ = [
    "AppendEnvironmentVariable", "DeclareLaunchArgument", "EmitEvent", "ExecuteProcess", "GroupAction",
    "IncludeLaunchDescription", "LogInfo", "OpaqueFunction", "RegisterEventHandler", "SetEnvironmentVariable",
    "SetLaunchConfiguration", "Shutdown", "TimerAction", "UnsetEnvironmentVariable",
]  # fmt: skip
__getattr__ = module_getattr(__name__)


class DeclareLaunchArgument(Action):
    """An argument of the launch file; without a default value it must be given."""

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str | None = None,
        choices: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.name = name
        self.default_value = None if default_value is None else normalize(default_value)
        self.choices = None if choices is None else list(choices)
        self.description = description if description is not None else "no description given"
        if self.choices is not None:
            if not self.choices:
                raise ValueError(f"'choices' of launch argument '{name}' must not be empty")
            self.description = self.description.removesuffix(".") + f". Valid choices are: {self.choices}"

    def execute(self, context: LaunchContext) -> None:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(
                    f"Required launch argument '{self.name}' (description: '{self.description}') was not provided"
                )
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(
                f"Argument '{self.name}' provided value '{value}' is not valid. Valid options are: {self.choices}"
            )


class IncludeLaunchDescription(Action):
    """Run another launch file; its arguments stay set afterwards, as in the real one (group to prevent it)."""

    def __init__(
        self,
        launch_description_source: LaunchDescriptionSource | SomeSubstitutionsType,
        *,
        launch_arguments: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(launch_description_source, LaunchDescriptionSource):
            self.source = launch_description_source
        else:
            self.source = PythonLaunchDescriptionSource(launch_description_source)
        self.launch_arguments = list(launch_arguments or [])

    def execute(self, context: LaunchContext) -> Sequence[Entity]:
        description = self.source.get_launch_description(context)
        previous, context.launch_file_folder = context.launch_file_folder, os.path.dirname(self.source.location)
        given = [(perform(context, name), perform(context, value)) for name, value in self.launch_arguments]
        context.launch_configurations.update(given)

        def restore(inner: LaunchContext) -> None:
            inner.launch_file_folder = previous

        return [description, OpaqueFunction(function=restore)]

    def describe_sub_entities(self) -> Sequence[Entity]:
        try:
            return [self.source.get_launch_description(LaunchContext())]
        except (SubstitutionFailure, LookupError):
            return []  # its path depends on arguments: its own arguments cannot be listed


class SetLaunchConfiguration(Action):
    """Set the value that LaunchConfiguration reads."""

    def __init__(self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.value = normalize(name), normalize(value)

    def execute(self, context: LaunchContext) -> None:
        context.launch_configurations[perform(context, self.name)] = perform(context, self.value)


class SetEnvironmentVariable(Action):
    """Set an environment variable of the processes that start after it in this scope."""

    def __init__(self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.value = normalize(name), normalize(value)

    def execute(self, context: LaunchContext) -> None:
        context.environment[perform(context, self.name)] = perform(context, self.value)


class AppendEnvironmentVariable(SetEnvironmentVariable):
    """Append to an environment variable, with the path separator."""

    def execute(self, context: LaunchContext) -> None:
        name = perform(context, self.name)
        before = context.environment.get(name)
        value = perform(context, self.value)
        context.environment[name] = value if not before else before + os.pathsep + value


class UnsetEnvironmentVariable(Action):
    """Remove an environment variable."""

    def __init__(self, name: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        self.name = normalize(name)

    def execute(self, context: LaunchContext) -> None:
        context.environment.pop(perform(context, self.name), None)


class OpaqueFunction(Action):
    """Call a Python function with the context; it may return entities."""

    def __init__(
        self,
        *,
        function: Callable[..., Sequence[Entity] | None],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.function, self.args, self.kwargs = function, tuple(args or ()), dict(kwargs or {})

    def execute(self, context: LaunchContext) -> Sequence[Entity] | None:
        return self.function(context, *self.args, **self.kwargs)


class GroupAction(Action):
    """Several actions with configurations and environment of their own (unless scoped=False)."""

    def __init__(
        self,
        actions: Iterable[Action],
        *,
        scoped: bool = True,
        forwarding: bool = True,
        launch_configurations: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not forwarding:
            refuse("the option 'forwarding=False' of GroupAction")
        self.actions, self.scoped = list(actions), scoped
        self.launch_configurations = dict(launch_configurations or {})

    def execute(self, context: LaunchContext) -> Sequence[Entity]:
        sets: list[Entity] = [SetLaunchConfiguration(k, v) for k, v in self.launch_configurations.items()]
        if not self.scoped:
            return [*sets, *self.actions]
        push = OpaqueFunction(function=lambda inner: inner.push())
        pop = OpaqueFunction(function=lambda inner: inner.pop())
        return [push, *sets, *self.actions, pop]

    def describe_sub_entities(self) -> Sequence[Entity]:
        return self.actions


class TimerAction(Action):
    """Run actions after a period of wall time in seconds; a shutdown cancels it."""

    def __init__(self, *, period: float | SomeSubstitutionsType, actions: Iterable[Entity], **options: Any) -> None:
        super().__init__(**options)
        self.period = normalize(str(period) if isinstance(period, (int, float)) else period)
        self.actions = list(actions)

    def execute(self, context: LaunchContext) -> None:
        async def fire(period_s: float) -> None:
            await asyncio.sleep(period_s)
            context.run().visit(self.actions)

        context.run().spawn(fire(float(perform(context, self.period))), timer=True)

    def describe_sub_entities(self) -> Sequence[Entity]:
        return self.actions


class RegisterEventHandler(Action):
    """React to an event from now on."""

    def __init__(self, event_handler: EventHandler, **options: Any) -> None:
        super().__init__(**options)
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        context.run().handlers.append(self.event_handler)


class EmitEvent(Action):
    """Emit an event; only Shutdown is supported."""

    def __init__(self, *, event: ShutdownEvent, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(event, ShutdownEvent):
            refuse(f"the event {type(event).__name__}")
        self.event = event

    def execute(self, context: LaunchContext) -> None:
        context.run().emit(self.event)


class Shutdown(EmitEvent):
    """Stop everything."""

    def __init__(self, *, reason: str = "reason not given", **options: Any) -> None:
        super().__init__(event=ShutdownEvent(reason=reason), **options)


class LogInfo(Action):
    """Print a line."""

    def __init__(self, *, msg: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        if not is_substitution(msg) and not isinstance(msg, (str, list, tuple)):
            raise TypeError(f"LogInfo expects text or substitutions, got {msg!r}")
        self.msg = normalize(msg)

    def execute(self, context: LaunchContext) -> None:
        context.run().output.say("INFO", "launch.user", perform(context, self.msg))
