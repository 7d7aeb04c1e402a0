"""Gripper commands on a topic: changes at once, and again what could have been lost."""

from __future__ import annotations

import time

import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from ros.graph import CONTRACT, spin_until
from std_msgs.msg import Float64MultiArray

from corft.executor.gripper_output import REPEAT_S, GripperOutput
from corft_core.contract import Contract

pytestmark = pytest.mark.ros


def test_a_change_is_sent_at_once_and_what_stays_once_in_a_while(rclpy_context: None) -> None:
    contract = Contract.load(CONTRACT)
    assert contract.gripper is not None and contract.gripper_command is not None
    driver, node = rclpy.create_node("driver"), LifecycleNode("executor")
    came: list[float] = []
    driver.create_subscription(Float64MultiArray, contract.gripper_command.topic,
                               lambda message: came.append(message.data[0]), 10)
    output = GripperOutput(node, contract, "topic", "gripper_controller", 0.0)
    node.trigger_configure()
    node.trigger_activate()
    spin_until(driver, lambda: node.count_subscribers(contract.gripper_command.topic), "the driver")

    def send(opening: float, for_s: float) -> int:
        """As chunks do, ten times a second; how often it came."""
        before, until_s = len(came), time.monotonic() + for_s
        while time.monotonic() < until_s:
            output.send(opening)
            rclpy.spin_once(driver, timeout_sec=0.1)
        rclpy.spin_once(driver, timeout_sec=0.2)
        assert set(came[before:]) <= {contract.gripper.to_position(opening)}
        return len(came) - before

    assert send(1.0, 0.5 * REPEAT_S) == 1
    assert send(0.0, 0.5 * REPEAT_S) == 1
    assert send(0.0, 2.0 * REPEAT_S) in (1, 2)
    output.forget()
    assert send(0.0, 0.3 * REPEAT_S) == 1, "somebody else may have moved it"
    output.destroy()
    node.destroy_node()
    driver.destroy_node()
