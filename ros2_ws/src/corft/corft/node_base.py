"""What every corft node shares: parameters, contract, diagnostics, guarded lifecycle.

Guarantees (pinned by tests/ros/test_lifecycle_manager.py): a parameter outside its range stops the node with one line
and exit code 2; a failed configure leaves the node unconfigured with the reason on the log and on /diagnostics;
SIGINT and SIGTERM call `safe_stop()` while publishers still work, then end the process with exit code 0.
"""
from __future__ import annotations

import importlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from corft.node_parameters import Param
from corft_core.contract import Contract
from corft_core.errors import CorftError

OK, WARN, ERROR, STALE = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR,
                          DiagnosticStatus.STALE)


@dataclass(frozen=True)
class Diagnosis:
    """One DiagnosticStatus: `level` OK, WARN or ERROR, a sentence, and key values (kept short)."""

    level: bytes
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def qos_profile(kind: str, depth: int = 1) -> QoSProfile:
    """QoS by the contract's word: `sensor_data` (best effort) or `reliable`; both volatile, keep last."""
    if kind not in ("sensor_data", "reliable"):
        raise CorftError(f"unknown QoS {kind!r}: expected sensor_data or reliable")
    reliability = ReliabilityPolicy.BEST_EFFORT if kind == "sensor_data" else ReliabilityPolicy.RELIABLE
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability,
                      durability=DurabilityPolicy.VOLATILE)


def load_contract(path: str) -> Contract:
    """The contract at `path`; CorftError names what is missing and what to type next."""
    if not path:
        raise CorftError("parameter 'contract' is empty: expected the path of a contract file, for example "
                         "-p contract:=config/panda_cell/contract.yaml")
    file = Path(path).expanduser()
    if not file.is_file():
        raise CorftError(f"parameter 'contract': no file {file} (expected a contract YAML)")
    return Contract.load(file)


def message_type(name: str) -> Any:
    """The class of a message type such as std_msgs/msg/Bool. CorftError when its package is not installed."""
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise CorftError(f"message type {name!r} is not installed: expected package/msg/Type of a sourced package "
                         f"({error}); install ros-$ROS_DISTRO-{package.replace('_', '-')} or correct the "
                         "contract") from error


