"""The executor and ros2_control's actions: FollowJointTrajectory, both gripper actions, the controller's own state.

Against a server of the documented interface; control_msgs itself is built in part where it is not installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from corft_msgs.msg import ExecutionStatus
from ros.arm_operator import BRAKED_S, Operator, enable, executor_on, operator_who_sees_the_arm
from ros.control_msgs_package import environment
from ros.graph import (
    ACTIVATE,
    CONFIGURE,
    CONTRACT,
    DEACTIVATE,
    ROOT,
    NodeProcess,
    call,
    change_state,
    running,
    spin_until,
    state_of,
)
from std_srvs.srv import SetBool

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]
ACTIONS = {"use_sim_time": False, "controller_interface": "action", "gripper_interface": "gripper_command",
           "gripper_effort": 20.0}


class Driver:
    """The process of ros.control_server and what it printed."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        self.variables, self._log = variables, log
        path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "corft_core"), str(ROOT / "ros2_ws" / "src" / "corft"),
                                variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))])
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ros.control_server", str(CONTRACT)], stdout=file, stderr=subprocess.STDOUT,
                env={**os.environ, **variables, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def set(self, operator: Operator, flag: str, value: bool) -> None:
        assert call(operator, SetBool, f"driver/{flag}", SetBool.Request(data=value)).success


@pytest.fixture(scope="module")
def driver(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(environment(), tmp_path_factory.mktemp("driver") / "output")
    yield driver
    driver.process.kill()
    driver.process.wait()
    print(driver.output)


@pytest.fixture(scope="module")
def operator(driver: Driver) -> Iterator[Operator]:
    with operator_who_sees_the_arm() as node:
        yield node


def reasons(operator: Operator) -> set[str]:
    return {status.reason for status in operator.statuses}


def test_chunks_become_goals_and_a_stop_is_one_too(operator: Operator, driver: Driver) -> None:
    with executor_on(operator, driver.variables, reset=False, **ACTIONS) as process:
        enable(operator)
        start = operator.position.copy()
        operator.drive(start + np.array([0.3, 0, 0, 0, 0, 0, 0]), opening=0.0)
        spin_until(operator, lambda: "gripper to 0.000 with 20" in driver.output, "the gripper's goal")
        assert driver.output.count("gripper to") == 1, "only a change is sent"
        operator.start_moving()
        assert call(operator, SetBool, f"{operator.arm_node}/enable", SetBool.Request(data=False)).success
        assert operator.wait_still() < 2.0
        assert operator.watch(0.5) < 0.01
        assert "gave up" not in process.output, "a goal that was replaced is no failure"


def brakes(operator: Operator, driver: Driver, process: NodeProcess, stop: Callable[[], object]) -> None:
    """``stop`` while the arm moves: the brake comes to the controller as a goal, and the arm stands in time."""
    enable(operator)
    operator.start_moving()
    goals = driver.output.count("trajectory of")
    stop()
    assert operator.wait_still() < BRAKED_S
    assert "braking: SHUTDOWN" in process.output and driver.output.count("trajectory of") > goals
    assert operator.watch(0.5) < 0.01


def test_deactivation_and_sigterm_reach_the_controller_before_the_process_ends(
        operator: Operator, driver: Driver) -> None:
    with executor_on(operator, driver.variables, reset=False, **ACTIONS) as process:
        brakes(operator, driver, process, lambda: change_state(operator, operator.arm_node, DEACTIVATE))
        assert state_of(operator, operator.arm_node) == "inactive"
        assert change_state(operator, operator.arm_node, ACTIVATE) == [True]
        brakes(operator, driver, process, lambda: process.process.send_signal(signal.SIGTERM))
        assert process.wait() == 0


def test_a_goal_that_is_rejected_or_given_up_stops_with_the_controllers_words(
        operator: Operator, driver: Driver) -> None:
    with executor_on(operator, driver.variables, reset=False, **ACTIONS) as process:
        enable(operator)
        operator.start_moving()
        driver.set(operator, "abort", True)
        spin_until(operator, lambda: "gave up: PATH_TOLERANCE_VIOLATED joint 1 is stuck" in process.output, "the words")
        spin_until(operator, lambda: "CONTROLLER_INACTIVE" in reasons(operator), "the reason")
        driver.set(operator, "abort", False)
        driver.set(operator, "reject", True)
        spin_until(operator, lambda: operator.statuses[-1].state in (ExecutionStatus.IDLE, ExecutionStatus.STOPPED))
        enable(operator)

        def rejected() -> bool:  # on a busy machine a chunk may come to nothing
            operator.send(operator.chunk(operator.position + 0.1))
            return "rejected the trajectory" in process.output

        spin_until(operator, rejected, "the rejection")
        driver.set(operator, "reject", False)


def test_a_controller_that_falls_silent_is_inactive(operator: Operator, driver: Driver) -> None:
    with executor_on(operator, driver.variables, reset=False, **ACTIONS):
        enable(operator)
        driver.set(operator, "silent", True)
        operator.statuses.clear()
        spin_until(operator, lambda: "CONTROLLER_INACTIVE" in reasons(operator), "the reason")
        answer = call(operator, SetBool, f"{operator.arm_node}/enable", SetBool.Request(data=True))
        assert not answer.success and "arm_controller has not published its state" in answer.message
        driver.set(operator, "silent", False)
        enable(operator)


def test_the_parallel_gripper_is_commanded_by_joint_name(operator: Operator, driver: Driver) -> None:
    parameters = {**ACTIONS, "gripper_interface": "parallel_gripper_command",
                  "gripper_controller": "parallel_controller"}
    with executor_on(operator, driver.variables, reset=False, **parameters):
        enable(operator)
        operator.drive(operator.position - np.array([0.1, 0, 0, 0, 0, 0, 0]), opening=1.0)
        spin_until(operator, lambda: "parallel gripper panda_finger_joint1 to 0.040" in driver.output, "its goal")


def test_without_control_msgs_the_error_says_what_to_install(operator: Operator) -> None:
    if not environment():
        pytest.skip("control_msgs is installed here")
    with running("executor_node", {"contract": CONTRACT, "controller_interface": "action"}, name="bare") as process:
        assert change_state(operator, "bare", CONFIGURE) == [False]
        assert "install ros-$ROS_DISTRO-control-msgs, or set controller_interface:=topic" in process.output
