"""Why the executor refused a chunk or stopped the robot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Reason codes, as published in ExecutionStatus.reason."""

    MALFORMED = "MALFORMED"
    WRONG_JOINTS = "WRONG_JOINTS"
    NOT_FINITE = "NOT_FINITE"
    STALE = "STALE"
    FROM_THE_FUTURE = "FROM_THE_FUTURE"
    TOO_FEW_LEFT = "TOO_FEW_LEFT"
    POSITION_LIMIT = "POSITION_LIMIT"
    STEP_TOO_LARGE = "STEP_TOO_LARGE"
    SPLICE_TOO_LARGE = "SPLICE_TOO_LARGE"
    DYNAMIC_LIMIT = "DYNAMIC_LIMIT"
    COLLISION = "COLLISION"
    WORKSPACE = "WORKSPACE"
    BUSY = "BUSY"
    DISABLED = "DISABLED"
    NOT_AT_REST = "NOT_AT_REST"
    NO_JOINT_STATE = "NO_JOINT_STATE"
    OBSERVATION_STALE = "OBSERVATION_STALE"
    TRACKING_ERROR = "TRACKING_ERROR"
    STOP_REQUESTED = "STOP_REQUESTED"
    SHUTDOWN = "SHUTDOWN"
    CLOCK_JUMP = "CLOCK_JUMP"
    TELEPORTED = "TELEPORTED"
    PLANNING_FAILED = "PLANNING_FAILED"


@dataclass(frozen=True)
class Refusal:
    """A refusal or a stop: the code for programs, the message (joint, amount, limit) for people."""

    reason: Reason
    message: str


class RefusedError(Exception):
    """Carries a :class:`Refusal` out of a check; :class:`ChunkExecutor` turns it into a return value."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)
