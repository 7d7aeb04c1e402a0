"""lifecycle_manager: configures and activates the graph's lifecycle nodes in order, and keeps them up.

A node that comes back unconfigured (respawned after a crash) is configured and activated again, whatever the others do
meanwhile; one that somebody deactivated by hand is left alone. When the first bring-up fails for good the manager says
which node failed and why, and exits with code 1. On SIGINT and SIGTERM it deactivates the nodes in reverse order.
Services: `~/is_active`, `~/start`, `~/stop` (std_srvs/Trigger).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from std_srvs.srv import Trigger

from corft.node_base import OK, WARN, CorftNode, Diagnosis
from corft.node_main import run_node
from corft.node_parameters import Param
from corft_core.errors import CorftError

ANSWER_S = 2.0
REPORT_S = 5.0


class LifecycleManager(CorftNode):
    """See the module's docstring."""

    # Launch escalates from SIGINT to SIGTERM after 5 s.
    SAFE_STOP_TIMEOUT_S = 4.5
    PARAMETERS = (
        Param("node_names", [""], "Lifecycle nodes in the order of activation, relative to this node's namespace."),
        Param("autostart", True, "Bring the nodes up at once; otherwise on the service ~/start."),
        Param("watch_period", 1.0, "Seconds between two looks at the nodes' states.", (0.1, 60.0)),
        Param("transition_timeout", 180.0, "Seconds that configure or activate may take.", (1.0, 3600.0)),
        Param("attempts", 3, "Failed transitions of one node until the first bring-up is given up.", (1, 1000)),
        Param("retry_period", 2.0, "Seconds before a failed transition is tried again.", (0.1, 600.0)),
    )

    def __init__(self) -> None:
        super().__init__("lifecycle_manager")
        self._names: list[str] = self.param("node_names")
        if not self._names:
            raise CorftError("parameter 'node_names' is empty: expected the lifecycle nodes to manage, for example "
                             "-p node_names:=[camera_node,policy_node,executor_node]")
        self._states: dict[str, str] = dict.fromkeys(self._names, "unknown")
        self._failures: dict[str, int] = dict.fromkeys(self._names, 0)
        self._was_active: dict[str, bool] = dict.fromkeys(self._names, False)
        self._reasons: dict[str, tuple[float, str]] = {}
        self._came_up = False
        self._wanted = bool(self.param("autostart"))
        self._stopping = threading.Event()
        self._state_clients: dict[str, Client[Any, Any]] = {
            n: self.create_client(GetState, f"{n}/get_state") for n in self._names}
        self._change_clients: dict[str, Client[Any, Any]] = {
            n: self.create_client(ChangeState, f"{n}/change_state") for n in self._names}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._listen, 50)
        self.create_service(Trigger, "~/is_active", self._is_active)
        self.create_service(Trigger, "~/start", self._start)
        self.create_service(Trigger, "~/stop", self._stop)
        self._worker = threading.Thread(target=self._manage, name="manager", daemon=True)
        self._worker.start()

    # Executor threads

    def _listen(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level == DiagnosticStatus.ERROR:
                self._reasons[status.name] = (time.monotonic(), status.message)

    def _is_active(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = all(state == "active" for state in self._states.values())
        response.message = ", ".join(f"{name} {state}" for name, state in self._states.items())
        return response

    def _start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._wanted, response.success = True, True
        return response

    def _stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._wanted, response.success = False, True
        return response

    def diagnose(self) -> Iterable[Diagnosis]:
        down = [f"{name} {state}" for name, state in self._states.items() if state != "active"]
        if not down:
            return (Diagnosis(OK, f"all {len(self._names)} nodes active", self._states),)
        return (Diagnosis(WARN if self._wanted else OK, ", ".join(down), self._states),)

    # Worker threads

    def _manage(self) -> None:
        while not self._stopping.is_set():
            if not self._wanted:
                self._deactivate_all(1.0)
                self._stopping.wait(self.param("watch_period"))
            elif all(self._bring_up()):
                self._came_up = True
                self.get_logger().info(f"all nodes are active: {', '.join(self._names)}")
                self._watch_all()
                self._came_up = False
        self._deactivate_all(1.0)

    def _watch_all(self) -> None:
        """Keep the nodes up, each in a thread of its own: one that takes long to come back delays no other."""
        def watch(name: str) -> None:
            while self._wanted and not self._stopping.wait(self.param("watch_period")):
                self._ensure(name)

        threads = [threading.Thread(target=watch, args=(name,), name=f"watch {name}", daemon=True)
                   for name in self._names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _bring_up(self) -> list[bool]:
        """Nodes in order; a later one waits for those before it."""
        for name in self._names:
            if not self._ensure(name):
                return [False]
        return [True]

    def _ensure(self, name: str) -> bool:
        """Take one node a step nearer to active; True when nothing is left to do for it."""
        state = self._state(name)
        if state == "active":
            self._was_active[name] = True
            self._failures[name] = 0
            return True
        if state == "unconfigured":
            if self._was_active[name]:
                self.get_logger().warning(f"{name} came back unconfigured: configuring and activating it again")
                self._was_active[name] = False
            return self._change(name, Transition.TRANSITION_CONFIGURE, "configure") and self._change(
                name, Transition.TRANSITION_ACTIVATE, "activate")
        if state == "inactive":
            # After it has been active, only somebody else can have deactivated it: theirs to activate.
            return self._was_active[name] or self._change(name, Transition.TRANSITION_ACTIVATE, "activate")
        if state == "finalized":
            self._failed(name, "is finalized: its process must be started anew")
        return False

    def _state(self, name: str) -> str:
        """The node's state label; `missing` when it does not answer."""
        client = self._state_clients[name]
        waited_s = 0.0
        while not client.service_is_ready():
            self._states[name] = "missing"
            if self._stopping.wait(0.1) or not self._wanted:
                return "missing"
            waited_s += 0.1
            if self._came_up and waited_s > ANSWER_S:
                return "missing"  # look at the others meanwhile
            if waited_s % REPORT_S < 0.1:
                self.get_logger().warning(f"waiting for {name} since {waited_s:.0f} s (has its process started?)")
        answer = self._call(client, GetState.Request(), ANSWER_S)
        self._states[name] = "missing" if answer is None else str(answer.current_state.label)
        return self._states[name]

    def _change(self, name: str, transition: int, verb: str) -> bool:
        """Trigger a transition; a failure is logged with the node's own reason, and waited out."""
        if self._stopping.is_set():
            return False
        self.get_logger().info(f"{verb} {name}")
        before = self._states[name]
        start_s = time.monotonic()
        answer = self._call(
            self._change_clients[name], ChangeState.Request(transition=Transition(id=transition)),
            self.param("transition_timeout"), f"{verb} of {name}", lambda: self._state(name) == before)
        if answer is not None and answer.success:
            self._states[name] = "inactive" if verb == "configure" else "active"
            self._was_active[name] = verb == "activate"
            return True
        if self._stopping.is_set():
            return False
        if answer is not None:
            self._failed(name, self._reason(name, start_s))
        elif time.monotonic() - start_s >= self.param("transition_timeout"):
            self._failed(name, f"{verb} was not answered within {self.param('transition_timeout'):.0f} s")
        return False  # a lost request or answer is no failure: the next look at the state goes on from there

    def _failed(self, name: str, reason: str) -> None:
        self._failures[name] += 1
        self.get_logger().error(f"{name}: {reason}")
        if not self._came_up and self._failures[name] >= self.param("attempts"):
            self.get_logger().fatal(f"bring-up given up after {self._failures[name]} attempts: {name}: {reason}")
            self._wanted = False
            self.request_exit(1)
        self._stopping.wait(self.param("retry_period"))

    def _reason(self, name: str, since_s: float) -> str:
        """What the node said on /diagnostics since then."""
        full_name = self.resolve_service_name(name) if not name.startswith("/") else name
        deadline_s = time.monotonic() + 1.0
        while time.monotonic() < deadline_s and not self._stopping.is_set():
            seen_s, reason = self._reasons.get(full_name, (0.0, ""))
            if seen_s >= since_s:
                return reason
            time.sleep(0.02)
        return "the transition failed; the node's log says why"

    def _call(self, client: Client[Any, Any], request: Any, timeout_s: float, what: str = "",
              lost: Callable[[], bool] = lambda: False) -> Any | None:
        """The response, or None after `timeout_s`, when stopping, or when `lost()` says that none will come."""
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        start_s = time.monotonic()
        report_s = REPORT_S
        while not done.wait(0.1):
            waited_s = time.monotonic() - start_s
            if waited_s > timeout_s or (self._stopping.is_set() and waited_s > 1.5):
                break
            if what and waited_s > report_s:
                # A node in transition does not answer. One that does, and is where it was, never got the request:
                # that happens when it was started just now.
                if lost() and not done.is_set():
                    break
                self.get_logger().info(f"{what} takes {waited_s:.0f} s so far")
                report_s *= 2
        if done.is_set():
            return future.result()
        client.remove_pending_request(future)
        return None

    def _deactivate_all(self, timeout_s: float) -> None:
        """In reverse order; nodes that are gone or not active are passed over."""
        for name in reversed(self._names):
            if self._states[name] != "active" or not self._change_clients[name].service_is_ready():
                continue
            # A node that got the same signal may have deactivated itself already.
            answer = self._call(self._state_clients[name], GetState.Request(), timeout_s)
            if answer is not None and answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                self.get_logger().info(f"deactivate {name}")
                request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
                self._call(self._change_clients[name], request, timeout_s)
            self._states[name] = "inactive"
            self._was_active[name] = False

    def safe_stop(self) -> None:
        self._stopping.set()
        self._worker.join(self.SAFE_STOP_TIMEOUT_S)


def main() -> int:
    """Entry point of `ros2 run corft lifecycle_manager`."""
    # Two threads: safe_stop waits in one while service answers arrive in the other.
    return run_node(LifecycleManager, threads=2)


if __name__ == "__main__":
    sys.exit(main())
