"""Execution of action chunks: schedule, splice, limits, braking, collision check and watchdog. No ROS in here."""

from corft_core.execution.chunk import Chunk
from corft_core.execution.executor import ChunkExecutor, Command, ExecutorOptions
from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import GripperSchedule
from corft_core.execution.spline import State
from corft_core.execution.supervisor import Activity, Supervisor
from corft_core.execution.watchdog import Measured, Watchdog

__all__ = ["Activity", "Chunk", "ChunkExecutor", "Command", "ExecutorOptions", "GripperSchedule", "Measured",
           "MotionLimits", "Reason", "Refusal", "RefusedError", "State", "Supervisor", "Watchdog", "worst_excess"]
