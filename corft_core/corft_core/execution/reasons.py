"""Why the executor refused a chunk or stopped the robot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Reason codes, as published in ExecutionStatus.reason."""

    # The chunk itself.
    MALFORMED = "MALFORMED"
    WRONG_JOINTS = "WRONG_JOINTS"
    NOT_FINITE = "NOT_FINITE"
    STALE = "STALE"
    FROM_THE_FUTURE = "FROM_THE_FUTURE"
    TOO_FEW_LEFT = "TOO_FEW_LEFT"
    DELAY_TOO_LONG = "DELAY_TOO_LONG"
    # The motion it asks for.
    POSITION_LIMIT = "POSITION_LIMIT"
    STEP_TOO_LARGE = "STEP_TOO_LARGE"
    SPLICE_TOO_LARGE = "SPLICE_TOO_LARGE"
    DYNAMIC_LIMIT = "DYNAMIC_LIMIT"
    UNREACHABLE = "UNREACHABLE"
    IK_JUMP = "IK_JUMP"
    COLLISION = "COLLISION"
    WORKSPACE = "WORKSPACE"
    SCENE_CHANGED = "SCENE_CHANGED"
    # The executor's state.
    BUSY = "BUSY"
    DISABLED = "DISABLED"
    NOT_AT_REST = "NOT_AT_REST"
    SUPERSEDED = "SUPERSEDED"
    PLANNING_LATE = "PLANNING_LATE"
    PLANNING_FAILED = "PLANNING_FAILED"
    NO_NEW_CHUNK = "NO_NEW_CHUNK"
    # The robot and its graph.
    NO_JOINT_STATE = "NO_JOINT_STATE"
    OBSERVATION_STALE = "OBSERVATION_STALE"
    ROBOT_SILENT = "ROBOT_SILENT"
    TRACKING_ERROR = "TRACKING_ERROR"
    TELEPORTED = "TELEPORTED"
    CLOCK_JUMP = "CLOCK_JUMP"
    NO_CONTROLLER = "NO_CONTROLLER"
    CONTROLLER_INACTIVE = "CONTROLLER_INACTIVE"
    OTHER_SOURCE = "OTHER_SOURCE"
    COMMAND_LOST = "COMMAND_LOST"
    FOREIGN_COMMAND = "FOREIGN_COMMAND"
    # People.
    STOP_REQUESTED = "STOP_REQUESTED"
    EMERGENCY_STOP = "EMERGENCY_STOP"
    SHUTDOWN = "SHUTDOWN"


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
