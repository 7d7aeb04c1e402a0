"""MoveIt's parameters and messages, as far as they can be checked without MoveIt."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

from corft_core.contract import Contract
from corft_core.planning import PlanningError, make_planner, resolve_description
from corft_core.planning.moveit_config import moveit_config

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
DESCRIPTION = resolve_description(CONTRACT.robot.description)


def plain(value) -> bool:
    if type(value) is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(plain, value))
    return type(value) in (str, int, float, bool)


def test_parameters_are_plain_and_complete() -> None:
    config = moveit_config(CONTRACT, CELL / "moveit", DESCRIPTION)
    assert plain(config)
    assert yaml.safe_load(yaml.dump(config)) == config
    assert config["planning_pipelines"] == {"pipeline_names": ["ompl"]}
    assert config["plan_request_params"]["planning_pipeline"] == "ompl"
    planner_id = config["plan_request_params"]["planner_id"]
    assert planner_id in config["ompl"]["planner_configs"]
    assert planner_id in config["ompl"]["arm"]["planner_configs"]
    assert config["ompl"]["planning_plugins"] == ["ompl_interface/OMPLPlanner"]
    assert set(config["robot_description_kinematics"]) == {"arm"}
    assert "package://" not in config["robot_description"]
    assert 'filename="file:///' in config["robot_description"]
    assert config["robot_description_semantic"].count("disable_collisions") > 20


def test_limits_are_the_contracts() -> None:
    config = moveit_config(CONTRACT, CELL / "moveit", DESCRIPTION)
    limits = config["robot_description_planning"]["joint_limits"]
    assert config["robot_description_planning"]["default_velocity_scaling_factor"] == 1.0
    for k, name in enumerate(CONTRACT.robot.joints):
        assert limits[name]["max_acceleration"] == CONTRACT.limits.acceleration_rad_s2[k]
        assert limits[name]["max_velocity"] == CONTRACT.limits.velocity_rad_s[k]


def test_the_controller_takes_the_contracts_joints() -> None:
    config = moveit_config(CONTRACT, CELL / "moveit", DESCRIPTION)
    manager = config["moveit_simple_controller_manager"]
    controller = manager[manager["controller_names"][0]]
    assert controller["joints"] == list(CONTRACT.robot.joints)
    assert controller["type"] == "FollowJointTrajectory"
    assert f"{manager['controller_names'][0]}/joint_trajectory" == CONTRACT.arm_command.topic


def test_simulated_time_and_the_joint_state_topic_can_be_set() -> None:
    config = moveit_config(CONTRACT, CELL / "moveit", DESCRIPTION, "left/joint_states", use_sim_time=True)
    assert config["use_sim_time"] is True
    assert config["planning_scene_monitor_options"]["joint_state_topic"] == "left/joint_states"


@pytest.mark.parametrize("file, old, new, message", [
    ("joint_limits.yaml", "max_velocity: 2.61", "max_velocity: 9.0", "panda_joint5 has"),
    ("kinematics.yaml", "arm:", "manipulator:", "no entry 'arm'"),
    ("moveit_py.yaml", "  pipeline_names: [ompl]", "  - ompl", "bare list"),
    ("moveit_py.yaml", "plan_request_params", "plan_requests", "lacks plan_request_params"),
    ("ompl_planning.yaml", "planner_configs:", "planner_configs: [", "not valid YAML"),
    ("moveit_py.yaml", "planning_attempts: 1", "planning_attempts: null", "planning_attempts must be text, number"),
])
def test_mistakes_in_the_files_are_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    folder = tmp_path / "moveit"
    shutil.copytree(CELL / "moveit", folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(PlanningError, match=message):
        moveit_config(CONTRACT, folder, DESCRIPTION)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanningError, match=r"kinematics\.yaml cannot be read"):
        moveit_config(CONTRACT, tmp_path, DESCRIPTION)


@pytest.mark.skipif(importlib.util.find_spec("moveit") is not None, reason="MoveIt is installed")
def test_without_moveit_the_error_says_what_to_install() -> None:
    with pytest.raises(PlanningError, match=r"apt install ros-\$ROS_DISTRO-moveit .*planner:=embedded"):
        make_planner("moveit", CONTRACT, config=CELL / "moveit")
