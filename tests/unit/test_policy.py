"""Checkpoints and Policy.act."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_data import BLUE, RED, small_config, small_contract, square_data

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.learning.trainer import train
from corft_core.policy import CheckpointError, Policy, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(square_data(), tmp_path_factory.mktemp("policy") / "run", small_config(), quiet=True)


def observation(count: int = 3) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8) for name in ("front", "wrist")}
    return images, rng.normal(size=(count, 8)), [RED, BLUE, "something else"][:count]


def test_chunk_is_absolute_finite_and_shaped(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/co_rft")
    images, state, texts = observation()
    prediction = policy.act(images, state, texts, torch.Generator().manual_seed(0))
    assert prediction.actions.shape == (3, 3, 8) and prediction.actions.dtype == np.float64
    assert prediction.value.shape == (3,) and np.all(np.isfinite(prediction.value))
    assert np.all(np.isfinite(prediction.actions))
    assert np.all((prediction.actions[..., -1] >= 0) & (prediction.actions[..., -1] <= 1))
    reach = policy.bundle.statistics
    limit = np.maximum(abs(reach.action_low), abs(reach.action_high)).max() * 1.3 + 0.1
    assert np.all(np.abs(prediction.actions[..., :-1] - state[:, None, :-1]) < limit), "relative to the measured joints"


def test_critic_less_checkpoint_has_nan_value_and_draws_one_chunk(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/sft")
    assert policy.samples == 1 and Policy.load(run / "checkpoints/co_rft").samples == 4
    assert np.all(np.isnan(policy.act(*observation()).value))


def test_same_generator_same_chunk(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/co_rft")
    first, second = (policy.act(*observation(), torch.Generator().manual_seed(5)).actions for _ in range(2))
    assert np.array_equal(first, second)


def test_best_chunk_has_the_largest_value(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/co_rft")
    images, state, texts = observation()
    one = policy.act(images, state, texts, torch.Generator().manual_seed(0))
    policy.samples = 64
    many = policy.act(images, state, texts, torch.Generator().manual_seed(0))
    assert many.value.mean() > one.value.mean()


def test_policy_describes_itself(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/co_rft")
    assert policy.horizon == 3 and policy.rate_hz == 10
    assert set(policy.instructions) == {RED, BLUE}
    assert policy.policy_id.endswith("-co_rft")
    assert policy.contract == small_contract()


def test_saving_what_was_loaded_changes_nothing(run: Path, tmp_path: Path) -> None:
    bundle = load_checkpoint(run / "checkpoints/co_rft")
    save_checkpoint(tmp_path / "copy", bundle)
    for name in ("model.safetensors", "contract.json", "statistics.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (run / "checkpoints/co_rft" / name).read_bytes()


def test_checkpoint_of_another_robot_is_refused_with_the_differences(run: Path) -> None:
    data = small_contract().to_dict()
    data["robot"]["joints"] = [f"arm_{i}" for i in range(7)]
    with pytest.raises(CheckpointError, match=r"another robot[\s\S]*robot.joints"):
        load_checkpoint(run / "checkpoints/sft", Contract.from_dict(data))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "contract.json", "statistics.json"])
def test_missing_file_is_named(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run / "checkpoints/sft", tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / "c")


def test_truncated_weights_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints/sft", tmp_path / "c")
    weights = tmp_path / "c/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c")


def edit(folder: Path, **changes: object) -> None:
    header = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        header[key] = value
    (folder / "config.json").write_text(json.dumps(header))


def test_other_format_version_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints/sft", tmp_path / "c")
    edit(tmp_path / "c", format_version=99)
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(tmp_path / "c")


def test_loading_is_strict_both_ways(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints/sft", tmp_path / "less")
    edit(tmp_path / "less", critic=True)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(tmp_path / "less")
    shutil.copytree(run / "checkpoints/co_rft", tmp_path / "more")
    edit(tmp_path / "more", critic=False)
    with pytest.raises(CheckpointError, match="nobody asked for"):
        load_checkpoint(tmp_path / "more")


def test_wrong_observation_is_explained(run: Path) -> None:
    policy = Policy.load(run / "checkpoints/sft")
    images, state, texts = observation()
    with pytest.raises(CorftError, match="cameras"):
        policy.act({"front": images["front"]}, state, texts)
    with pytest.raises(CorftError, match="state must be"):
        policy.act(images, state[:, :7], texts)
    with pytest.raises(CorftError, match="images of wrist"):
        policy.act(images | {"wrist": images["wrist"][:, :16]}, state, texts)
