"""What a run tells while and after it trains: TensorBoard, offline check, the last words when it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning_data import small_config, small_contract, square_data

from corft import trainer as program
from corft_core.data import write_dataset
from corft_core.data.chunks import build_chunks
from corft_core.data.history import Spacing
from corft_core.learning import trainer
from corft_core.learning.loop import Diverged
from corft_core.learning.offline_check import check_policy, lines
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy.policy import ChunkPrediction


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.iterdir():
        data, place = path.read_bytes(), 0
        while place < len(data):  # TFRecord: length, its checksum, record, its checksum
            size = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_shows_what_metrics_hold_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = square_data(), small_config(tensorboard=True, save_every=3)

    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "export_q_vs_return", fail)  # after the last row, behind the last save
        with pytest.raises(RuntimeError):
            train(data, tmp_path / "run", config, quiet=True)
    run = train(data, tmp_path / "run", config, quiet=True, resume=True)
    rows, shown = RunFolder(run).metrics(), scalars(run / "tensorboard")
    for stage, key in (("sft", "loss"), ("critic", "td_loss"), ("actor", "loss")):
        logged = [(row["step"], pytest.approx(row[key], rel=1e-5)) for row in rows if row["stage"] == stage]
        assert logged and shown[f"{stage}/{key}"] == logged


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    run = train(square_data(), tmp_path / "run", small_config(co_rft__steps=0, co_rft__warmup=0), quiet=True)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train(square_data(), run, small_config(), quiet=True, resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_missing_tensorboard_is_explained_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(Exception, match="tensorboard=false"):
        train(square_data(), tmp_path / "run", small_config(tensorboard=True), quiet=True)
    assert not (tmp_path / "run").exists()


class Recorded:
    """Predicts the recorded chunks with the arm off by 0.1 rad and the gripper the wrong way round at the last step."""

    spacing, rate_hz, new_history = Spacing(), 10, object

    def __init__(self, table: object) -> None:
        self.table, self.place = table, 0

    def act(self, images: dict, state: np.ndarray, instructions: list[str], generator: object,
            **_: object) -> ChunkPrediction:
        actions = self.table.action[self.rows[self.place : self.place + len(state)]].astype(float)  # type: ignore[attr-defined]
        self.place += len(state)
        actions[..., :-1] += 0.1
        actions[:, -1, -1] = 1 - actions[:, -1, -1]
        return ChunkPrediction(actions, np.full(len(state), 0.5), np.full(len(state), np.nan))


def test_action_error_by_hand() -> None:
    data = square_data(episodes=2, steps=4)
    table = build_chunks(data.episode_index, data.action, data.reward, data.done, 3, 0.98)
    policy = Recorded(table)
    policy.rows = np.array([*range(8), 0, 4])  # type: ignore[attr-defined]
    report = check_policy(policy, data, table, np.ones(8, bool), 100)  # type: ignore[arg-type]
    assert report["unit"] == "rad" and report["frames"] == 8
    assert report["action_error"] == pytest.approx([0.1] * 3)
    assert report["gripper_agreement"] == [1.0, 1.0, 0.0]
    assert [start["episode"] for start in report["starts"]] == [0, 1]
    assert report["starts"][0] == {"episode": 0, "value": 0.5, "return": round(0.98**3, 4), "success": True}


@pytest.mark.parametrize("held_out", [0, 2])
def test_every_checkpoint_is_checked_and_says_on_what(held_out: int, tmp_path: Path) -> None:
    run = train(square_data(), tmp_path / "run", small_config(held_out=held_out), quiet=True)
    report = json.loads((run / "offline_check.json").read_text())
    assert set(report["checkpoints"]) == {"sft", "co_rft"} and "no success rate" in report["note"]
    expected = "last 2 of 6 episodes, held out" if held_out else "training episodes (held_out = 0)"
    assert expected in report["measured_on"] and expected in "\n".join(lines(report))
    starts = report["checkpoints"]["co_rft"]["starts"]
    assert [start["episode"] for start in starts] == ([4, 5] if held_out else list(range(6)))
    assert report["checkpoints"]["sft"]["starts"][0]["value"] is None and starts[0]["value"] is not None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = square_data(episodes=3)
    folder = tmp_path_factory.mktemp("data") / "data"
    write_dataset(folder, data.episodes, data.contract)
    return folder


def test_program_checks_a_run_on_its_own_and_on_other_data(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from corft_core.data.lerobot_reader import EpisodeDataset

    run = train(EpisodeDataset.open(recorded), tmp_path / "run", small_config(), dataset_path=recorded, quiet=True)
    before = json.loads((run / "offline_check.json").read_text())
    assert program.main(["--check", str(run)]) == 0
    assert json.loads((run / "offline_check.json").read_text()) == before, "the same as at the end of training"
    assert program.main([str(recorded), "--check", str(run)]) == 0
    output = capsys.readouterr().out
    assert "no success rate" in output and "all 3 episodes given" in output
    assert (run / "offline_check_data.json").exists()


def test_odd_value_in_the_data_stops_the_run_with_a_hint(tmp_path: Path) -> None:
    data = square_data()
    broken = replace(data.episodes[0], state=np.full_like(data.episodes[0].state, 1e30))
    with pytest.raises(Diverged, match=r"is (nan|inf).*Lower.*sft\.lr"):
        train(EpisodesInMemory(small_contract(), [broken, *data.episodes[1:]]), tmp_path / "run",
              small_config(sft__steps=40), quiet=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_run_goes_on(number: int, recorded: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["policy.horizon=3", "policy.encoder.embedding=32", "policy.head.width=32", "sft.steps=100000",
             "sft.batch=8", "policy.backbone_options={channels: 16}", "log_every=1", "threads=1"]
    command = [sys.executable, "-m", "corft.trainer", str(recorded), str(run), "--backbone", "tiny", "--quiet",
               *(word for pair in words for word in ("--set", pair))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and f"--resume {run}" in errors
    stage, step, tensors, _ = RunFolder(run).load_state() or ("", 0, {}, {})
    assert stage == "sft" and step == len(RunFolder(run).metrics()) > 0 and tensors
    assert (run / "curves.png").stat().st_size > 1000
