"""Test helpers: start a node as a process, wait for conditions, drive its lifecycle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "ros2_ws" / "src" / "corft" / "config" / "panda_cell" / "contract.yaml"
PATIENCE_S = 60.0
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


@contextlib.contextmanager
def ros_context() -> Iterator[None]:
    """An initialised default rclpy context, shut down however the block ends: one that stays would fail all later
    modules."""
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()


class NodeProcess:
    """A node of corft run from the sources; its output is kept in a file. ``environment`` comes on top."""

    def __init__(self, module: str, parameters: Mapping[str, Any] | None = None, name: str | None = None,
                 namespace: str = "", environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", f"corft.{module}", "--ros-args"]
        for key, value in (parameters or {}).items():
            command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        if name:
            command += ["-r", f"__node:={name}"]
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        sources = os.pathsep.join([str(ROOT / "corft_core"), str(ROOT / "ros2_ws" / "src" / "corft")])
        self._folder = tempfile.TemporaryDirectory()
        variables = {"ROS_HOME": self._folder.name, **os.environ, **(environment or {})}
        self._log = Path(self._folder.name) / "output"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT,
                env={**variables, "PYTHONPATH": sources + os.pathsep + variables.get("PYTHONPATH", ""),
                     "OMP_NUM_THREADS": "1"})

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self._log.read_text(errors="replace")

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Exit code, once the process has ended by itself."""
        return self.process.wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the node did not end after signal {number}:\n{self.output}") from None


@contextlib.contextmanager
def running(module: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Iterator[NodeProcess]:
    """A node process for the length of the block; its output is shown when the block fails."""
    node = NodeProcess(module, parameters, **options)
    try:
        yield node
    except BaseException:
        print(f"--- output of {module}\n{node.output}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            node.stop()


def spin_until(node: Node, condition: Callable[[], Any], what: str = "", timeout_s: float = PATIENCE_S) -> None:
    """Spin `node` until `condition()` is true; AssertionError naming `what` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s:.0f} s for {what or condition}"
        rclpy.spin_once(node, timeout_sec=0.05)


def spin_for(node: Node, duration_s: float) -> None:
    """Spin `node` for a while: only to see that something does *not* happen."""
    deadline_s = time.monotonic() + duration_s
    while time.monotonic() < deadline_s:
        rclpy.spin_once(node, timeout_sec=0.02)


def call(node: Node, service_type: Any, name: str, request: Any) -> Any:
    """The response of a service call."""
    client = node.create_client(service_type, name)
    try:
        assert client.wait_for_service(PATIENCE_S), f"no service {name}"
        future = client.call_async(request)
        spin_until(node, future.done, f"an answer of {name}")
        return future.result()
    finally:
        node.destroy_client(client)


def change_state(node: Node, name: str, *transitions: int) -> list[bool]:
    """Trigger lifecycle transitions of node `name` in order; whether each succeeded."""
    results = []
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        results.append(call(node, ChangeState, f"{name}/change_state", request).success)
    return results


def state_of(node: Node, name: str) -> str:
    """Label of a lifecycle node's state."""
    return str(call(node, GetState, f"{name}/get_state", GetState.Request()).current_state.label)
