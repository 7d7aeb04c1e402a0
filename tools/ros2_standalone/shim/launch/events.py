"""Events that this project's launch files emit or receive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._core import module_getattr

__all__ = ["ProcessExited", "ProcessStarted", "Shutdown"]
__getattr__ = module_getattr(__name__)


@dataclass(frozen=True)
class Shutdown:
    """Everything is to stop."""

    reason: str = "reason not given"
    due_to_sigint: bool = False


@dataclass(frozen=True)
class ProcessStarted:
    """A process runs."""

    action: Any
    process_name: str
    cmd: list[str]
    pid: int


@dataclass(frozen=True)
class ProcessExited:
    """A process is gone; `returncode` is negative when a signal ended it."""

    action: Any
    process_name: str
    cmd: list[str]
    pid: int
    returncode: int = field(default=0)
