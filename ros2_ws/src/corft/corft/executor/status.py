"""What the executor says of itself: ExecutionStatus and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from corft_msgs.msg import ExecutionStatus
from trajectory_msgs.msg import JointTrajectoryPoint

from corft.chunk_messages import duration_message, time_message
from corft.node_base import ERROR, OK, WARN, Diagnosis
from corft_core.contract import Contract
from corft_core.execution import Refusal, Supervisor

COMMITTED_STEPS = 50


def status_message(supervisor: Supervisor, contract: Contract, now_ns: int) -> ExecutionStatus:
    """What the supervisor does now; the caller fills in what is about the last chunk message."""
    status = ExecutionStatus(state=getattr(ExecutionStatus, supervisor.activity(now_ns).value),
                             tracking_error=supervisor.tracking_error_rad,
                             speed_scale=supervisor.executor.options.speed_scale)
    status.header.stamp = time_message(now_ns)
    event = supervisor.event
    if event is not None:
        status.reason, status.message = event.reason.value, event.message
    running = supervisor.executor.running
    if running is not None:
        status.queue = max(0.0, (running.end_ns - now_ns) * 1e-9)
        status.splice_offset = running.splice_offset_rad
        status.delay_steps = running.delay_steps
        if supervisor.executor.options.mode == "rtc":
            _fill_committed(status, supervisor, contract, now_ns)
    return status


def _fill_committed(status: ExecutionStatus, supervisor: Supervisor, contract: Contract, now_ns: int) -> None:
    committed = supervisor.executor.committed_actions(now_ns, contract.step_ns * 1e-9, COMMITTED_STEPS)
    if committed is None:
        return
    status.frozen_steps = int(committed.frozen)
    status.committed.header.stamp = time_message(committed.stamp_ns)
    status.committed.joint_names = list(contract.robot.joints)
    status.committed.points = [
        JointTrajectoryPoint(positions=row.tolist(),
                             time_from_start=duration_message(round((j + 1) * committed.dt_s * 1e9)))
        for j, row in enumerate(committed.positions)]
    if committed.gripper is not None:
        status.committed_gripper = committed.gripper.tolist()


def diagnosis(supervisor: Supervisor, execute: bool, controller: Refusal | None, planner_alive: bool,
              more: Mapping[str, Any]) -> Diagnosis:
    """The executor's health: what has stopped it or would, else whether it is enabled. ``more``: further values."""
    compute_s = list(supervisor.compute_s) or [0.0]
    values = {**supervisor.counts, **more, "enabled": supervisor.enabled,
              "speed_scale": supervisor.executor.options.speed_scale,
              "controller_speed_scaling": supervisor.executor.follower.scaling,
              "tracking_error_rad": supervisor.tracking_error_rad,
              "compute_p50_s": float(np.median(compute_s)), "compute_max_s": max(compute_s)}
    worse = ERROR if supervisor.enabled else WARN
    if not planner_alive:
        return Diagnosis(ERROR, "the planner's process has died; configure the node again", values)
    if supervisor.stopped is not None:
        return Diagnosis(ERROR, f"stopped: {supervisor.stopped.reason}: {supervisor.stopped.message}", values)
    if supervisor.stale is not None:
        return Diagnosis(worse, f"{supervisor.stale.reason}: {supervisor.stale.message}", values)
    if execute and controller is not None:
        return Diagnosis(worse, f"{controller.reason}: {controller.message}", values)
    if not supervisor.enabled:
        return Diagnosis(OK, "disabled", values)
    if supervisor.event is not None:
        return Diagnosis(WARN, f"{supervisor.event.reason}: {supervisor.event.message}", values)
    return Diagnosis(OK, "enabled" if execute else "dry run: nothing is sent", values)
