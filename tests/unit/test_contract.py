"""The contract refuses what it does not understand, names the key, and survives a round trip."""

from __future__ import annotations

import copy
from pathlib import Path

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
