"""Our data sets, read by LeRobot's own package (lerobot-dataset 0.4.4) in an environment of its own.

Every value and frame must be what our reader gives, and `delta_timestamps` windows what our chunk table gives. Pictures
are compared exactly: both sides decode the same H.264 stream, which is defined to the bit, and turn it into RGB with
the same routine of FFmpeg.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peer_environment
import pytest
from recordings import CONTRACT_FILE, Recording, Take
from small_datasets import CONTRACT, demonstration, write

from corft_core.contract import Contract
from corft_core.data import EpisodeDataset
from corft_core.data import lerobot_format as fmt
from corft_core.data.chunks import build_chunks
from corft_core.data.convert import convert
from corft_core.data.dataset_check import StructureCheck
from corft_core.data.dataset_edit import Target, delete, merge, split, split_fraction
from corft_core.data.dataset_export import export_lerobot
from corft_core.data.dataset_stats import exact_statistics, repair, wrong_statistics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HORIZON = 5
ROLL = {"data_file_bytes": 1, "video_file_bytes": 1}
"""Every episode in files of its own."""


class Peer:
    """The package's process."""

    def __init__(self) -> None:
        worker = Path(peer_environment.__file__).with_name("lerobot_worker.py")
        python = peer_environment.python(peer_environment.LEROBOT_DATASET)
        self.process = subprocess.Popen([python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=peer_environment.environ())

    def read(self, folder: Path, out: Path, windows: dict[str, list[int]] | None = None
             ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the package says about a data set, and all that it reads from it."""
        answer = self.ask({"folder": str(folder), "out": str(out), "windows": windows})
        with np.load(out, allow_pickle=False) as arrays:
            return answer, dict(arrays)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the worker."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    try:
        found = Peer()
    except peer_environment.PeerMissing as error:
        pytest.skip(str(error))
    yield found
    assert found.process.stdin is not None
    found.process.stdin.close()
    found.process.wait(30)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [demonstration(k, 6 + k, success=k != 1, instruction=f"pick cube {k % 2}") for k in range(4)]
    return write(tmp_path_factory.mktemp("one") / "one", episodes)


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [demonstration(10 + k, 8 - k, instruction=f"pick cube {k}") for k in range(3)]
    return write(tmp_path_factory.mktemp("rolled") / "rolled", episodes, **ROLL)


def compare(peer: Peer, folder: Path, out: Path) -> dict[str, Any]:
    """Read by both and assert that every frame and value is equal; returns the package's summary."""
    dataset = EpisodeDataset.open(folder, CONTRACT)
    front, wrist = (fmt.image_key(camera.name) for camera in dataset.contract.cameras)
    about, theirs = peer.read(folder, out / "read.npz", {fmt.ACTION: list(range(HORIZON)), fmt.STATE: [-1, 0],
                                                         front: [-2, 0]})
    assert (about["episodes"], about["frames"], about["fps"]) == (
        dataset.num_episodes, dataset.num_frames, dataset.fps)
    for name, feature in dataset.info["features"].items():
        if feature["dtype"] != "video" and name not in (fmt.STATE, fmt.ACTION):
            ours = dataset.column(name)
            assert theirs[name].dtype == ours.dtype and np.array_equal(theirs[name], ours), name
    assert theirs["task"].tolist() == [dataset.instructions[k] for k in dataset.episode_index]
    for name, entry in about["stats"].items():
        assert entry == pytest.approx(np.ravel(dataset.statistics[name]["mean"]).tolist()), name

    frames = {camera.name: np.stack(list(dataset.frames(camera.name))) for camera in dataset.contract.cameras}
    rows, starts = np.arange(dataset.num_frames), dataset.episode_starts[:-1][dataset.episode_index]
    assert np.array_equal(theirs[wrist], frames["wrist"])
    assert np.array_equal(theirs[front][:, 1], frames["front"])
    assert np.array_equal(theirs[front][:, 0], frames["front"][np.maximum(rows - 2, starts)])
    assert np.array_equal(theirs[fmt.STATE][:, 1], dataset.state)
    assert np.array_equal(theirs[fmt.STATE][:, 0], dataset.state[np.maximum(rows - 1, starts)])
    table = build_chunks(dataset.episode_index, dataset.action, dataset.reward, dataset.done, HORIZON, 0.9)
    assert theirs[fmt.ACTION].dtype == np.float32 and np.array_equal(theirs[fmt.ACTION], table.action)
    assert np.array_equal(theirs[f"{fmt.ACTION}_is_pad"], ~table.valid)
    return about


def test_a_written_data_set(peer: Peer, one: Path, tmp_path: Path) -> None:
    assert compare(peer, one, tmp_path)["tasks"] == ["pick cube 0", "pick cube 1"]


def test_a_data_set_whose_files_rolled_over(peer: Peer, rolled: Path, tmp_path: Path) -> None:
    assert len(EpisodeDataset.open(rolled).video_files("front")) == 3
    compare(peer, rolled, tmp_path)


def test_a_converted_bag(peer: Peer, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT_FILE)
    recording = Recording(contract, [Take(duration_s=1.2), Take("pick the blue cube", duration_s=1.0)])
    convert([recording.write(tmp_path / "bag")], tmp_path / "out", contract)
    assert compare(peer, tmp_path / "out", tmp_path)["episodes"] == 2


@pytest.mark.parametrize("limits", [{}, ROLL], ids=["joined", "rolled over"])
def test_a_merged_data_set(peer: Peer, one: Path, rolled: Path, tmp_path: Path, limits: dict[str, int]) -> None:
    merge([EpisodeDataset.open(rolled), EpisodeDataset.open(one)], Target(tmp_path / "all", **limits))
    assert compare(peer, tmp_path / "all", tmp_path)["tasks"] == ["pick cube 0", "pick cube 1", "pick cube 2"]
    assert len(EpisodeDataset.open(tmp_path / "all").video_files("wrist")) == (7 if limits else 1)


def test_split_parts_and_a_deleted_episode(peer: Peer, one: Path, tmp_path: Path) -> None:
    dataset = EpisodeDataset.open(one)
    split(dataset, split_fraction(dataset, 0.5, seed=1), tmp_path / "parts")
    for part in ("train", "test"):
        assert compare(peer, tmp_path / "parts" / part, tmp_path)["episodes"] == 2
    delete(dataset, [1], Target(tmp_path / "less"))
    assert compare(peer, tmp_path / "less", tmp_path)["episodes"] == 3


def test_a_plain_export(peer: Peer, rolled: Path, tmp_path: Path) -> None:
    export_lerobot(EpisodeDataset.open(rolled), tmp_path / "plain")
    about = compare(peer, tmp_path / "plain", tmp_path)
    assert not [name for name in about["features"] if name.startswith("source.")]
    assert not (tmp_path / "plain/meta/corft").exists()


def test_a_data_set_that_the_package_wrote(peer: Peer, one: Path, tmp_path: Path) -> None:
    """Ours reads it equally (AV1, two frames a key frame), finds its wrong statistics, repairs, and merges it."""
    export_lerobot(EpisodeDataset.open(one), tmp_path / "like")
    ours = EpisodeDataset.open(tmp_path / "like", CONTRACT)
    frames = {fmt.image_key(camera.name): np.stack(list(ours.frames(camera.name))) for camera in CONTRACT.cameras}
    np.savez(tmp_path / "frames.npz", lengths=np.diff(ours.episode_starts), tasks=np.array(ours.instructions),
             **{name: ours.column(name) for name in fmt.STEP_COLUMNS}, **frames)
    theirs = tmp_path / "theirs"
    peer.ask({"folder": str(theirs), "like": str(tmp_path / "like"), "frames": str(tmp_path / "frames.npz")})

    compare(peer, theirs, tmp_path)
    written = EpisodeDataset.open(theirs, CONTRACT)
    assert np.array_equal(written.action, ours.action) and written.instructions == ours.instructions
    wrong = wrong_statistics(written, *exact_statistics(written))
    assert fmt.image_key("front") in wrong and fmt.ACTION in wrong
    repair(written, *exact_statistics(written))
    assert list(StructureCheck(EpisodeDataset.open(theirs, CONTRACT)).problems()) == []
    merge([ours, EpisodeDataset.open(theirs, CONTRACT)], Target(tmp_path / "both"))
    assert compare(peer, tmp_path / "both", tmp_path)["episodes"] == 8
