"""executor_node: turns action chunks into trajectories that the arm can follow, and stops it otherwise.

Subscribes to `action_chunk`, the contract's joint states and `estop`; sends the arm's trajectories and gripper commands
and publishes `execution_status`. Services: `~/enable`, `~/estop` (SetBool), `~/stop`, `~/home`, `~/park`, `~/recover`
(Trigger), `~/approach`. Nothing moves before `~/enable`. Every trajectory ends at rest, so a crash or a lost network is
a soft stop. The arm is braked on deactivation, SIGINT, SIGTERM, a stop, stale joint states, a tracking error, a
controller that is gone and an object that came into the way; a stop and a tracking error last until `~/enable`, an
emergency stop until it is released and then until `~/enable`, in a process that is started anew after a crash too
(corft.executor.stop_memory). With `use_sim_time`, a clock that jumps back or an arm that jumps (a reset scene) forgets
what runs. With `execute` false nothing is sent: what would be goes to `~/dry_run/…`.

Two threads. Callbacks (joint states, watchdog, stops, services) run in the node's executor and never plan; chunks and
planned moves run in a worker, which alone uses the planner. They share the Supervisor, whose lock is held for state
changes only, and what is sent is sent under it: a brake never waits for planning and is never overtaken by a chunk.

What to refuse and how to move is in corft_core.execution; this file only connects it. Pinned by
tests/ros/test_executor_*.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corft_msgs.msg import ActionChunk, ExecutionStatus
from corft_msgs.srv import Approach
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from corft.executor.chunk_source import ChunkSource
from corft.executor.controller_watch import ControllerWatch
from corft.executor.dry_run import description
from corft.executor.emergency_stop import EmergencyStop
from corft.executor.events import Events
from corft.executor.messages import JointStates, pose_from_message, setpoint_from_message, trajectory_message
from corft.executor.outputs import arm_output, controller_name, gripper_output
from corft.executor.parameters import EXECUTOR_PARAMETERS, executor_options
from corft.executor.status import diagnosis, status_message
from corft.executor.stop_memory import StopMemory, stop_file
from corft.executor.work import ExecutorWork, warm_up
from corft.node_base import CorftLifecycleNode, Diagnosis, message_type, qos_profile
from corft.node_main import run_node
from corft_core.contract import Contract
from corft_core.data.messages import MessageError
from corft_core.errors import CorftError
from corft_core.execution import Activity, Command, Measured, Reason, Refusal, RefusedError, Supervisor
from corft_core.execution.supervisor import MoveKind
from corft_core.planning import make_planner, read_scene

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo

TICK_S = 0.05
PLANNED_MOVES: tuple[MoveKind, ...] = ("home", "park", "recover")
UNTIL_ENABLED = "enable"
NOT_ACTIVE = "the executor is not active; activate it first (ros2 lifecycle set <node> activate)"


class ExecutorNode(CorftLifecycleNode):
    """See the module's docstring."""

    PARAMETERS = EXECUTOR_PARAMETERS

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._planner: Any = None
        self._work: ExecutorWork | None = None
        self._destroy: list[Callable[[], Any]] = []
        self._measured: Measured | None = None
        self._activated_ns: int | None = None  # until the clock has moved since
        super().__init__("executor_node")
        self._events = Events(self.get_logger().warning)
        self._stops = StopMemory(stop_file(self.get_fully_qualified_name(), self.context.get_domain_id()),
                                 lambda failure: self._events.log("stop memory", failure))
        self.add_post_set_parameters_callback(self._on_parameters)

    # Lifecycle

    def configure(self) -> None:
        contract = self._contract = self.contract_from_parameter()
        controller = controller_name(contract, self.param("controller"))
        self._execute = bool(self.param("execute"))
        if self._planner is None:
            self._planner = make_planner(self.param("planner"), contract, self._scene())
        self._supervisor = Supervisor(contract, self._planner, executor_options(self.param), self._send,
                                      self._events.report, bool(self.get_parameter("use_sim_time").value), self._now_ns)
        warm_up(self._supervisor, contract, self._now_ns())
        self._source = ChunkSource(contract.limits.max_chunk_age_s)
        self._joints = JointStates(contract)
        self._arm = arm_output(self, controller, self.param("controller_interface"), self._execute,
                               lambda message: self._watch.failed(message))
        self._gripper = gripper_output(self, contract, self.param("gripper_interface"),
                                       self.param("gripper_controller"), self.param("gripper_effort"), self._execute)
        self._watch = ControllerWatch(self, controller, tuple(contract.calibration("arm_command").names), self._arm,
                                      self.param("controller_timeout"),
                                      self._on_setpoint if self._execute and self.param("follow_setpoint") else None)
        self._status = self.create_lifecycle_publisher(ExecutionStatus, "execution_status", qos_profile("reliable", 10))
        self._destroy += [lambda: self.destroy_lifecycle_publisher(self._status), self._arm.destroy,
                          self._watch.destroy]
        if self._gripper is not None:
            self._destroy.append(self._gripper.destroy)
        markers = None
        if self.param("markers"):
            markers = self.create_lifecycle_publisher(MarkerArray, "~/markers", qos_profile("reliable", 1))
            self._destroy.append(lambda: self.destroy_lifecycle_publisher(markers))
        self._work = ExecutorWork(self, contract, self._supervisor, self._planner, not self._execute, markers,
                                  self._publish_status)
        self._connect(contract)

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

    def _connect(self, contract: Contract) -> None:
        """Subscriptions and services, from configure on: discovery takes time, and activation must not wait for it."""
        stream = contract.joint_state
        self._estop = EmergencyStop(self, self.param("estop_required"), self._on_estop, self._stops)
        inputs = [
            self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, qos_profile("reliable", 1)),
            self.create_subscription(message_type(stream.type), stream.topic, self._on_joint_state,
                                     qos_profile(stream.qos, 1))]
        services = [
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(Trigger, "~/stop", self._on_stop),
            self.create_service(Approach, "~/approach", self._on_approach),
            *(self.create_service(Trigger, f"~/{kind}", self._mover(kind)) for kind in PLANNED_MOVES)]
        # Steady time: a paused simulation must not pause the watchdog.
        timer = self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._destroy += [self._estop.destroy, lambda: self.destroy_timer(timer),
                          *(lambda s=s: self.destroy_subscription(s) for s in inputs),
                          *(lambda s=s: self.destroy_service(s) for s in services)]

    def activate(self) -> None:
        self._activated_ns = self._now_ns()
        self._running_supervisor.restart(self._activated_ns)
        self._source.release()
        self._events.clear()
        unanswered = self._stops.waiting
        waiting = ("nothing is sent (execute is false)" if not self._execute else
                   f"waits for ~/enable: {'; '.join(unanswered.values())}" if unanswered else
                   "moves at once" if self.param("auto_enable") else "call ~/enable to let the arm move")
        self.get_logger().info(f"chunk_mode {self.param('chunk_mode')}, planner {self.param('planner')}, speed_scale "
                               f"{self.param('speed_scale'):g}; {waiting}")

    def _awake(self, now_ns: int) -> bool:
        """Whether ROS time has moved since activation; begins when it first has.

        Simulated time stood still while the transitions ran, and leaps when /clock is heard again.
        """
        if self._activated_ns is not None and now_ns != self._activated_ns:
            self._activated_ns = None
            supervisor = self._running_supervisor
            with supervisor.lock:  # somebody else may have moved the arm before: start from where it stands
                supervisor.restart(now_ns)
                auto_enable = self.param("auto_enable") and not self._stops.waiting
                supervisor.enabled = auto_enable or not self._execute
        return self._activated_ns is None

    def deactivate(self) -> None:
        if self._supervisor is not None and self._work is not None:
            self._supervisor.disable(self._now_ns(), Refusal(Reason.SHUTDOWN, "the executor is deactivated"))
            self._publish_status()

    def delivered(self) -> bool:
        try:
            return self._work is None or self._arm.delivered()
        except RuntimeError:  # of rclpy: cleaned up, or its context shut down meanwhile
            return True

    def cleanup(self) -> None:
        self.await_delivery()  # of the brake: what is not acknowledged yet goes with its publisher
        if self._work is not None:
            self._work.stop()
        for destroy in self._destroy:
            destroy()
        self._destroy = []
        self._supervisor = self._work = None
        self._close_planner()

    def release(self) -> None:
        self._close_planner()
        if self.interrupted:
            self._stops.forget()

    def _close_planner(self) -> None:
        if self._planner is not None:
            self._planner.close()
            self._planner = None

    # Callbacks: never slow

    def _on_chunk(self, message: ActionChunk, info: MessageInfo) -> None:
        if not self.active:
            return
        # Distributions whose rclpy does not tell the publisher tell policies apart by their checkpoint.
        gid = bytes((info.get("publisher_gid") or {"data": message.policy_id.encode()})["data"])
        other = self._source.admit(gid, self._source_name(gid, message.policy_id), time.monotonic())
        if other is not None:
            self._running_supervisor.refuse(other, int(message.chunk_number))
            self._publish_status()
            return
        assert self._work is not None
        self._work.chunk(message)

    def _source_name(self, gid: bytes, policy_id: str) -> str:
        if gid == self._source.key:
            return self._source.name
        for publisher in self.get_publishers_info_by_topic("action_chunk"):
            if gid == bytes(publisher.endpoint_gid):
                return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        return f"policy {policy_id}"

    def _on_joint_state(self, message: Any) -> None:
        now_ns = self._now_ns()
        try:
            measured = self._joints.update(message, now_ns)
        except MessageError as error:  # as if it had not come: without good ones the watchdog stops the arm
            self._events.log("joint states", f"joint state ignored: {error}")
            return
        if measured is None or not self.active or not self._awake(now_ns):
            return
        self._measured = measured
        supervisor = self._running_supervisor
        supervisor.joint_state(measured, now_ns)
        opening = supervisor.gripper_due(now_ns)
        if opening is not None and self._gripper is not None:
            self._gripper.send(opening)

    def _on_setpoint(self, message: Any) -> None:
        setpoint = setpoint_from_message(message, self._contract)
        if setpoint is not None and self.active and self._activated_ns is None:
            self._running_supervisor.setpoint(setpoint, self._now_ns())

    def _on_tick(self) -> None:
        self._estop.poll()
        self._keep_stop()
        self._watch.poll()
        if not self.active:
            return
        now_ns = self._now_ns()
        if not self._awake(now_ns):
            self._publish_status()
            return
        supervisor = self._running_supervisor
        self._heed_controller(now_ns)
        supervisor.tick(now_ns)
        assert self._work is not None
        if supervisor.move_due(now_ns):
            self._work.move()
        elif supervisor.activity(now_ns) in (Activity.EXECUTING, Activity.MOVING):
            self._work.recheck()
        self._publish_status()

    def _on_estop(self, reason: str) -> None:
        supervisor = self._running_supervisor
        if reason:
            supervisor.emergency_stop(self._now_ns(), reason)
        else:
            supervisor.clear_emergency_stop()
        if self.active:
            self._publish_status()

    def _keep_stop(self) -> None:
        """What lasts until ~/enable does so in the next process too."""
        stopped = self._running_supervisor.stopped
        if stopped is None:
            self._stops.poll()
        else:
            self._stops.keep(UNTIL_ENABLED, stopped.message)

    def _heed_controller(self, now_ns: int) -> None:
        """What the watch saw when it was polled last."""
        self._running_supervisor.fault("controller", self._watch.refusal if self._execute else None, now_ns)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        supervisor = self._running_supervisor
        if not self.active:
            response.success, response.message = False, NOT_ACTIVE
        elif request.data:
            self._watch.poll()  # the controller may have gone since the last tick
            self._heed_controller(self._now_ns())
            response.success, response.message = supervisor.enable(self._now_ns())
            if response.success:
                self._stops.keep(UNTIL_ENABLED, "")
                if self._gripper is not None:
                    self._gripper.forget()
        else:
            supervisor.disable(self._now_ns(), Refusal(Reason.DISABLED, "disabled by the operator"))
            self._source.release()
            self._stops.keep(UNTIL_ENABLED, "disabled by the operator")
            response.success, response.message = True, "disabled"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        reason = Refusal(Reason.STOP_REQUESTED, "stop was called")
        self._running_supervisor.stop(reason, self._now_ns())  # where nothing moves, activation must not undo it
        self._keep_stop()
        if self.active:
            self._publish_status()
        response.success, response.message = True, "stopped; call ~/enable to go on"
        return response

    def _on_approach(self, request: Approach.Request, response: Approach.Response) -> Approach.Response:
        try:
            return self._move("approach", response, pose_from_message(request.target, self._contract))
        except RefusedError as error:
            response.success, response.message = False, str(error)
            return response

    def _mover(self, kind: MoveKind) -> Callable[[Any, Any], Any]:
        return lambda _, response: self._move(kind, response)

    def _move(self, kind: MoveKind, response: Any, pose: Any = None) -> Any:
        response.success, response.message = False, NOT_ACTIVE
        if self.active:
            response.success, response.message = self._running_supervisor.request_move(kind, self._now_ns(), pose)
        return response

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> None:
        for parameter in parameters:
            if parameter.name == "speed_scale" and self._supervisor is not None:
                self._supervisor.set_speed_scale(self.param("speed_scale"))
                self.get_logger().info(f"speed_scale {self.param('speed_scale'):g} from the next chunk on")
            elif parameter.name == "scene" and self._work is not None:
                self._change_scene(self._work)

    def _change_scene(self, work: ExecutorWork) -> None:
        file = self._scene()
        try:
            work.scene([] if file is None else read_scene(file, self._contract))
        except CorftError as error:
            self.get_logger().error(f"the scene stays as it was: {error}")

    # Called under the supervisor's lock, from either thread

    def _send(self, command: Command) -> None:
        self._arm.send(trajectory_message(command, self._contract, self._watch.sending))
        if not self._execute:
            limits = self._running_supervisor.executor.limits
            self._events.log("dry run", description(command, self._measured, limits))

    # Outwards

    def _publish_status(self) -> None:
        supervisor = self._running_supervisor
        with supervisor.lock:
            status = status_message(supervisor, self._contract, self._now_ns())
        assert self._work is not None
        status.chunk_number, status.chunk_age = self._work.chunk_number, self._work.chunk_age_s
        status.source = self._source.name
        self._status.publish(status)

    def diagnose(self) -> Iterable[Diagnosis]:
        assert self._work is not None
        values = {"chunk_mode": self.param("chunk_mode"), "source": self._source.name, "replaced": self._work.replaced,
                  "chunk_age_s": self._work.chunk_age_s, **self._events.counts}
        yield diagnosis(self._running_supervisor, self._execute, self._watch.refusal, self._planner.alive, values)

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
