"""Stand-in for the ROS 2 package `launch`, on the path only inside `ros2 launch` of tools/ros2_standalone."""

from . import (
    actions,
    conditions,
    event_handlers,
    events,
    launch_description_sources,
    some_substitutions_type,
    substitutions,
)
from ._core import (
    Action,
    Condition,
    LaunchContext,
    LaunchDescription,
    SomeSubstitutionsType,
    Substitution,
    module_getattr,
)
from ._core import Entity as LaunchDescriptionEntity
from ._service import LaunchService
from .event_handlers import EventHandler
from .launch_description_sources import LaunchDescriptionSource

__all__ = [
    "Action", "Condition", "EventHandler", "LaunchContext", "LaunchDescription", "LaunchDescriptionEntity",
    "LaunchDescriptionSource", "LaunchService", "SomeSubstitutionsType", "Substitution", "actions", "conditions",
    "event_handlers", "events", "launch_description_sources", "some_substitutions_type", "substitutions",
]  # fmt: skip
__getattr__ = module_getattr(__name__)
