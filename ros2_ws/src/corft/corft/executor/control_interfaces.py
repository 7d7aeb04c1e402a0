"""control_msgs, which comes with ros2_control and is needed only where a controller is spoken to by an action."""

from __future__ import annotations

import importlib
from typing import Any

from corft_core.errors import CorftError


def control_type(kind: str, name: str, parameter: str) -> Any:
    """The class `control_msgs/<kind>/<name>`. CorftError that names the ``parameter`` which asked for it."""
    found = optional_control_type(kind, name)
    if found is None:
        raise CorftError(f"{parameter} needs control_msgs/{kind}/{name}, which is not installed here: install "
                         f"ros-$ROS_DISTRO-control-msgs, or set {parameter.split(':=')[0]}:=topic")
    return found


def optional_control_type(kind: str, name: str) -> Any | None:
    """The same, None where control_msgs or this type of it is not installed."""
    try:
        return getattr(importlib.import_module(f"control_msgs.{kind}"), name, None)
    except ImportError:
        return None
