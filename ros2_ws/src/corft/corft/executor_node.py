"""executor_node: turns action chunks into trajectories that the arm can follow, and stops it otherwise.

Subscribes to `action_chunk` and the contract's joint states; publishes the contract's arm and gripper commands and
`execution_status`. Services: `~/enable` (SetBool), `~/stop` and `~/home` (Trigger). Nothing moves before `~/enable`.
Every trajectory ends at rest, so a crash or a lost network is a soft stop. The arm is braked on deactivation,
SIGINT, SIGTERM, `~/stop`, stale joint states and a tracking error; a stop and a tracking error last until
`~/enable`. With `use_sim_time`, a clock that jumps back or an arm that jumps (a reset scene) forgets what runs.
What to refuse and how to move is in corft_core.execution; this file only connects it. Pinned by
tests/ros/test_executor_node.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from corft_msgs.msg import ActionChunk, ExecutionStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from corft.executor_messages import chunk_from_message, measured_from_message, stamp_ns, trajectory_message
from corft.node_base import CONTRACT, ERROR, OK, WARN, CorftLifecycleNode, Diagnosis, Param, qos_profile
from corft.node_main import run_node
from corft_core.execution import Command, ExecutorOptions, Reason, Refusal, RefusedError, Supervisor
from corft_core.execution.splice import CHUNK_MODES
from corft_core.planning import make_planner

TICK_S = 0.05
REPEAT_LOG_S = 2.0
BRAKE_DELIVERY_S = 0.5
NOT_ACTIVE = "the executor is not active; activate it first (ros2 lifecycle set <node> activate)"
_DEFAULTS = ExecutorOptions()


class ExecutorNode(CorftLifecycleNode):
    """See the module's docstring."""

    PARAMETERS = (
        CONTRACT,
        Param("planner", "embedded", "Collision checks and planning.", choices=("embedded", "moveit")),
        Param("scene", "", "Scene file (YAML) with the obstacles; empty: scene.yaml beside the contract, if there is "
                           "one; none: only the robot itself."),
        Param("chunk_mode", _DEFAULTS.mode, "How chunks follow each other.", choices=CHUNK_MODES),
        Param("speed_scale", _DEFAULTS.speed_scale, "Part of the predicted speed.", range=(0.05, 1.0)),
        Param("auto_enable", False, "Move as soon as the node is active, without a call of ~/enable."),
        Param("handoff_s", _DEFAULTS.handoff_s, "From receiving a chunk to following it: computing and transport.",
              range=(0.0, 0.5)),
        Param("blend_s", _DEFAULTS.blend_s, "Over how long the running motion fades into a new chunk.",
              range=(0.0, 2.0)),
        Param("max_splice_rad", _DEFAULTS.max_splice_rad, "A chunk farther from the running motion is refused.",
              range=(0.0, 3.0)),
        Param("smoothing_s", _DEFAULTS.smoothing_s, "Details of a chunk shorter than this are smoothed.",
              range=(0.005, 0.5)),
        Param("execute_steps", _DEFAULTS.execute_steps, "Actions taken from a chunk in receding_horizon.",
              range=(1, 1000)),
        Param("ensemble_decay", _DEFAULTS.ensemble_decay, "Weights exp(-decay i) of temporal_ensemble.",
              range=(0.0, 10.0)),
    )

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._planner: Any = None
        self._outputs: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._chunk_number, self._chunk_age_s = 0, 0.0
        self._logged: tuple[str, float] = ("", 0.0)
        super().__init__("executor_node")

    def configure(self) -> None:
        self._contract = self.contract_from_parameter()
        names = ("speed_scale", "handoff_s", "blend_s", "max_splice_rad", "smoothing_s", "execute_steps",
                 "ensemble_decay")
        options = ExecutorOptions(mode=self.param("chunk_mode"), **{name: self.param(name) for name in names})
        if self._planner is None:
            self._planner = make_planner(self.param("planner"), self._contract, self._scene())
        self._supervisor = Supervisor(self._contract, self._planner, options, self._send, self._report,
                                      bool(self.get_parameter("use_sim_time").value))
        outputs = {"arm": (JointTrajectory, self._contract.arm_command.topic),
                   "gripper": (Float64MultiArray, self._contract.gripper_command.topic),
                   "status": (ExecutionStatus, "execution_status")}
        self._outputs = {key: self.create_lifecycle_publisher(kind, topic, qos_profile("reliable", 10))
                         for key, (kind, topic) in outputs.items()}
        self._connect()

    def _scene(self) -> Path | None:
        given = self.param("scene")
        if given == "none":
            return None
        if given:
            return Path(given).expanduser()
        beside = Path(self.param("contract")).expanduser().parent / "scene.yaml"
        if beside.is_file():
            return beside
        self.get_logger().warning(f"no scene file {beside}: collisions are checked with the robot itself only; name a "
                                  "file with the parameter 'scene', or 'none'")
        return None

    def _connect(self) -> None:
        """Subscriptions and services, from configure on: discovery takes time, and activation must not wait for it."""
        stream = self._contract.joint_state
        self._inputs = [
            (self.destroy_subscription, self.create_subscription(
                ActionChunk, "action_chunk", self._on_chunk, qos_profile("reliable", 1))),
            (self.destroy_subscription, self.create_subscription(
                JointState, stream.topic, self._on_joint_state, qos_profile(stream.qos, 1))),
            (self.destroy_service, self.create_service(SetBool, "~/enable", self._on_enable)),
            (self.destroy_service, self.create_service(Trigger, "~/stop", self._on_stop)),
            (self.destroy_service, self.create_service(Trigger, "~/home", self._on_home)),
            # Steady time: a paused simulation must not pause the watchdog.
            (self.destroy_timer, self.create_timer(
                TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))),
        ]

    def activate(self) -> None:
        # Somebody else may have moved the arm since: start from where it stands.
        self._running_supervisor.executor.reset(self._now_ns())
        self._running_supervisor.enabled = self.param("auto_enable")
        waiting = "moves at once" if self.param("auto_enable") else "call ~/enable to let the arm move"
        self.get_logger().info(f"chunk_mode {self.param('chunk_mode')}, planner {self.param('planner')}; {waiting}")

    def deactivate(self) -> None:
        if self._supervisor is not None and self._outputs:
            self._supervisor.disable(self._now_ns(), Refusal(Reason.SHUTDOWN, "the executor is deactivated"))
            self._publish_status()
            # The process may end next: the brake has to reach the controller first.
            self._outputs["arm"].wait_for_all_acked(Duration(seconds=BRAKE_DELIVERY_S))

    def cleanup(self) -> None:
        for destroy, handle in self._inputs:
            destroy(handle)
        self._inputs = []
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = {}
        self._supervisor = None
        self._close_planner()

    def release(self) -> None:
        self._close_planner()

    def _close_planner(self) -> None:
        if self._planner is not None:
            self._planner.close()
            self._planner = None

    def _on_chunk(self, message: ActionChunk) -> None:
        if not self.active:
            return
        now_ns = self._now_ns()
        supervisor = self._running_supervisor
        self._chunk_number = int(message.chunk_number)
        self._chunk_age_s = (now_ns - stamp_ns(message.header.stamp)) * 1e-9
        try:
            supervisor.chunk(chunk_from_message(message), now_ns)
        except RefusedError as malformed:
            supervisor.refuse(malformed.refusal, self._chunk_number)
        self._publish_status()

    def _on_joint_state(self, message: JointState) -> None:
        now_ns = self._now_ns()
        supervisor = self._running_supervisor
        measured = measured_from_message(message, self._contract, now_ns)
        if measured is None or not self.active:
            return
        supervisor.joint_state(measured, now_ns)
        opening = supervisor.gripper_due(now_ns)
        if opening is not None:
            self._outputs["gripper"].publish(Float64MultiArray(data=[self._contract.gripper.to_position(opening)]))

    def _on_tick(self) -> None:
        if not self.active:
            return
        self._running_supervisor.tick(self._now_ns())
        self._publish_status()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self.active:
            response.success, response.message = False, NOT_ACTIVE
        elif request.data:
            response.success, response.message = self._running_supervisor.enable(self._now_ns())
        else:
            self._running_supervisor.disable(self._now_ns(), Refusal(Reason.DISABLED, "disabled by the operator"))
            response.success, response.message = True, "disabled"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        reason = Refusal(Reason.STOP_REQUESTED, "stop was called")
        if self.active:
            self._running_supervisor.stop(reason, self._now_ns())
            self._publish_status()
        else:  # nothing to brake, but an activation must not undo it
            self._running_supervisor.stopped = reason
        response.success, response.message = True, "stopped; call ~/enable to go on"
        return response

    def _on_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = False, NOT_ACTIVE
        if self.active:
            response.success, response.message = self._running_supervisor.home(self._now_ns())
        return response

    def _send(self, command: Command) -> None:
        self._outputs["arm"].publish(trajectory_message(command))

    def _report(self, what: str, event: Refusal) -> None:
        """Log an event; one that repeats with every chunk is logged every REPEAT_LOG_S, status has them all."""
        now_s = time.monotonic()
        if event.reason.value != self._logged[0] or now_s - self._logged[1] > REPEAT_LOG_S:
            self._logged = (event.reason.value, now_s)
            self.get_logger().warning(f"{what}: {event.reason}: {event.message}")

    def _publish_status(self) -> None:
        now_ns = self._now_ns()
        supervisor = self._running_supervisor
        running = supervisor.executor.running
        status = ExecutionStatus(state=getattr(ExecutionStatus, supervisor.activity(now_ns).value),
                                 chunk_number=self._chunk_number, chunk_age=self._chunk_age_s,
                                 tracking_error=supervisor.tracking_error_rad)
        status.header.stamp.sec, status.header.stamp.nanosec = divmod(now_ns, 1_000_000_000)
        if supervisor.event is not None:
            status.reason, status.message = supervisor.event.reason.value, supervisor.event.message
        if running is not None:
            status.queue = max(0.0, (running.end_ns - now_ns) * 1e-9)
            status.splice_offset = running.splice_offset_rad
        self._outputs["status"].publish(status)

    def diagnose(self) -> Iterable[Diagnosis]:
        supervisor = self._running_supervisor
        compute_s = supervisor.compute_s or [0.0]
        values = {**supervisor.counts, "enabled": supervisor.enabled, "chunk_mode": self.param("chunk_mode"),
                  "chunk_age_s": self._chunk_age_s, "tracking_error_rad": supervisor.tracking_error_rad,
                  "compute_p50_s": float(np.median(list(compute_s))), "compute_max_s": max(compute_s)}
        if supervisor.stopped is not None:
            yield Diagnosis(ERROR, f"stopped: {supervisor.stopped.reason}: {supervisor.stopped.message}", values)
        elif supervisor.stale is not None:
            yield Diagnosis(ERROR if supervisor.enabled else WARN, supervisor.stale.message, values)
        elif not supervisor.enabled:
            yield Diagnosis(OK, "disabled", values)
        elif supervisor.event is not None:
            yield Diagnosis(WARN, f"{supervisor.event.reason}: {supervisor.event.message}", values)
        else:
            yield Diagnosis(OK, "enabled", values)

    @property
    def _running_supervisor(self) -> Supervisor:
        assert self._supervisor is not None, "used before configure"
        return self._supervisor

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main() -> int:
    """Entry point of `ros2 run corft executor_node`."""
    return run_node(ExecutorNode)


if __name__ == "__main__":
    sys.exit(main())
