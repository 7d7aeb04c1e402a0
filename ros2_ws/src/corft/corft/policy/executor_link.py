"""What policy_node knows of the executor that its chunks go to: queue, stops, and what it is committed to."""

from __future__ import annotations

import math
import time

import numpy as np
from corft_msgs.msg import ExecutionStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from corft.node_base import qos_profile

Array = NDArray[np.float64]
SILENT_S = 5.0
FRESH_S = 1.0
WAKING_S = 1.0
"""An executor that enables itself (auto_enable) says DISABLED before: on simulated time, until /clock has moved."""


def continued(status: ExecutionStatus, tick_ns: int, step_ns: int, horizon: int) -> tuple[Array, int] | None:
    """What the arm follows already, as a chunk of ``tick_ns`` would say it, and how much of it is settled.

    (horizon, J [+ 1]) joint positions and opening due at ``tick_ns`` + 1 … steps, the last repeated, and the number of
    first ones that will be executed whatever comes. Positions are interpolated, openings hold until the next. None when
    the executor says nothing that reaches back to the chunk's first action.
    """
    points = status.committed.points
    if not points:
        return None
    origin_ns = Time.from_msg(status.committed.header.stamp).nanoseconds - tick_ns
    due_ns = np.array([origin_ns + p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in points])
    wanted_ns = step_ns * np.arange(1, horizon + 1)
    if due_ns[0] - step_ns > wanted_ns[0]:
        return None
    table = np.array([p.positions for p in points])
    columns = [np.interp(wanted_ns, due_ns, table[:, j]) for j in range(table.shape[1])]
    if len(status.committed_gripper) == len(points):
        held = np.maximum(np.searchsorted(due_ns, wanted_ns, side="right") - 1, 0)
        columns.append(np.array(status.committed_gripper)[held])
    return np.stack(columns, axis=1), min(int(status.frozen_steps), int(np.sum(wanted_ns <= due_ns[-1])))


class ExecutorLink:
    """Follows `execution_status`. All times of receipt are steady seconds."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._status: ExecutionStatus | None = None
        self._heard_s = self._state_s = self._enabled_s = -math.inf
        self._subscription = node.create_subscription(
            ExecutionStatus, "execution_status", self._on_status, qos_profile("reliable", 1))

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    @property
    def queue_s(self) -> float:
        """Motion that the executor has left [s]; NaN when none answers."""
        fresh = time.monotonic() - self._heard_s < FRESH_S
        return float(self._status.queue) if fresh and self._status is not None else math.nan

    def trouble(self, since_s: float) -> str:
        """Why a run that began at steady ``since_s`` can't go on; empty when it can.

        A stop lasts until the operator enables the executor again, and one that was killed comes back disabled. One
        that has been disabled since before the run is waited for: the operator may enable it later.
        """
        status, silent_s = self._status, time.monotonic() - max(self._heard_s, since_s)
        if silent_s > SILENT_S:
            return f"the executor has been silent for {silent_s:.0f} s (is it active? was it killed? its log says more)"
        if status is None or self._heard_s < since_s:
            return ""
        if status.state == ExecutionStatus.STOPPED:
            return f"the executor has stopped: {status.reason}: {status.message}"
        if (status.state == ExecutionStatus.DISABLED and self._enabled_s >= since_s
                and self._heard_s - self._state_s > WAKING_S):
            return ("the executor was enabled and is disabled now (did it start anew? its log says more): call its "
                    "~/enable, then send the goal again")
        return ""

    def plan(self, tick_ns: int, step_ns: int, horizon: int) -> tuple[Array, int] | None:
        """See `continued`; None also when the executor is silent."""
        if self._status is None or time.monotonic() - self._heard_s > FRESH_S:
            return None
        return continued(self._status, tick_ns, step_ns, horizon)

    def _on_status(self, status: ExecutionStatus) -> None:
        now_s = time.monotonic()
        if self._status is None or status.state != self._status.state or now_s - self._heard_s > FRESH_S:
            self._state_s = now_s  # since when it has said this, without a pause
        if status.state != ExecutionStatus.DISABLED:
            self._enabled_s = now_s
        self._status, self._heard_s = status, now_s
