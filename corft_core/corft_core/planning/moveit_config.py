"""Assemble MoveIt's parameters from plain YAML files, the contract and the robot description.

A MoveIt folder holds ``kinematics.yaml``, ``joint_limits.yaml``, ``ompl_planning.yaml``, ``moveit_controllers.yaml``
and ``moveit_py.yaml``, each with the keys that MoveIt's own tools read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from corft_core.contract import Contract
from corft_core.planning.description import RobotDescription
from corft_core.planning.interface import PlanningError

FILES = ("kinematics", "joint_limits", "ompl_planning", "moveit_controllers", "moveit_py")
_PLAIN = (str, int, float, bool)


def moveit_config(contract: Contract, folder: str | Path, description: RobotDescription,
                  joint_state_topic: str | None = None, use_sim_time: bool = False) -> dict[str, Any]:
    """The ``config_dict`` of ``MoveItPy``: plain str, number, bool, list and dict only.

    Raises PlanningError naming the file and key, also when velocity or acceleration limits differ from the contract's,
    which is the truth for both planners.
    """
    files = {name: _load(Path(folder) / f"{name}.yaml") for name in FILES}
    group = description.planning_group(contract.robot.joints)
    for name in ("kinematics", "ompl_planning"):
        if group not in files[name]:
            raise PlanningError(f"{Path(folder) / name}.yaml has no entry {group!r}, the SRDF's group of the arm")
    config = {**files["moveit_py"], **files["moveit_controllers"]}
    _require(config, folder, "planning_pipelines", "plan_request_params", "planning_scene_monitor_options",
             "moveit_controller_manager", "moveit_simple_controller_manager", "trajectory_execution")
    pipelines = config["planning_pipelines"]
    if not isinstance(pipelines, dict) or "ompl" not in pipelines.get("pipeline_names", ()):
        raise PlanningError(f"{Path(folder)}/moveit_py.yaml: planning_pipelines must be {{pipeline_names: [ompl]}}; "
                            "a bare list is what move_group reads, MoveItPy does not")
    _check_joint_limits(contract, files["joint_limits"], Path(folder) / "joint_limits.yaml")
    config |= {
        "robot_description": description.with_mesh_uris(),
        "robot_description_semantic": description.srdf,
        "robot_description_kinematics": files["kinematics"],
        "robot_description_planning": files["joint_limits"],
        "ompl": files["ompl_planning"],
        "use_sim_time": use_sim_time,
    }
    if joint_state_topic is not None:
        config["planning_scene_monitor_options"] = {**config["planning_scene_monitor_options"],
                                                    "joint_state_topic": joint_state_topic}
    _check_plain(config, "")
    return config


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise PlanningError(f"MoveIt configuration {path} cannot be read: {error}. A MoveIt folder holds "
                            f"{', '.join(f'{name}.yaml' for name in FILES)}.") from error
    except yaml.YAMLError as error:
        raise PlanningError(f"MoveIt configuration {path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise PlanningError(f"MoveIt configuration {path} must be a mapping, got {type(data).__name__}")
    return data


def _require(config: dict[str, Any], folder: str | Path, *keys: str) -> None:
    missing = [key for key in keys if key not in config]
    if missing:
        raise PlanningError(f"the MoveIt configuration in {folder} lacks {', '.join(missing)} "
                            "(moveit_py.yaml, moveit_controllers.yaml)")


def _check_joint_limits(contract: Contract, data: dict[str, Any], path: Path) -> None:
    limits = data.get("joint_limits", {})
    rows = zip(contract.robot.joints, contract.limits.velocity_rad_s, contract.limits.acceleration_rad_s2, strict=True)
    for name, velocity, acceleration in rows:
        wanted = {"has_velocity_limits": True, "max_velocity": velocity,
                  "has_acceleration_limits": True, "max_acceleration": acceleration}
        seen = {key: limits.get(name, {}).get(key) for key in wanted}
        if seen != wanted:
            raise PlanningError(f"{path}: {name} has {seen}, the contract says {wanted}; make them equal")


def _check_plain(value: Any, where: str) -> None:
    """MoveIt writes the dictionary as YAML: NumPy scalars, tuples and None would come out as something else."""
    if type(value) is dict:
        for key, item in value.items():
            _check_plain(item, f"{where}.{key}" if where else str(key))
    elif type(value) is list:
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif type(value) not in _PLAIN:
        raise PlanningError(f"MoveIt parameter {where} must be text, number, bool, list or mapping, got {value!r}")
