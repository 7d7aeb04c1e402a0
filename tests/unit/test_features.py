"""Features without cameras: files, networks, training, acting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_data import small_config, small_contract, square_data

from corft_core.contract import load_features
from corft_core.data.episode import Episode
from corft_core.errors import CorftError
from corft_core.features import StateFeatures, differences, image_size
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import CheckpointError, Policy, load_checkpoint
from corft_core.policy.backbones import BackboneError, make_backbone

FEATURES = StateFeatures(("x", "goal", "speed", "opening"), ("push", "grip"), 20)


def goal_data(episodes: int = 12, steps: int = 15, seed: int = 0) -> EpisodesInMemory:
    """A point on a line: the push is 2 (goal − x); the grip closes at the goal."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(episodes):
        x, goal, states, actions = rng.uniform(-1, 1), rng.uniform(-1, 1), [], []
        for _ in range(steps):
            push, grip = 2.0 * (goal - x), float(abs(goal - x) > 0.1)
            states.append([x, goal, rng.normal(), grip])
            actions.append([push, grip])
            x += 0.1 * push
        made.append(Episode({}, np.float32(states), np.float32(actions), "reach", True, f"line/{number}"))
    return EpisodesInMemory(FEATURES, made)


@pytest.mark.parametrize("head", ["flow", "chunk"])
def test_a_state_task_is_trained_saved_loaded_and_acts(head: str, tmp_path: Path) -> None:
    config = small_config(
        policy__backbone="none", policy__backbone_options={}, policy__head__kind=head, sft__steps=200, sft__batch=64,
        sft__ema=0.9, co_rft__extraction="awr",
    )
    run = train(goal_data(), tmp_path / "run", config, quiet=True)
    policy = Policy.load(run / "checkpoints/co_rft")
    assert policy.features == FEATURES and policy.rate_hz == 20
    state = np.array([[-0.5, 0.5, 0.0, 1.0], [0.5, -0.5, 0.0, 1.0]])
    first, second = (policy.act({}, state, ["reach"] * 2, torch.Generator().manual_seed(1)) for _ in range(2))
    assert np.array_equal(first.actions, second.actions) and first.actions.shape == (2, 3, 2)
    assert np.all(np.isfinite(first.value))
    assert first.actions[0, 0, 0] > 0.7 and first.actions[1, 0, 0] < -0.7
    assert np.all((first.actions[..., -1] >= 0.0) & (first.actions[..., -1] <= 1.0))
    with pytest.raises(CorftError, match="drives no robot"):
        policy.contract  # noqa: B018
    with pytest.raises(CheckpointError, match="another robot"):
        load_checkpoint(run / "checkpoints/sft", small_contract())


def test_one_state_does_not_see_its_batch(tmp_path: Path) -> None:
    config = small_config(policy__backbone="none", policy__backbone_options={}, policy__head__kind="chunk",
                          co_rft__extraction="awr")
    policy = Policy.load(train(goal_data(3), tmp_path / "run", config, quiet=True) / "checkpoints/sft")
    state = np.random.default_rng(0).normal(size=(5, 4))
    together = policy.act({}, state, ["reach"] * 5).actions
    alone = np.concatenate([policy.act({}, state[i : i + 1], ["reach"]).actions for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_features_read_back_from_a_file(tmp_path: Path) -> None:
    for features in (FEATURES, small_contract()):
        path = tmp_path / "contract.json"
        path.write_text(json.dumps(features.to_dict()))
        assert load_features(path) == features
    assert image_size(FEATURES) == (0, 0) and image_size(small_contract(48)) == (48, 48)


def test_differences_name_the_key() -> None:
    assert differences(FEATURES, FEATURES) == []
    slower = StateFeatures(FEATURES.state_names, FEATURES.action_names, 10)
    assert differences(FEATURES, slower) == ["rate_hz: 20 != 10"]
    assert any(line.startswith("robot.") for line in differences(FEATURES, small_contract()))


@pytest.mark.parametrize(("change", "message"), [
    ({"rate_hz": 0}, "rate_hz"), ({"state_names": ["x", "x"]}, "state_names must be distinct"),
    ({"state_features_version": 9}, "this corft reads 1"), ({"cameras": []}, "hold the keys"),
])
def test_bad_features_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(FEATURES.to_dict() | change))
    with pytest.raises(CorftError, match=f"contract.json: .*{message}"):
        load_features(path)


def test_backbone_and_cameras_must_fit(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"policy\.backbone=none"):
        train(goal_data(3), tmp_path / "a", small_config(), quiet=True)
    with pytest.raises(BackboneError, match="sees no camera, the data have 2"):
        train(square_data(3), tmp_path / "b", small_config(policy__backbone="none", policy__backbone_options={}),
              quiet=True)
    assert make_backbone("none", cameras=0, image_size=(0, 0)).frozen
