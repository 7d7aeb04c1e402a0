"""A controller's parameters decide how trajectories are sent, and a person is told the exact repair."""

from __future__ import annotations

from typing import Any

import pytest

from corft.executor.controller_traits import STEP_S, Sending, traits

JOINTS = ("a", "b")
JAZZY: dict[str, Any] = {
    "joints": ["b", "a"], "command_interfaces": ["position"], "interpolation_method": "splines",
    "interpolate_from_desired_state": True, "use_sim_time": False}


def read(changes: dict[str, Any], read_only: set[str] | None = None) -> Any:
    return traits({**JAZZY, **changes}, read_only or set(), "arm_controller", JOINTS, False)


def test_a_well_set_controller_gets_stamped_trajectories_and_no_warning() -> None:
    found = read({})
    assert found.sending == Sending() and found.warnings == () and found.problem == ""


def test_a_controller_that_says_nothing_is_taken_to_be_well_set() -> None:
    found = traits({}, set(), "arm_controller", JOINTS, True)
    assert found.sending == Sending() and found.warnings == () and found.problem == ""


def test_one_that_joins_to_the_measured_state_gets_a_point_at_the_present_and_its_repair_is_a_command() -> None:
    found = read({"interpolate_from_desired_state": False})
    assert found.sending == Sending(lead_in=True)
    assert found.warnings[0].endswith("ros2 param set arm_controller interpolate_from_desired_state true")


def test_the_repair_of_a_read_only_parameter_is_the_yaml_since_param_set_would_be_refused() -> None:
    (warning,) = read({"interpolate_from_desired_state": False}, {"interpolate_from_desired_state"}).warnings
    assert "interpolate_from_desired_state: true under arm_controller/ros__parameters" in warning
    assert "param set" not in warning


def test_one_that_does_not_interpolate_gets_dense_points() -> None:
    assert read({"interpolation_method": "none"}).sending == Sending(step_s=STEP_S)


def test_on_another_clock_trajectories_carry_no_stamp() -> None:
    found = read({"use_sim_time": True})
    assert not found.sending.stamped and "ros2 param set arm_controller use_sim_time false" in found.warnings[0]


def test_replacement_and_upsampling_make_no_difference_and_are_said() -> None:
    found = read({"allow_trajectory_replacement": True, "positions_upsampling.enable": True,
                  "constraints.a.trajectory": 0.2})
    assert found.sending == Sending() and len(found.notes) == 3 and "a 0.2 rad" in found.notes[2]


def test_joints_whose_jumps_the_controller_would_pass_on_are_named() -> None:
    (warning,) = read({"constraints.a.trajectory": 0.2, "constraints.b.trajectory": 0.0}).warnings
    assert "no state tolerance for b" in warning and "ros2 param set arm_controller constraints.b.trajectory" in warning
    assert read({"constraints.a.trajectory": 0.2, "constraints.b.trajectory": 0.2}).warnings == ()


@pytest.mark.parametrize(("changes", "words"), [
    ({"joints": ["a", "c"]}, "arm_controller moves the joints a, c, the contract's are a, b"),
    ({"command_joints": ["a"]}, "arm_controller moves the joints a, the contract's"),
    ({"command_interfaces": ["acceleration"]}, "commands only acceleration"),
])
def test_a_controller_that_cannot_move_this_arm_is_a_problem(changes: dict[str, Any], words: str) -> None:
    assert words in read(changes).problem
