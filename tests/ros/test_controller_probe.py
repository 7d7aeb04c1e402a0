"""The executor asks a controller's parameters over DDS: those of the cell's, of one set badly, of none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros.graph import CONTRACT, running, spin_until

from corft.executor.controller_probe import ControllerProbe
from corft.executor.controller_traits import Sending, traits
from corft_core.contract import Contract

pytestmark = pytest.mark.ros
JOINTS = Contract.load(CONTRACT).robot.joints


@pytest.fixture
def node(rclpy_context: None) -> Iterator[Node]:
    node = rclpy.create_node("probe_test")
    yield node
    node.destroy_node()


class Asked:
    """A probe and what it was answered."""

    def __init__(self, node: Node, controller: str, timeout_s: float = 60.0) -> None:
        self.answers: list[tuple[dict[str, Any] | None, set[str]]] = []
        self.probe = ControllerProbe(node, controller, JOINTS, timeout_s, lambda *answer: self.answers.append(answer))

    def answered(self) -> bool:
        self.probe.poll()
        return bool(self.answers)


def test_the_cells_controller_says_what_it_does_and_answers_again_after_a_restart(node: Node) -> None:
    asked = Asked(node, "arm_controller")
    parameters = {"contract": CONTRACT, "image_rate_hz": 0.0}
    for _ in range(2):
        with running("cell_node", parameters, name="another_name"):
            spin_until(node, asked.answered, "the controller's parameters")
        values, read_only = asked.answers.pop()
        assert values is not None and tuple(values["joints"]) == JOINTS and values["use_sim_time"] is True
        assert "interpolate_from_desired_state" in read_only
        found = traits(values, read_only, "arm_controller", JOINTS, use_sim_time=True)
        assert (found.sending, found.warnings, found.problem) == (Sending(), (), "")
        spin_until(node, lambda: not asked.answered() and not asked.probe._asked, "the controller to be gone")


def test_parameters_that_a_controller_lacks_are_not_asked_for(node: Node) -> None:
    controller = Node("old_controller")
    controller.declare_parameter("interpolate_from_desired_state", False)
    controller.declare_parameter("joints", list(JOINTS))
    executor = SingleThreadedExecutor()
    executor.add_node(controller)
    asked = Asked(node, "old_controller")

    def answered() -> bool:
        executor.spin_once(timeout_sec=0.05)
        return asked.answered()

    spin_until(node, answered, "the answer")
    ((values, read_only),) = asked.answers
    assert values is not None and values["interpolate_from_desired_state"] is False
    assert "allow_trajectory_replacement" not in values and not read_only & {"joints"}
    controller.destroy_node()


def test_silence_is_an_answer_too(node: Node) -> None:
    asked = Asked(node, "nobody", timeout_s=0.3)
    spin_until(node, asked.answered, "the time-out")
    assert asked.answers == [(None, set())]
