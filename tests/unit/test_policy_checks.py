"""Which checkpoints may drive a robot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from corft.policy.checks import check_robot, checkpoint_folder, contract_conflicts, staleness
from corft_core.contract import Contract
from corft_core.errors import CorftError

CONTRACT = Path(__file__).parents[2] / "ros2_ws" / "src" / "corft" / "config" / "panda_cell" / "contract.yaml"


def changed(change: Callable[[dict[str, Any]], object]) -> Contract:
    data = yaml.safe_load(CONTRACT.read_text())
    change(data)
    return Contract.from_dict(data)


@pytest.mark.parametrize("change", [
    lambda data: data["limits"].update(max_chunk_age_s=0.5),
    lambda data: data["workspace"].update(min_m=[0.2, -0.5, 0.1]),
    lambda data: data["robot"].update(description="my_panda.urdf", home_rad=[0.0] * 7),
    lambda data: data["cameras"][0].update(topic="camera/image/compressed",
                                           type="sensor_msgs/msg/CompressedImage", qos="reliable", max_age_s=0.1),
    lambda data: data["streams"]["joint_state"].update(topic="/franka/joint_states", stamp="receive"),
    lambda data: data["streams"]["joint_state"].update(joints={"panda_joint1": {"name": "a1", "unit": "deg"}}),
    lambda data: data["streams"]["arm_command"].update(topic="joint_command", type="sensor_msgs/msg/JointState"),
    lambda data: data.update(instruction="put the cube into the bin"),
])
def test_a_robot_may_differ_in_topics_ages_and_limits(change: Callable[[dict[str, Any]], object]) -> None:
    assert contract_conflicts(Contract.load(CONTRACT), changed(change)) == []


@pytest.mark.parametrize(("change", "key"), [
    (lambda data: data.update(rate_hz=20), "rate_hz"),
    (lambda data: data["robot"].update(name="other"), "robot.name"),
    (lambda data: data["robot"]["joints"].reverse(), "robot.joints"),
    (lambda data: data["gripper"].update(open_position=0.0, closed_position=0.04), "gripper.open_position"),
    (lambda data: data.update(action_representation="absolute"), "action_representation"),
    (lambda data: data["cameras"][1].update(size=[96, 96]), "cameras.wrist.size"),
    (lambda data: data["cameras"][1].update(crop=[0, 0, 64, 64]), "cameras.wrist.crop"),
    (lambda data: data["cameras"].pop(), "cameras.wrist"),
    (lambda data: data.update(action_representation="absolute") or data["streams"]["arm_command"].update(
        topic="servo/pose", type="geometry_msgs/msg/PoseStamped"), "action_space: joint != tool_pose"),
    (lambda data: (data.pop("gripper"), data["streams"].pop("gripper_command")), "state_names"),
])
def test_a_robot_whose_data_mean_something_else_is_refused(
        change: Callable[[dict[str, Any]], object], key: str) -> None:
    with pytest.raises(CorftError, match=f"another robot.*{key}"):
        check_robot(Contract.load(CONTRACT), changed(change), Path("run"))


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    for text, message in (("", "is empty"), (str(tmp_path / "none"), "no folder"), (str(tmp_path), "no config.json")):
        with pytest.raises(CorftError, match=message):
            checkpoint_folder(text)
    (tmp_path / "config.json").touch()
    assert checkpoint_folder(str(tmp_path)) == tmp_path


def test_a_stale_stream_is_described_with_age_limit_and_topic() -> None:
    contract = Contract.load(CONTRACT)
    assert staleness(contract, "front", 0.351) == "front 0.35 s old (limit 0.25 s, topic front_camera/image_raw)"
    assert staleness(contract, "joint_state", None).startswith("joint_state never received")
