"""lifecycle_manager and the shared node base: bring-up in order, reasons, respawn, signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.node import Node
from ros.graph import CLEANUP, CONTRACT, DEACTIVATE, NodeProcess, call, change_state, running, spin_until, state_of
from std_srvs.srv import Trigger

pytestmark = pytest.mark.ros
NAMES = "[cell_1/first,cell_1/second]"


@pytest.fixture
def node(rclpy_context: None) -> Iterator[Node]:
    node = rclpy.create_node("lifecycle_test")
    yield node
    node.destroy_node()


def camera(name: str, **parameters: str) -> NodeProcess:
    return NodeProcess("camera_node", {"contract": CONTRACT, **parameters}, name=name, namespace="/cell_1")


def all_active(node: Node) -> bool:
    return bool(call(node, Trigger, "lifecycle_manager/is_active", Trigger.Request()).success)


def test_nodes_come_up_in_order_return_after_a_kill_and_go_down_in_reverse(node: Node) -> None:
    first, second = camera("first"), camera("second")
    try:
        with running("lifecycle_manager", {"node_names": NAMES, "watch_period": 0.2}) as manager:
            spin_until(node, lambda: all_active(node), "activation")
            order = [manager.output.index(f"{verb} cell_1/{name}") for name in ("first", "second")
                     for verb in ("configure", "activate")]
            assert order == sorted(order)

            second.stop(signal.SIGKILL)
            second = camera("second")
            spin_until(node, lambda: "cell_1/second came back unconfigured" in manager.output, "the respawned node")
            spin_until(node, lambda: all_active(node), "its activation")

            assert change_state(node, "cell_1/first", DEACTIVATE) == [True]
            spin_until(node, lambda: not all_active(node), "the manager to see it")
            assert state_of(node, "cell_1/first") == "inactive", "what an operator deactivates stays so"
            assert change_state(node, "cell_1/first", CLEANUP) == [True]
            spin_until(node, lambda: all_active(node), "a cleaned-up node to be brought back")

            assert manager.stop(signal.SIGTERM) == 0
            assert manager.output.index("deactivate cell_1/second") < manager.output.index("deactivate cell_1/first")
            assert [state_of(node, f"cell_1/{name}") for name in ("first", "second")] == ["inactive", "inactive"]
    finally:
        codes = [process.stop(signal.SIGINT) for process in (first, second)]
    assert codes == [0, 0], "a node ends with 0 after a signal"


def test_a_node_that_cannot_be_configured_is_named_with_its_reason_and_the_manager_fails(node: Node) -> None:
    parameters = {"node_names": "[camera_node]", "attempts": 2, "retry_period": 0.1}
    with running("camera_node", {"contract": "/nowhere/contract.yaml"}), \
            running("lifecycle_manager", parameters) as manager:
        assert manager.wait() == 1
        assert "bring-up given up after 2 attempts: camera_node: configure failed: parameter 'contract': no file " \
               "/nowhere/contract.yaml" in manager.output


@pytest.mark.parametrize(("parameters", "message"), [
    ({"expected_rate_hz": -1.0}, "Max: 1000.0, value: -1.0"),
    ({"expected_rate_hz": "fast"}, "'expected_rate_hz': expected a number, seen 'fast'"),
])
def test_a_parameter_out_of_range_ends_the_node_with_one_line(
        ros_domain: int, parameters: dict[str, object], message: str) -> None:
    with running("camera_node", parameters) as node:
        assert node.wait() == 2
        assert message in node.output and "expected_rate_hz" in node.output
        assert "Traceback" not in node.output
