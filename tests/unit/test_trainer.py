"""The trainer: resume, alarms, bad input, exports, every extraction."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_data import CONTRACT_PATH, small_config, small_contract, square_data

from corft import trainer as program
from corft_core.data import write_dataset
from corft_core.errors import CorftError
from corft_core.learning import trainer
from corft_core.learning.cli import read_settings
from corft_core.learning.loop import Diverged, Interrupted
from corft_core.learning.optim import cosine
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.sft import SFTStage
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.policy.options import ConfigError


def weights(run: Path, stage: str) -> bytes:
    return (run / "checkpoints" / stage / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("extraction", "trainable"), [("awr", "all"), ("awr", "none"), ("weighted_anchor", "all")])
def test_interrupted_and_resumed_equals_uninterrupted(
    extraction: str, trainable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = square_data(failures=1)
    config = small_config(
        co_rft__extraction=extraction, policy__head__kind="flow" if extraction == "awr" else "chunk", log_every=1,
        policy__backbone_options={"channels": 16, "text_dim": 16, "trainable": trainable},
    )
    whole = train(data, tmp_path / "whole" / "run", config, quiet=True)

    log = RunFolder.log
    stops = [("sft", 3), ("critic", 5)] + ([("actor", 2)] if extraction == "awr" else [])

    def log_and_stop(self: RunFolder, stage: str, step: int, info: dict[str, float]) -> None:
        log(self, stage, step, info)
        if stops and (stage, step) == stops[0]:
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "log", log_and_stop)
    run = tmp_path / "parts" / "run"
    resume = False
    while stops:
        with pytest.raises(Interrupted, match="--resume"):
            train(data, run, config, quiet=True, resume=resume)
        resume = True
    train(data, run, config, quiet=True, resume=True)
    for stage in ("sft", "co_rft"):
        assert weights(run, stage) == weights(whole, stage)

    def steps(folder: Path) -> list[Any]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in RunFolder(folder).metrics()]

    assert steps(run) == steps(whole)


@pytest.mark.parametrize("extraction", ["paper", "anchored", "best_of_n"])
def test_every_extraction_trains_and_exports(extraction: str, tmp_path: Path) -> None:
    kind = "flow" if extraction == "best_of_n" else "chunk"
    config = small_config(
        co_rft__extraction=extraction, policy__head__kind=kind, co_rft__conservative="logsumexp",
        co_rft__targets="shared", policy__critic__kind="transformer", co_rft__train_encoder=True, held_out=1,
        log_every=1,
    )
    run = train(square_data(failures=1), tmp_path / "run", config, quiet=True)
    assert (weights(run, "sft") != weights(run, "co_rft"))
    export = json.loads((run / "q_vs_return.json").read_text())
    assert len(export["q"]) == len(export["mc_return"]) == len(export["trained"])
    assert len(export["q"][0]) == export["prefix"] == len(export["correlation"])
    assert not all(export["trained"])
    stages = {row["stage"] for row in RunFolder(run).metrics()}
    assert stages == {"sft", "critic"}
    assert (run / "curves.png").stat().st_size > 1000
    assert np.isfinite(Policy.load(run / "checkpoints/co_rft").act(
        {n: np.zeros((1, 32, 32, 3), np.uint8) for n in ("front", "wrist")}, np.zeros((1, 8)), ["go"]).actions).all()


def test_frozen_and_trained_backbones_train_alike(tmp_path: Path) -> None:
    options = {"channels": 16, "text_dim": 16, "trainable": "none"}
    run = train(square_data(), tmp_path / "run", small_config(policy__backbone_options=options), quiet=True)
    assert Policy.load(run / "checkpoints/co_rft").bundle.backbone.frozen


def test_not_finite_loss_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTStage, "step", lambda self, step: {"loss": float("nan")})
    with pytest.raises(Diverged, match="sft step 0: loss is nan"):
        train(square_data(), tmp_path / "run", small_config(), quiet=True)


def test_infeasible_value_raises_the_alarm_and_leaves_the_curves(tmp_path: Path) -> None:
    config = small_config(policy__critic__head="scalar", co_rft__lr=1.0, co_rft__steps=60, co_rft__warmup=60,
                          co_rft__alpha=0.0)
    with pytest.raises(Diverged, match=r"largest feasible return is 1\.00"):
        train(square_data(), tmp_path / "run", config, quiet=True)
    assert (tmp_path / "run/curves.png").stat().st_size > 1000


def test_curves_that_cannot_be_drawn_do_not_hide_the_reason_of_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(trainer, "draw_curves", fail)
    monkeypatch.setattr(SFTStage, "step", lambda self, step: {"loss": float("nan")})
    with pytest.raises(Diverged, match="loss is nan"):
        train(square_data(), tmp_path / "run", small_config(), quiet=True)
    assert "disk full" in caplog.text


def test_data_without_a_success_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorftError, match="none of the 3 episodes succeeded"):
        train(square_data(episodes=3, failures=3), tmp_path / "run", small_config(), quiet=True)
    assert not (tmp_path / "run").exists()


def test_rate_mismatch_is_refused(tmp_path: Path) -> None:
    class Slower(EpisodesInMemory):
        fps = 5  # type: ignore[assignment]

    data = Slower(small_contract(), square_data().episodes)
    with pytest.raises(CorftError, match="5 steps/s"):
        train(data, tmp_path / "run", small_config(), quiet=True)


def test_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").create(small_config(), "data")
    with pytest.raises(CorftError, match="--resume"):
        train(square_data(), tmp_path / "run", small_config(), quiet=True)


@pytest.mark.parametrize(("pairs", "message"), [
    ({"sft__stepz": 3}, r"unknown setting sft\.stepz; known here: steps"),
    ({"sft__lr": 5.0}, r"sft\.lr = 5\.0: expected a value from 0.0 to 1.0"),
    ({"sft__steps": 1.5}, "sft.steps = 1.5: expected int"),
    ({"policy__head__kind": "mlp"}, "expected one of flow, chunk"),
    ({"co_rft__extraction": "paper"}, "needs a deterministic head"),
    ({"co_rft__warmup": 9}, "longer than co_rft.steps"),
])
def test_wrong_settings_are_named(pairs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**pairs)


def test_one_setting_leaves_stage_two_out(tmp_path: Path) -> None:
    run = RunFolder(train(square_data(), tmp_path / "run", small_config(co_rft__steps=0), quiet=True))
    assert run.checkpoint("sft").exists() and not run.checkpoint("co_rft").exists()


def test_cosine_schedule_by_hand() -> None:
    assert [cosine(step, 10, 2) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0])


def test_program_trains_from_a_data_set_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = square_data(episodes=3)
    write_dataset(tmp_path / "data", data.episodes, data.contract)
    words = [
        "policy.horizon=3", "policy.encoder.embedding=32", "policy.head.width=32", "sft.steps=3", "sft.batch=8",
        "co_rft.steps=4", "co_rft.warmup=2", "co_rft.actor_steps=2", "policy.backbone_options={channels: 16}",
    ]
    arguments = [word for pair in words for word in ("--set", pair)]
    run = tmp_path / "run"
    assert program.main([str(tmp_path / "data"), str(run), "--backbone", "tiny", "--quiet", *arguments]) == 0
    output = capsys.readouterr().out
    assert "python: " in output and "checkpoints/co_rft" in output and "chunks of 3 steps = 0.30 s" in output
    assert Policy.load(run / "checkpoints/co_rft").horizon == 3
    assert program.main(["--resume", str(run), "--quiet"]) == 0


@pytest.mark.parametrize(("words", "message"), [
    (["/nowhere/data", "{tmp}/run"], "not a LeRobot v3 data set"),
    (["/nowhere/data"], "expected DATASET and RUN"),
    (["/nowhere/data", "{tmp}/run", "--set", "sft.steps"], "expected key=value"),
    (["/nowhere/data", "{tmp}/run", "--config", "/nowhere/settings.yaml"], "settings.yaml cannot be read"),
    (["--resume", "{tmp}/run"], "holds no run to resume"),
    (["--resume", "{tmp}/run", "--set", "seed=1"], "give nothing beside it"),
])
def test_program_explains_bad_input(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([word.format(tmp=tmp_path) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_example_of_a_settings_file_is_accepted() -> None:
    settings = read_settings(CONTRACT_PATH.parents[1] / "training/weighted_anchor.yaml", ["sft.steps=5"], None)
    assert (settings.sft.steps, settings.sft.filter, settings.policy.head.kind) == (5, "no_ops", "chunk")


def test_settings_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--settings"]) == 0
    output = capsys.readouterr().out
    assert "co_rft.gamma = 0.98" in output and "discount per step" in output


def test_missing_torch_names_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util
    import sys

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    assert program.main(["a", "b"]) == 2
    error = capsys.readouterr().err
    assert sys.executable in error and "has no torch" in error and "make setup" in error
