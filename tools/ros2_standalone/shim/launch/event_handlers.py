"""Event handlers that this project's launch files register."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ._core import Entity, LaunchContext, module_getattr, refuse_options
from .events import ProcessExited, ProcessStarted, Shutdown

__all__ = ["OnProcessExit", "OnProcessStart", "OnShutdown"]
__getattr__ = module_getattr(__name__)


def entities_of(reaction: Any, event: Any, context: LaunchContext) -> Sequence[Entity]:
    """Entities of a reaction: an entity, several, or a callable (event, context) that returns either."""
    if reaction is None:
        return []
    if isinstance(reaction, Entity):
        return [reaction]
    if callable(reaction):
        return entities_of(reaction(event, context), event, context)
    if isinstance(reaction, Iterable):
        return list(reaction)
    raise TypeError(f"expected actions or a function that returns actions, got {reaction!r}")


class EventHandler:
    """Reacts to one kind of event."""

    event_type: Any = None

    def __init__(self, reaction: Any, target: Any = None) -> None:
        self.reaction, self.target = reaction, target

    def matches(self, event: Any) -> bool:
        """True where this handler reacts to the event."""
        if not isinstance(event, self.event_type):
            return False
        if self.target is None:
            return True
        return bool(self.target(event.action)) if not isinstance(self.target, Entity) else event.action is self.target

    def handle(self, event: Any, context: LaunchContext) -> Sequence[Entity]:
        """Entities to visit."""
        return entities_of(self.reaction, event, context)


class OnProcessExit(EventHandler):
    """A process (any, or `target_action`) ended."""

    event_type = ProcessExited

    def __init__(self, *, target_action: Any = None, on_exit: Any, **options: Any) -> None:
        refuse_options("OnProcessExit", options)
        super().__init__(on_exit, target_action)


class OnProcessStart(EventHandler):
    """A process (any, or `target_action`) started."""

    event_type = ProcessStarted

    def __init__(self, *, target_action: Any = None, on_start: Any, **options: Any) -> None:
        refuse_options("OnProcessStart", options)
        super().__init__(on_start, target_action)


class OnShutdown(EventHandler):
    """The launch is being stopped."""

    event_type = Shutdown

    def __init__(self, *, on_shutdown: Callable[[Shutdown, LaunchContext], Any] | Any, **options: Any) -> None:
        refuse_options("OnShutdown", options)
        super().__init__(on_shutdown)
