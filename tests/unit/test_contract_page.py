"""Every YAML block of docs/contract.md is a contract, and the page names every key."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from corft_core.contract import CameraStream, Contract, Gripper, JointSource, Limits, ObservationStream, Robot, Stream
from corft_core.errors import ContractError

PAGE = (Path(__file__).parents[2] / "docs/contract.md").read_text()
WHOLE, *CHANGES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def over(base: Any, change: Any) -> Any:
    """``change`` put over ``base``, key by key."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: over(base.get(key), value) for key, value in change.items()}


def test_the_complete_example_is_a_contract() -> None:
    contract = Contract.from_dict(WHOLE)
    assert contract.gripper is not None and contract.gripper.to_opening(0.8) == 0.0
    assert len(CHANGES) >= 11


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_every_example_is_a_contract_when_put_over_it(change: dict[str, Any]) -> None:
    contract = Contract.from_dict(over(WHOLE, change))
    assert Contract.from_dict(contract.to_dict()) == contract
    assert contract.differences(Contract.from_dict(WHOLE))


def test_what_the_page_says_of_its_examples() -> None:
    made = [Contract.from_dict(over(WHOLE, change)) for change in CHANGES]
    assert {contract.action_space for contract in made} == {"joint", "tool_pose", "tool_twist"}
    assert any(contract.gripper is None for contract in made)
    bare = made[0]
    assert bare.arm_command.topic == bare.stream("gripper_command").topic
    steps = next(c for c in made if "joints" in str(c.to_dict()) and c.calibration("gripper_command").factor[0] < 0.1)
    assert steps.calibration("gripper_command").from_source([255.0])[0] == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("part,prefix", [
    (Robot, "robot."), (Gripper, "gripper."), (Limits, "limits."), (Stream, ""), (CameraStream, "cameras[]."),
    (ObservationStream, "observations[]."), (JointSource, "joints.<joint>.")])
def test_the_page_names_every_key(part: Any, prefix: str) -> None:
    shared = {"topic", "type", "stamp", "max_age_s", "qos", "on_stale"}
    for field in fields(part):
        name = field.name if field.name in shared else f"{prefix}{field.name}"
        name = {"joints": "joints.<joint>"}.get(name, name)
        assert f"`{name}`" in PAGE, name


def test_the_page_names_every_top_level_key_and_no_other() -> None:
    keys = {field.name for field in fields(Contract)}
    streams = {"joint_state", "arm_command", "gripper_command", "episode_event"}
    for key in keys - streams - {"robot", "limits", "workspace"}:
        assert f"| `{key}`" in PAGE, key
    for named in re.findall(r"^\| `([a-z_]+)[.\[`]", PAGE.split("## Types")[0], re.MULTILINE):
        assert named in keys | {"streams", "fields", "joints", "topic", "type", "stamp", "max_age_s", "on_stale", "qos"}


def test_poses_of_the_page_may_not_be_relative() -> None:
    with pytest.raises(ContractError, match="must be absolute"):
        Contract.from_dict(over(WHOLE, over(CHANGES[1], {"action_representation": "relative"})))