class NodeTools:
    """Mixin for rclpy nodes: parameter table, diagnostics. Use `CorftNode` or `CorftLifecycleNode`."""

    PARAMETERS: tuple[Param, ...] = ()
    SAFE_STOP_TIMEOUT_S = 3.0
    DELIVERY_S = 0.5
    _table: dict[str, Param]

    def _setup_tools(self) -> None:
        assert isinstance(self, Node)
        self._table = {}
        self.failure = ""
        self.hardware_id = ""
        self.exit_code = 0
        self.exit_requested = threading.Event()
        self.interrupted = False  # ended by SIGINT: Ctrl-C, a launch that ends
        self.companions: list[Node] = []  # further nodes of this process, spun with this one
        self.add_on_set_parameters_callback(self._check_parameters)
        self.declare(self.PARAMETERS)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady time: a paused or fast simulated clock must not stop or flood the heartbeat.
        self._diagnostics_timer = self.create_timer(
            1.0, self.publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def declare(self, table: Iterable[Param]) -> None:
        """Declare parameters; InvalidParameterValueException names value and range when an override is off."""
        assert isinstance(self, Node)
        for parameter in table:
            self._table[parameter.name] = parameter
            default = parameter.default
            self.declare_parameter(parameter.name, list(default) if isinstance(default, tuple) else default,
                                   parameter.descriptor())

    def param(self, name: str) -> Any:
        """The value of a declared parameter; whole numbers become float where the default is one,
        and empty strings are left out of string lists."""
        assert isinstance(self, Node)
        value = self.get_parameter(name).value
        default = self._table[name].default
        if isinstance(default, float):
            return float(value)
        if isinstance(default, (list, tuple)):
            return [item for item in value if item != ""]
        return value

    def _check_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            row = self._table.get(parameter.name)
            problem = row.problem(parameter.value) if row is not None else None
            if problem is not None:
                return SetParametersResult(successful=False, reason=f"parameter '{parameter.name}': {problem}")
        return SetParametersResult(successful=True)

    def contract_from_parameter(self) -> Contract:
        """The contract that the `contract` parameter names; also sets the diagnostics' hardware id."""
        contract = load_contract(self.param("contract"))
        self.hardware_id = contract.robot.name
        return contract

    def diagnose(self) -> Iterable[Diagnosis]:
        """The node's health, asked once a second; override."""
        return (Diagnosis(OK, "running"),)

    def publish_diagnostics(self) -> None:
        """Publish now what `diagnose` says (a timer calls this at 1 Hz)."""
        assert isinstance(self, Node)
        name = self.get_fully_qualified_name()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for diagnosis in self._diagnoses():
            message.status.append(DiagnosticStatus(
                level=diagnosis.level, name=f"{name}: {diagnosis.name}" if diagnosis.name else name,
                message=diagnosis.message, hardware_id=self.hardware_id,
                values=[KeyValue(key=str(key), value=_text(value))
                        for key, value in diagnosis.values.items()]))
        if self.context.ok():
            self._diagnostics_publisher.publish(message)

    def _diagnoses(self) -> list[Diagnosis]:
        if self.failure:
            return [Diagnosis(ERROR, self.failure)]
        return list(self.diagnose())

    def request_exit(self, exit_code: int) -> None:
        """End the process as after a signal (safe stop first), with this exit code; from any thread."""
        self.exit_code = exit_code
        self.exit_requested.set()

    def safe_stop(self) -> None:
        """Bring what this node drives to a safe state; called on SIGINT and SIGTERM, context still valid."""

    def delivered(self) -> bool:
        """Whether what `safe_stop` sent has arrived: the process waits for it, DELIVERY_S at most, before it ends."""
        return True

    def await_delivery(self) -> None:
        """Wait until `delivered`, DELIVERY_S at most."""
        end_s = time.monotonic() + self.DELIVERY_S
        while not self.delivered() and time.monotonic() < end_s:
            time.sleep(0.01)

    def dispose(self) -> None:
        """Give back threads and files; called after the executor has stopped, context still valid."""

    def release(self) -> None:
        """Called last, after rclpy.shutdown() (MoveIt objects must outlive the context)."""


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class CorftNode(NodeTools, Node):
    """A plain node with the shared tools."""

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        Node.__init__(self, node_name, **kwargs)
        self._setup_tools()


class CorftLifecycleNode(NodeTools, LifecycleNode):
    """A managed node. Subclasses override configure, activate, deactivate, cleanup and raise CorftError.

    `deactivate` and `cleanup` must be safe to call twice and after a half-done `configure`.
    """

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        LifecycleNode.__init__(self, node_name, **kwargs)
        self._setup_tools()

    @property
    def active(self) -> bool:
        """Whether the node is in the ACTIVE state (cheap and readable from any thread)."""
        return self._label == "active"

    _label = "unconfigured"

    def configure(self) -> None:
        """Load files, create publishers and subscriptions. CorftError → FAILURE with its message."""

    def activate(self) -> None:
        """Start acting."""

    def deactivate(self) -> None:
        """Stop acting; leave the robot safe."""

    def cleanup(self) -> None:
        """Undo configure."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._guarded("configure", self.configure, state, super().on_configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._quietly("cleanup", self.cleanup)
        else:
            self._label = "inactive"
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        # Managed publishers first, so that `activate` may already publish.
        enabled = super().on_activate(state)
        if enabled != TransitionCallbackReturn.SUCCESS:
            return enabled
        result = self._guarded("activate", self.activate, state, None)
        if result == TransitionCallbackReturn.SUCCESS:
            self._label = "active"
        else:
            self._quietly("deactivate", self.deactivate)
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._label = "inactive"
        self._quietly("deactivate", self.deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.failure, self._label = "", "unconfigured"
        self._quietly("cleanup", self.cleanup)
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.active:
            self.on_deactivate(state)
        self._label = "finalized"
        self._quietly("cleanup", self.cleanup)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.active:
            self.on_deactivate(state)
        self._label = "unconfigured"
        self._quietly("cleanup", self.cleanup)
        return TransitionCallbackReturn.SUCCESS

    def _guarded(self, step: str, action: Callable[[], None], state: LifecycleState,
                 then: Callable[[LifecycleState], TransitionCallbackReturn] | None) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of transition callbacks: without this nobody would learn the reason.
        self.failure = ""
        try:
            action()
            return then(state) if then is not None else TransitionCallbackReturn.SUCCESS
        except CorftError as error:
            self.failure = f"{step} failed: {error}"
            self.get_logger().error(self.failure)
        except Exception as error:  # a bug must not pass unseen either
            self.failure = f"{step} failed: {type(error).__name__}: {error}"
            self.get_logger().error(f"{self.failure}\n{traceback.format_exc()}")
        self.publish_diagnostics()
        return TransitionCallbackReturn.FAILURE

    def _quietly(self, step: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self.get_logger().error(f"{step} raised:\n{traceback.format_exc()}")

    def _diagnoses(self) -> list[Diagnosis]:
        if not self.failure and not self.active:
            return [Diagnosis(OK, "not active", {"state": self._label})]
        return super()._diagnoses()

    def safe_stop(self) -> None:
        if self.active:
            self.trigger_deactivate()
        if self.active:  # another transition was in the way
            self.on_deactivate(LifecycleState("active", State.PRIMARY_STATE_ACTIVE))

    def dispose(self) -> None:
        self.on_shutdown(LifecycleState(self._label, State.PRIMARY_STATE_INACTIVE))
