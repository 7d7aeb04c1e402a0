"""Execution of action chunks: schedule, splice, limits, braking, collision check and watchdog. No ROS in here."""

from corft_core.execution.chunk import Chunk
from corft_core.execution.command import Command, Committed
from corft_core.execution.executor import ChunkExecutor, Prepared
from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.options import CHUNK_MODES, ON_COLLISION, ExecutorOptions
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import GripperSchedule
from corft_core.execution.splice import check_rtc, delay_steps
from corft_core.execution.spline import State
from corft_core.execution.supervisor import Activity, Supervisor
from corft_core.execution.verify import Violation, check_command
from corft_core.execution.watchdog import Measured, Watchdog

__all__ = ["CHUNK_MODES", "ON_COLLISION", "Activity", "Chunk", "ChunkExecutor", "Command", "Committed",
           "ExecutorOptions", "GripperSchedule", "Measured", "MotionLimits", "Prepared", "Reason", "Refusal",
           "RefusedError", "State", "Supervisor", "Violation", "Watchdog", "check_command", "check_rtc",
           "delay_steps", "worst_excess"]
