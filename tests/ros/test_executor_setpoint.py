"""The executor follows the controller's setpoint, live: the simulated cell publishes it where control_msgs is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from corft_msgs.msg import ExecutionStatus
from ros.arm_operator import Operator, enable, executor_on, operator_on_a_cell
from ros.control_msgs_package import environment
from ros.graph import spin_until
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.chunk_messages import duration_message

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def operator(ros_domain: int) -> Iterator[Operator]:
    with operator_on_a_cell(environment()) as node:
        yield node


def test_another_nodes_command_is_seen_and_waited_for(operator: Operator) -> None:
    commands = operator.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 10)
    with executor_on(operator, environment()) as process:
        enable(operator)
        start = operator.position.copy()
        operator.drive(start + np.array([0.3, 0, 0, 0, 0, 0, 0]))
        reasons = {status.reason for status in operator.statuses}
        assert not reasons & {"COMMAND_LOST", "FOREIGN_COMMAND"}, "no alarm while all is well"
        assert "shows only when the arm departs" not in process.output, "the setpoint is heard"

        point = JointTrajectoryPoint(positions=start.tolist(), velocities=[0.0] * 7, accelerations=[0.0] * 7,
                                     time_from_start=duration_message(1_500_000_000))
        commands.publish(JointTrajectory(joint_names=list(operator.contract.robot.joints), points=[point]))
        spin_until(operator, lambda: operator.statuses[-1].reason == "FOREIGN_COMMAND", "the reason")
        assert operator.statuses[-1].state == ExecutionStatus.HOLDING
        spin_until(operator, lambda: operator.statuses[-1].state == ExecutionStatus.IDLE, "the end of that motion")
        assert np.max(np.abs(operator.position - start)) < 0.02, "it was left alone"
        operator.drive(start - np.array([0.2, 0, 0, 0, 0, 0, 0]))
    operator.destroy_publisher(commands)
