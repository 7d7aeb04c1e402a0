"""Data sets as LeRobot v3: layout, exact statistics, frames that survive, all or nothing on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import CONTRACT_FILE, ROOT

from corft_core.contract import Contract
from corft_core.data import Episode, EpisodeDataset, write_dataset
from corft_core.data import lerobot_format as fmt
from corft_core.data.dataset_check import check_dataset
from corft_core.data.feature_stats import ImageHistogram
from corft_core.data.lerobot_reader import DatasetError
from corft_core.data.store import WriteError
from corft_core.data.video import VideoError, decode_frame
from corft_core.errors import CorftError

CONTRACT = Contract.load(CONTRACT_FILE)
LENGTHS = (12, 7, 9)


def make_episode(number: int, steps: int, success: bool = True) -> Episode:
    """Smooth frames whose grey level tells episode and step."""
    random = np.random.default_rng(number)
    images = {}
    for k, camera in enumerate(CONTRACT.cameras):
        frames = np.empty((steps, *camera.size, 3), np.uint8)
        frames[:] = (40 * number + 4 * np.arange(steps) + 20 * k)[:, None, None, None]
        frames[:, 30:60, 30:60] = (220, 30, 25)
        images[camera.name] = frames
    return Episode(images, random.normal(size=(steps, 8)).astype(np.float32),
                   random.normal(size=(steps, 8)).astype(np.float32), f"pick {number % 2}", success, f"demo/{number}",
                   {"source.tick_ns": np.arange(steps) * CONTRACT.step_ns + number})


def episodes() -> list[Episode]:
    return [make_episode(k, steps, success=k != 1) for k, steps in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("store") / "dataset"
    counts = write_dataset(target, iter(episodes()), CONTRACT, source={"bags": ["a"]}, report=lambda: {"seen": 3})
    assert counts["episodes"] == 3 and counts["frames"] == sum(LENGTHS)
    return target


def test_everything_comes_back(folder: Path) -> None:
    dataset = EpisodeDataset.open(folder)
    written = episodes()
    assert (dataset.num_frames, dataset.num_episodes, dataset.fps) == (28, 3, 10)
    assert dataset.contract == CONTRACT
    assert np.array_equal(dataset.state, np.concatenate([e.state for e in written]))
    assert np.array_equal(dataset.action, np.concatenate([e.action for e in written]))
    assert dataset.instructions == ["pick 0", "pick 1", "pick 0"]
    assert dataset.scene_ids == ["demo/0", "demo/1", "demo/2"]
    assert dataset.episode_index.tolist() == [0] * 12 + [1] * 7 + [2] * 9
    last = [11, 18, 27]
    assert np.flatnonzero(dataset.reward).tolist() == [11, 27] and dataset.reward[11] == 1
    assert np.flatnonzero(dataset.done).tolist() == [11, 27] == np.flatnonzero(dataset.success).tolist()
    assert np.flatnonzero(dataset.truncated).tolist() == [18]
    assert np.flatnonzero(dataset.done | dataset.truncated).tolist() == last
    assert dataset.episode_success.tolist() == [True, False, True]
    assert dataset.column("source.tick_ns")[12] == 1
    assert json.loads((folder / fmt.REPORT_PATH).read_text()) == {"seen": 3}


def test_frames_survive_compression_in_order(folder: Path) -> None:
    images = EpisodeDataset.open(folder).images()
    for camera in CONTRACT.cameras:
        truth = np.concatenate([e.images[camera.name] for e in episodes()])
        decoded = images[camera.name]
        assert decoded.shape == truth.shape and decoded.dtype == np.uint8
        assert np.abs(decoded[:, 100, 100].astype(int) - truth[:, 100, 100]).max() <= 3
        assert np.abs(decoded[:, 45, 45].astype(int) - truth[:, 45, 45]).max() <= 12  # the red square


def test_the_cache_is_keyed_by_content(folder: Path, tmp_path: Path) -> None:
    dataset = EpisodeDataset.open(folder)
    dataset.images(tmp_path)
    (cache,) = tmp_path.iterdir()
    stamp = (cache / "front.npy").stat().st_mtime_ns
    dataset.images(tmp_path)
    assert (cache / "front.npy").stat().st_mtime_ns == stamp
    other = folder.parent / "dataset2"
    write_dataset(other, [make_episode(5, 4)], CONTRACT)
    os.rename(folder, folder.parent / "away")
    os.rename(other, folder)
    try:
        assert len(EpisodeDataset.open(folder).images(tmp_path)["front"]) == 4
        assert len(list(tmp_path.iterdir())) == 1  # the outdated frames are gone
    finally:
        os.rename(folder, other)
        os.rename(folder.parent / "away", folder)


def test_the_layout_is_lerobot_v3(folder: Path) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and isinstance(info["fps"], int)
    assert info["splits"] == {"train": "0:3"} and info["total_tasks"] == 2
    assert info["features"]["observation.state"] == {
        "dtype": "float32", "shape": [8], "names": [*CONTRACT.robot.joints, "gripper"]}
    front = info["features"]["observation.images.front"]
    assert front["dtype"] == "video" and front["shape"] == [128, 128, 3] and front["info"]["video.fps"] == 10

    data = pq.ParquetFile(folder / "data/chunk-000/file-000.parquet")
    assert data.metadata.num_row_groups == 3
    assert data.metadata.row_group(0).column(0).compression == "SNAPPY"
    schema = data.schema_arrow
    assert schema.field("action").type == pa.list_(pa.field("element", pa.float32()), 8)
    assert schema.field("next.done").type == pa.bool_() and schema.field("timestamp").type == pa.float32()
    assert set(schema.names) == {name for name, f in info["features"].items() if f["dtype"] != "video"}
    spec = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert spec["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 8, "_type": "List"}
    assert data.read(["timestamp"]).column(0).to_pylist()[12:15] == pytest.approx([0.0, 0.1, 0.2])

    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["dataset_from_index"] for row in rows] == [0, 12, 19]
    assert [row["videos/observation.images.front/from_timestamp"] for row in rows] == pytest.approx([0, 1.2, 1.9])
    assert rows[1]["videos/observation.images.front/to_timestamp"] == pytest.approx(1.9)
    assert rows[1]["tasks"] == ["pick 1"] and rows[1]["stats/action/count"] == [7]
    assert np.shape(rows[0]["stats/observation.images.front/mean"]) == (3, 1, 1)
    tasks = pq.read_table(folder / "meta/tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "task": ["pick 0", "pick 1"]}


def test_statistics_are_exact(folder: Path) -> None:
    stats = json.loads((folder / "meta/stats.json").read_text())
    action = np.concatenate([e.action for e in episodes()]).astype(np.float64)
    assert stats["action"]["std"] == pytest.approx(action.std(axis=0).tolist())
    assert stats["action"]["q99"] == pytest.approx(np.quantile(action, 0.99, axis=0).tolist())
    pixels = np.concatenate([e.images["wrist"] for e in episodes()]).reshape(-1, 3) / 255.0
    wrist = {name: np.array(value).reshape(-1) for name, value in stats["observation.images.wrist"].items()}
    for name, truth in {"mean": pixels.mean(0), "std": pixels.std(0), "min": pixels.min(0), "max": pixels.max(0),
                        "q01": np.quantile(pixels, 0.01, axis=0), "q90": np.quantile(pixels, 0.9, axis=0)}.items():
        assert wrist[name] == pytest.approx(truth), name
    assert wrist["count"].tolist() == [28]


def test_histogram_quantiles_equal_numpys() -> None:
    random = np.random.default_rng(3)
    for size in (1, 2, 7):
        frames = random.integers(0, 255, (size, 3, 1, 3), np.uint8)
        histogram = ImageHistogram()
        histogram.add(frames)
        for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
            expected = np.quantile(frames.reshape(-1, 3), q, axis=0) / 255
            assert np.array(histogram.statistics()[name]).reshape(-1) == pytest.approx(expected)


def test_statistics_of_large_frames_are_those_of_lerobots_grid_of_pixels() -> None:
    frames = np.random.default_rng(4).integers(0, 255, (2, 480, 640, 3), np.uint8)
    histogram = ImageHistogram()
    histogram.add(frames)
    counted = frames[:, ::4, ::4].reshape(-1, 3) / 255  # lerobot's auto_downsample_height_width: 640 // 150
    assert np.array(histogram.statistics()["mean"]).reshape(-1) == pytest.approx(counted.mean(0))
    assert np.array(histogram.statistics()["std"]).reshape(-1) == pytest.approx(counted.std(0))
    assert np.array(histogram.statistics()["q90"]).reshape(-1) == pytest.approx(np.quantile(counted, 0.9, axis=0))


def test_files_roll_over_between_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(fmt, "DATA_FILE_MB", 0)
    write_dataset(tmp_path / "d", episodes(), CONTRACT)
    dataset = EpisodeDataset.open(tmp_path / "d")
    assert len(dataset.video_files("front")) == 3 == len(list((tmp_path / "d/data").rglob("*.parquet")))
    assert [row["videos/observation.images.wrist/file_index"] for row in dataset.episodes] == [0, 1, 2]
    assert len(dataset.images()["front"]) == 28
    assert np.array_equal(dataset.state, np.concatenate([e.state for e in episodes()]))


def drifting(steps: int) -> Episode:
    """A square that moves a third of a pixel a step, as in careful manipulation."""
    episode = make_episode(0, steps)
    for frames in episode.images.values():
        frames[:] = (150, 140, 120)
        for t in range(steps):
            left, part = divmod(20 + t / 3, 1)
            columns = np.zeros(frames.shape[2])
            columns[int(left) : int(left) + 12] = 1.0
            columns[int(left)], columns[int(left) + 12] = 1 - part, part
            blend = columns[None, :, None]
            strip = frames[t, 60:72]
            frames[t, 60:72] = (strip * (1 - blend) + np.array([200, 40, 40]) * blend).astype(np.uint8)
    return episode


def square_position(frames: np.ndarray) -> np.ndarray:
    """Column of the square's centre in each frame, by brightness, to a fraction of a pixel."""
    darker = 137.0 - frames[:, 60:72].astype(float).mean(axis=(1, 3))
    darker[darker < 5] = 0.0
    return darker @ np.arange(frames.shape[2]) / darker.sum(axis=1)


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libsvtav1", "av1")])
def test_slow_motion_is_in_every_frame(tmp_path: Path, codec: str, name: str) -> None:
    """Encoders like to repeat the frame before when little moves; a policy would see the world late."""
    episode = drifting(30)
    write_dataset(tmp_path / "d", [episode], CONTRACT, codec=codec)
    dataset = EpisodeDataset.open(tmp_path / "d")
    assert dataset.info["features"]["observation.images.front"]["info"]["video.codec"] == name
    steps = np.diff(square_position(dataset.images()["front"]))
    assert np.all(np.abs(steps - 1 / 3) < 0.2), steps.round(2)


