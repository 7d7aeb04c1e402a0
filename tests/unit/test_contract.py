"""The contract refuses what it does not understand, names the key, and survives a round trip."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corft_core.contract import Contract
from corft_core.errors import ContractError

PATH = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml"


@pytest.fixture
def plain() -> dict:
    return yaml.safe_load(PATH.read_text())


def test_the_cells_contract_loads_and_survives_a_round_trip():
    contract = Contract.load(PATH)
    assert Contract.from_dict(contract.to_dict()) == contract
    assert contract.step_ns == 100_000_000
    assert contract.state_names[-1] == "gripper" and len(contract.action_names) == 8


@pytest.mark.parametrize("where", [(), ("robot",), ("gripper",), ("streams",), ("streams", "joint_state"), ("limits",),
                                   ("cameras", 0), ("workspace",)])
def test_an_unknown_key_is_an_error_that_names_it_at_every_level(plain, where):
    target = plain
    for key in where:
        target = target[key]
    target["max_agee_s"] = 1
    with pytest.raises(ContractError, match="unknown key max_agee_s"):
        Contract.from_dict(plain)


@pytest.mark.parametrize("path,value,message", [
    (("rate_hz",), 0, "rate_hz must be a positive whole number"),
    (("rate_hz",), "10", "rate_hz"),
    (("action_representation",), "delta", "action_representation must be one of relative, absolute"),
    (("gripper", "closed_position"), 0.04, "must differ"),
    (("robot", "home_rad"), [0.0], "home_rad needs 7 values"),
    (("robot", "joints"), ["a", "a"], "distinct"),
    (("limits", "velocity_rad_s"), [1, 1, 1, 1, 1, 1, -1], "velocity_rad_s"),
    (("limits", "jerk_rad_s3"), [1, 1, 1, 1, 1, 1, float("nan")], "finite"),
    (("workspace", "min_m"), [9, 9, 9], "below"),
    (("cameras", 0, "size"), [128], "needs 2 values"),
    (("cameras", 0, "name"), "wrist", "distinct names"),
    (("cameras", 0, "type"), "sensor_msgs/msg/PointCloud2", "must be one of"),
    (("streams", "joint_state", "stamp"), "wall", "must be one of header, receive"),
    (("contract_version",), 99, "contract_version"),
])
def test_a_wrong_value_is_an_error_that_says_what_was_expected(plain, path, value, message):
    target = plain
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ContractError, match=message):
        Contract.from_dict(plain)


@pytest.mark.parametrize("key", ["robot", "rate_hz", "cameras", "streams", "limits"])
def test_a_missing_key_is_named(plain, key):
    del plain[key]
    with pytest.raises(ContractError, match=f"lacks the key {key}"):
        Contract.from_dict(plain)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: (st.lists(inner, max_size=3)
                                   | st.dictionaries(st.text(max_size=5), inner, max_size=3))))
def test_any_other_data_gives_a_contract_error_and_nothing_else(data):
    with pytest.raises(ContractError):
        Contract.from_dict(data)


def test_an_unknown_key_suggests_the_nearest_known_one(plain):
    stream = plain["streams"]["joint_state"]
    stream["max_ages"] = stream.pop("max_age_s")
    with pytest.raises(ContractError, match=r"max_ages in streams.joint_state \(did you mean max_age_s\?\)"):
        Contract.from_dict(plain)


def without_gripper(plain: dict) -> None:
    del plain["gripper"], plain["streams"]["gripper_command"]


def change(path: str, value: Any) -> Callable[[dict], None]:
    """Sets the value at a dotted path."""
    def apply(plain: dict) -> None:
        *parents, last = path.split(".")
        target: Any = plain
        for key in parents:
            target = target[int(key)] if key.isdigit() else target.setdefault(key, {})
        target[last] = value
    return apply


ARM, STATE, GRIPPER = "streams.arm_command", "streams.joint_state", "streams.gripper_command"
WRENCH = {"name": "wrench", "topic": "wrench", "type": "geometry_msgs/msg/WrenchStamped", "stamp": "header",
          "fields": ["wrench.force.x", "wrench.force.y"], "max_age_s": 0.1}


@pytest.mark.parametrize("changes,message", [
    ([change("gripper", None)], "needs the key gripper"),
    ([lambda p: p["streams"].pop("gripper_command")], "lacks the key gripper_command"),
    ([lambda p: p["streams"].pop("episode_event")], "write `episodes: bag`"),
    ([change("episodes", "files")], "episodes must be one of events, bag"),
    ([change("gripper.joint", "panda_joint1")], "gripper.joint must not be one of robot.joints"),
    ([change("robot.park_rad", [0.0])], "robot.park_rad needs 7 values"),
    ([change(f"{STATE}.on_stale", "keep")], "on_stale must be one of drop, hold"),
    ([change(f"{STATE}.type", "my_msgs/msg/Joints")], "or any other together with streams.joint_state.fields"),
    ([change(f"{STATE}.fields", ["data[0:7]"])], "needs 8 paths, one for each of panda_joint1"),
    ([change(f"{STATE}.fields", ["data[3:3]"])], "range .3:3. is empty"),
    ([change(f"{STATE}.fields", ["data["])], "no field path"),
    ([change(f"{STATE}.joints", {"panda_joint9": {}})], "joints may name panda_joint1"),
    ([change(f"{STATE}.joints", {"panda_joint1": {"unit": "grad"}})], "unit must be one of rad, deg, m, mm"),
    ([change(f"{STATE}.joints", {"panda_joint1": {"scale": 0}})], "scale must not be 0"),
    ([change(f"{STATE}.joints", {"panda_joint1": {"name": "panda_joint2"}})], "a name of its own"),
    ([change(f"{STATE}.joints", {"panda_joint1": {"offset_rad": 1}})], "did you mean offset"),
    ([change(f"{GRIPPER}.joints", {"panda_finger_joint1": {"name": "a"}})], "messages carry no joint names"),
    ([change(f"{ARM}.type", "geometry_msgs/msg/Twist")], "action_representation must be absolute"),
    ([change(f"{ARM}.type", "geometry_msgs/msg/Pose"), change("action_representation", "absolute"),
      change(f"{ARM}.joints", {"panda_joint1": {"unit": "deg"}})], "not possible with geometry_msgs/msg/Pose"),
    ([change("observations", [WRENCH, WRENCH])], "distinct names"),
    ([change("observations", [WRENCH | {"fields": []}])], "at least one field"),
    ([change("observations", [WRENCH | {"fields": ["x"], "name": "gripper"}])], "must differ from the joints"),
    ([change("observations", [WRENCH | {"scale": 0}])], "observations.wrench.scale"),
    ([change("cameras.0.depth_range_m", [1.0, 0.5])], "near < far"),
    ([change("streams.episode_event.fields", ["kind"])], "episode events are"),
])
def test_parts_that_do_not_fit_together_are_named(plain, changes, message):
    for apply in changes:
        apply(plain)
    with pytest.raises(ContractError, match=message):
        Contract.from_dict(plain)


@pytest.mark.parametrize("kind,space,names", [
    ("trajectory_msgs/msg/JointTrajectory", "joint", 7), ("sensor_msgs/msg/JointState", "joint", 7),
    ("std_msgs/msg/Float64MultiArray", "joint", 7), ("geometry_msgs/msg/PoseStamped", "tool_pose", 9),
    ("geometry_msgs/msg/Pose", "tool_pose", 9), ("geometry_msgs/msg/TwistStamped", "tool_twist", 6),
    ("geometry_msgs/msg/Twist", "tool_twist", 6)])
@pytest.mark.parametrize("gripper", [True, False])
def test_the_command_type_decides_the_action_space(plain, kind, space, names, gripper):
    plain["streams"]["arm_command"]["type"], plain["action_representation"] = kind, "absolute"
    plain["observations"] = [WRENCH]
    if not gripper:
        without_gripper(plain)
    contract = Contract.from_dict(plain)
    assert contract.action_space == space and len(contract.action_names) == names + gripper
    assert len(contract.state_names) == 7 + gripper + 2 and contract.state_names[-1] == "wrench.1"
    assert contract.state_gripper == (7 if gripper else None)
    assert contract.action_gripper == (names if gripper else None)
    assert contract.observation_streams == ("joint_state", "front", "wrist", "wrench")
    assert ("gripper_command" in contract.streams) is gripper
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract
    assert Contract.from_dict(yaml.safe_load(yaml.safe_dump(contract.to_dict()))) == contract


def test_everything_optional_survives_a_round_trip_and_is_compared(plain):
    mine = Contract.from_dict(copy.deepcopy(plain))
    plain |= {"instruction": "pick", "episodes": "bag", "observations": [WRENCH]}
    plain["streams"]["joint_state"] |= {"on_stale": "hold", "joints": {"panda_joint1": {"name": "a", "unit": "deg"}}}
    plain["streams"]["arm_command"] |= {"type": "my_msgs/msg/Cmd", "fields": ["q[0:7]"]}
    plain["cameras"][0]["depth_range_m"] = [0.2, 1.5]
    plain["robot"]["park_rad"] = [0.0] * 7
    del plain["streams"]["episode_event"]
    theirs = Contract.from_dict(plain)
    assert theirs.arm_command.fields == tuple(f"q[{i}]" for i in range(7)) and theirs.action_space == "joint"
    assert Contract.from_dict(json.loads(json.dumps(theirs.to_dict()))) == theirs
    changed = {line.split(":")[0] for line in mine.differences(theirs)}
    assert changed >= {"instruction", "episodes", "observations.wrench.topic", "streams.joint_state.on_stale",
                       "streams.joint_state.joints.panda_joint1.unit", "streams.arm_command.fields",
                       "cameras.front.depth_range_m", "robot.park_rad", "streams.episode_event.topic"}


numbers = st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3)


@given(unit=st.sampled_from(["rad", "deg", "m", "mm"]), scale=numbers, offset=st.floats(-10, 10),
       value=st.floats(-1e3, 1e3))
def test_calibration_and_its_inverse(unit, scale, offset, value):
    plain = yaml.safe_load(PATH.read_text())
    plain["streams"]["joint_state"]["joints"] = {"panda_joint2": {"unit": unit, "scale": scale, "offset": offset}}
    calibration = Contract.from_dict(plain).calibration("joint_state")
    raw = np.zeros(8)
    raw[1] = value
    si = calibration.from_source(raw)
    factor = {"rad": 1.0, "deg": np.pi / 180, "m": 1.0, "mm": 1e-3}[unit]
    assert si[1] == pytest.approx(scale * factor * value + offset, rel=1e-12, abs=1e-12)
    assert calibration.rate_from_source(raw)[1] == pytest.approx(scale * factor * value, rel=1e-12)
    tolerance = 1e-9 * (1 + abs(offset) / abs(scale * factor))
    assert calibration.to_source(si)[1] == pytest.approx(value, rel=1e-9, abs=tolerance)
    assert calibration.rate_to_source(calibration.rate_from_source(raw))[1] == pytest.approx(value, rel=1e-12)
    assert np.array_equal(np.delete(si, 1), np.zeros(7))


def test_a_calibration_is_over_the_streams_own_joints(plain):
    plain["streams"]["gripper_command"]["joints"] = {"panda_finger_joint1": {"unit": "mm"}}
    contract = Contract.from_dict(plain)
    assert contract.calibration("joint_state").names == contract.joint_names
    assert contract.calibration("arm_command").names == contract.robot.joints
    assert contract.calibration("gripper_command").to_source([0.04]) == pytest.approx([40.0])
    for name in ("front", "episode_event", "nothing"):
        with pytest.raises(KeyError):
            contract.calibration(name)


def test_a_file_that_is_missing_or_not_yaml_gives_a_contract_error(tmp_path):
    with pytest.raises(ContractError, match="cannot be read"):
        Contract.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1, 2")
    with pytest.raises(ContractError, match="not valid"):
        Contract.load(tmp_path / "bad.yaml")


def test_differences_name_the_keys_of_another_robot(plain):
    mine = Contract.from_dict(copy.deepcopy(plain))
    plain["robot"]["name"] = "other"
    plain["cameras"][1]["size"] = [96, 96]
    assert mine.differences(mine) == []
    lines = mine.differences(Contract.from_dict(plain))
    assert len(lines) == 2 and lines[0].startswith("cameras.wrist.size") and lines[1].startswith("robot.name")


@given(st.floats(0, 1))
def test_gripper_opening_and_position_are_inverse(opening):
    gripper = Contract.load(PATH).gripper
    assert gripper.to_opening(gripper.to_position(opening)) == pytest.approx(opening, abs=1e-12)
