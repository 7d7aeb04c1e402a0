"""Both stages train, and the policy acts, for every action space, with and without gripper and extra observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_data import small_config, small_contract

from corft_core.contract import Contract
from corft_core.data.episode import Episode
from corft_core.learning.filters import no_ops
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.poses import pose_matrices, pose_vector

WRENCH = {"name": "wrench", "topic": "ft/wrench", "type": "geometry_msgs/msg/WrenchStamped", "stamp": "header",
          "fields": ["wrench.force.x", "wrench.force.z"], "max_age_s": 0.1}


def robot(command_type: str, *, gripper: bool, extra: bool = False, representation: str = "absolute") -> Contract:
    """The cell's robot, commanded by messages of ``command_type``."""
    plain: dict[str, Any] = small_contract().to_dict()
    plain["streams"]["arm_command"]["type"] = command_type
    plain["action_representation"] = representation
    plain["cameras"] = plain["cameras"][:1]
    if not gripper:
        del plain["gripper"], plain["streams"]["gripper_command"]
    if extra:
        plain["observations"] = [WRENCH]
    return Contract.from_dict(plain)


def demonstrations(contract: Contract, episodes: int = 6, steps: int = 8) -> EpisodesInMemory:
    """Smooth commands; the arm stands still on two steps of each episode."""
    rng, made = np.random.default_rng(0), []
    for number in range(episodes):
        state = rng.normal(0.0, 0.3, (steps, len(contract.state_names)))
        drift = np.cumsum(rng.normal(0.0, 0.05, (steps, len(contract.action_names))), 0)
        action = drift
        if contract.action_space == "joint":
            action[:, :7] += state[:, :7]
        elif contract.action_space == "tool_pose":
            turned = rng.normal(size=(steps, 4))
            turned /= np.linalg.norm(turned, axis=1, keepdims=True)
            action[:, :9] = [pose_vector(row[:3], q) for row, q in zip(drift, turned, strict=True)]
        for vectors, place in ((state, contract.state_gripper), (action, contract.action_gripper)):
            if place is not None:
                vectors[:, place] = np.arange(steps) > steps // 2
        image = rng.integers(0, 255, (steps, 32, 32, 3)).astype(np.uint8)
        made.append(Episode({"front": image}, state.astype(np.float32), action.astype(np.float32), "go",
                            number != episodes - 1, f"demo/{number}"))
    return EpisodesInMemory(contract, made)


@pytest.mark.parametrize("contract", [
    pytest.param(robot("trajectory_msgs/msg/JointTrajectory", gripper=False, representation="relative"),
                 id="joints-relative-no-gripper"),
    pytest.param(robot("std_msgs/msg/Float64MultiArray", gripper=True, extra=True, representation="relative"),
                 id="joints-relative-extra"),
    pytest.param(robot("geometry_msgs/msg/PoseStamped", gripper=True), id="tool-pose"),
    pytest.param(robot("geometry_msgs/msg/TwistStamped", gripper=False, extra=True), id="tool-twist-no-gripper"),
])
def test_both_stages_train_and_the_policy_acts(contract: Contract, tmp_path: Path) -> None:
    data = demonstrations(contract)
    run = train(data, tmp_path / "run", small_config(sft__filter="no_ops"), quiet=True)
    policy = Policy.load(run / "checkpoints/co_rft", robot=contract)
    episode = data.episodes[0]
    prediction = policy.act({"front": episode.images["front"][:2]}, episode.state[:2], ["go", "go"])
    assert prediction.actions.shape == (2, 3, len(contract.action_names))
    assert np.all(np.isfinite(prediction.actions))
    if contract.action_gripper is not None:
        openings = prediction.actions[..., contract.action_gripper]
        assert np.all((openings >= 0.0) & (openings <= 1.0))
    if contract.action_space == "tool_pose":
        rotation = pose_matrices(prediction.actions[..., :9])[..., :3, :3]
        assert rotation @ rotation.swapaxes(-1, -2) == pytest.approx(np.broadcast_to(np.eye(3), rotation.shape))


def test_a_standing_twist_is_a_no_op() -> None:
    contract = robot("geometry_msgs/msg/Twist", gripper=False)
    action = np.zeros((5, 6), np.float32)
    action[[1, 3], 0] = 0.1
    images, state = {"front": np.zeros((5, 32, 32, 3), np.uint8)}, np.zeros((5, 7), np.float32)
    data = EpisodesInMemory(contract, [Episode(images, state, action, "go", True, "demo/0")])
    assert no_ops(data, 0.002, 0.01).tolist() == [False, False, True, False, False]
