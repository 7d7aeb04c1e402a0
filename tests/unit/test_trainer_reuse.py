"""What a run takes from an earlier one: stage 1, critic, features; and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_data import small_config, square_data

from corft_core.errors import CorftError
from corft_core.learning import trainer
from corft_core.learning.frames import CachedFrames
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.sft import SFTStage
from corft_core.learning.trainer import FeatureCache, train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy.options import ConfigError

FROZEN = {"policy__backbone_options": {"channels": 16, "text_dim": 16, "trainable": "none"}}


def weights(run: Path, stage: str) -> bytes:
    return (run / "checkpoints" / stage / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(square_data(failures=1), tmp_path_factory.mktemp("earlier") / "run", small_config(), quiet=True)


def refuse_stage_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("stage 1 was trained")

    monkeypatch.setattr(SFTStage, "step", refuse)


def stages(run: Path) -> set[str]:
    return {row["stage"] for row in RunFolder(run).metrics()}


def test_taken_stage_one_and_critic_give_the_run_that_trains_both(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small_config(co_rft__temperature=1.0)
    whole = train(square_data(failures=1), tmp_path / "whole", other, quiet=True)
    refuse_stage_one(monkeypatch)
    taken = train(square_data(failures=1), tmp_path / "taken", other, init=earlier, quiet=True)
    assert stages(taken) == {"actor"}
    for stage in ("sft", "co_rft"):
        assert weights(taken, stage) == weights(whole, stage)


def test_critic_with_other_settings_is_trained_anew(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_stage_one(monkeypatch)
    config = small_config(co_rft__alpha=0.7, policy__critic__width=12)
    run = train(square_data(failures=1), tmp_path / "run", config, init=earlier, quiet=True)
    assert stages(run) == {"critic", "actor"}
    assert weights(run, "sft") == weights(earlier, "sft")


@pytest.mark.parametrize(("pairs", "message"), [
    ({"sft__steps": 7}, "sft.steps = 6 there, 7 here"),
    ({"policy__head__width": 16}, "policy.head.width = 32 there, 16 here"),
    ({"held_out": 1}, "held_out = 0 there, 1 here"),
])
def test_other_settings_of_stage_one_are_named(
    pairs: dict[str, object], message: str, earlier: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(square_data(failures=1), tmp_path / "run", small_config(**pairs), init=earlier, quiet=True)
    assert not (tmp_path / "run").exists()


def brighter(data: EpisodesInMemory) -> EpisodesInMemory:
    """The same with one pixel of the last frame changed."""
    last = data.episodes[-1]
    images = {name: pictures.copy() for name, pictures in last.images.items()}
    images["front"][-1, 0, 0, 0] ^= 1
    return EpisodesInMemory(data.contract, [*data.episodes[:-1], replace(last, images=images)])


def test_changed_data_is_noticed(earlier: Path, tmp_path: Path) -> None:
    changed = brighter(square_data(failures=1))
    with pytest.raises(CorftError, match="trained on other data"):
        train(changed, tmp_path / "run", small_config(), init=earlier, quiet=True)
    with pytest.raises(CorftError, match="has changed since"):
        train(changed, earlier, small_config(), resume=True, quiet=True)


def rescale(run: Path) -> None:
    """Let the statistics of its stage 1 disagree with the data."""
    path = run / "checkpoints/sft/statistics.json"
    statistics = json.loads(path.read_text())
    statistics["action_scale"][0][0] *= 1.01
    path.write_text(json.dumps(statistics))


def test_statistics_that_differ_from_the_datas_are_named(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    taken, begun, data = tmp_path / "taken", tmp_path / "begun", square_data(failures=1)
    shutil.copytree(earlier, taken)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_stage", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(data, begun, small_config(), init=earlier, quiet=True)
    for run in (taken, begun):
        rescale(run)
    with pytest.raises(CorftError, match=r"of run-\w+-sft differs .* in action_scale, .*without --from"):
        train(data, tmp_path / "run", small_config(), init=taken, quiet=True)
    with pytest.raises(CorftError, match=r"of begun-\w+-sft differs .* in action_scale,"):
        train(data, begun, small_config(), resume=True, quiet=True)


def test_unfinished_run_cannot_be_taken(tmp_path: Path) -> None:
    RunFolder(tmp_path / "begun").create(small_config(), "data")
    with pytest.raises(CorftError, match="no finished stage 1"):
        train(square_data(), tmp_path / "run", small_config(), init=tmp_path / "begun", quiet=True)


def test_resumed_run_still_takes_the_critic(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    config = small_config(co_rft__temperature=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_stage", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(square_data(failures=1), tmp_path / "run", config, init=earlier, quiet=True)
    refuse_stage_one(monkeypatch)
    run = train(square_data(failures=1), tmp_path / "run", config, resume=True, quiet=True)
    assert stages(run) == {"actor"}


def test_runs_of_one_process_share_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = CachedFrames.compute.__func__  # type: ignore[attr-defined]

    def counted(cls: type, *arguments: Any) -> CachedFrames:
        computed.append(1)
        return compute(cls, *arguments)

    monkeypatch.setattr(CachedFrames, "compute", classmethod(counted))
    cache, data = FeatureCache(), square_data()
    alone = train(data, tmp_path / "alone", small_config(**FROZEN), quiet=True)
    computed.clear()
    first = train(data, tmp_path / "first", small_config(**FROZEN), features=cache, quiet=True)
    train(data, tmp_path / "horizon", small_config(policy__horizon=5, **FROZEN), features=cache, quiet=True)
    assert len(computed) == 1
    assert weights(first, "co_rft") == weights(alone, "co_rft")
    train(square_data(seed=1), tmp_path / "other", small_config(**FROZEN), features=cache, quiet=True)
    assert len(computed) == 2 and len(cache.entries) == 1


def test_feature_cache_tells_weights_apart(tmp_path: Path) -> None:
    cache = FeatureCache(keep=5)
    for seed in (0, 1):
        train(square_data(), tmp_path / str(seed), small_config(seed=seed), features=cache, quiet=True)
    first, second = (entry[0] for entry in cache.entries.values())
    assert not np.allclose(first.float(), second.float()), "each seed's stage 1 moves the backbone elsewhere"