def test_single_frames_are_found_by_index(folder: Path) -> None:
    path = EpisodeDataset.open(folder).video_files("front")[0]
    truth = np.concatenate([e.images["front"] for e in episodes()])
    for index in (0, 1, 12, 27):
        assert abs(int(decode_frame(path, index, 10)[100, 100, 0]) - int(truth[index, 100, 100, 0])) <= 3
    with pytest.raises(VideoError, match="no frame"):
        decode_frame(path, 28, 10)


def test_an_existing_folder_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "d"
    write_dataset(target, [make_episode(0, 5)], CONTRACT)
    with pytest.raises(WriteError, match="--overwrite"):
        write_dataset(target, [make_episode(1, 6)], CONTRACT)
    assert EpisodeDataset.open(target).num_frames == 5
    write_dataset(target, [make_episode(1, 6)], CONTRACT, overwrite=True)
    assert EpisodeDataset.open(target).num_frames == 6
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(WriteError, match="not a data set"):
        write_dataset(photos, [make_episode(1, 6)], CONTRACT, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "photos"]


def failing() -> Iterator[Episode]:
    yield make_episode(0, 5)
    raise CorftError("the bag ended early")


@pytest.mark.parametrize(("source", "message"), [(failing, "ended early"), (lambda: iter(()), "no episode")])
def test_nothing_is_left_after_an_error(tmp_path: Path, source: object, message: str) -> None:
    with pytest.raises(CorftError, match=message):
        write_dataset(tmp_path / "d", source(), CONTRACT)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_unfit_episodes_are_refused(tmp_path: Path) -> None:
    good = make_episode(0, 5)
    wrong = {
        "no images of camera wrist": dataclasses.replace(good, images={"front": good.images["front"]}),
        "must be \\(128, 128\\)": dataclasses.replace(
            good, images={k: v[:, :64].copy() for k, v in good.images.items()}),
        "not finite": dataclasses.replace(good, action=good.action * np.float32("nan")),
        "action must be": dataclasses.replace(good, action=good.action[:3]),
    }
    for message, episode in wrong.items():
        with pytest.raises(ValueError, match=message):
            write_dataset(tmp_path / "d", [episode], CONTRACT)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    check_dataset(copy)
    stats = json.loads((copy / fmt.STATS_PATH).read_text())
    stats["action"]["mean"][0] += 1e-3
    (copy / fmt.STATS_PATH).write_text(json.dumps(stats))
    with pytest.raises(DatasetError, match="wrong for action"):
        check_dataset(copy)
    video = next(copy.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:500])
    with pytest.raises((DatasetError, VideoError), match="video"):
        EpisodeDataset.open(copy).images(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


CACHE = """
import sys
sys.path.insert(0, {core!r})
from corft_core.cli import run_main
from corft_core.data import EpisodeDataset
sys.exit(run_main(lambda: EpisodeDataset.open(sys.argv[1]).images(sys.argv[2]) and 0))
"""


def test_no_space_for_the_decoded_frames(folder: Path, tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", CACHE.format(core=str(ROOT / "corft_core")), str(folder),
                             str(tmp_path / "cache")], capture_output=True, text=True, timeout=120, check=False,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)))
    assert result.returncode == 2 and "for the decoded frames (3 MB)" in result.stderr, result.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_opening_something_else_teaches(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="bag_to_dataset"):
        EpisodeDataset.open(tmp_path)


FILL = """
import sys
sys.path[:0] = [{tests!r}, {unit!r}, {core!r}]
from corft_core.cli import run_main
from test_data_store import CONTRACT, make_episode, write_dataset
sys.exit(run_main(lambda: write_dataset(sys.argv[1], [make_episode(k, 60) for k in range(3)], CONTRACT) and 0))
"""


@pytest.mark.parametrize("limit", [300, 12_000, 30_000])
def test_a_full_disk_leaves_a_message_and_nothing_else(tmp_path: Path, limit: int) -> None:
    """The file size limit makes the kernel refuse writes, at a parquet file, a video or the tables."""
    code = FILL.format(tests=str(ROOT / "tests"), unit=str(ROOT / "tests/unit"), core=str(ROOT / "corft_core"))
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True,
                            timeout=120, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert result.returncode == 3, result.stderr
    assert "no space left" in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
