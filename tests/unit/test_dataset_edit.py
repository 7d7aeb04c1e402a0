"""Merge, split, delete, export, stats: content is kept to the bit, everything else is made anew."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_datasets import CONTRACT, demonstration, write

from corft_core.data import EpisodeDataset, write_dataset
from corft_core.data import lerobot_format as fmt
from corft_core.data.dataset_check import StructureCheck, check_dataset
from corft_core.data.dataset_edit import (
    EditError,
    Target,
    delete,
    merge,
    select,
    split,
    split_fraction,
    split_outcome,
    split_tasks,
)
from corft_core.data.dataset_export import ExportError, export_arrays, export_lerobot
from corft_core.data.dataset_stats import exact_statistics, repair, wrong_statistics
from corft_core.data.store import WriteError

EPISODES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [demonstration(k, 4 + k, success=k != 2, instruction=f"pick cube {k % 2}") for k in range(EPISODES)]
    return write(tmp_path_factory.mktemp("edit") / "data", episodes)


@cache
def frames(path: Path, camera: str) -> np.ndarray:
    return np.stack(list(EpisodeDataset.open(path).frames(camera)))


def content(dataset: EpisodeDataset, episode: int) -> dict[str, Any]:
    """All that an episode is, but for its place in the data set."""
    rows = slice(*dataset.episode_starts[episode : episode + 2])
    columns = {name: dataset.column(name)[rows] for name, feature in dataset.info["features"].items()
               if feature["dtype"] != "video" and name not in ("index", "episode_index", "task_index")}
    pictures = {c.name: frames(dataset.folder, c.name)[rows] for c in dataset.contract.cameras}
    counts = {f"histogram {c.name}": dataset.image_histograms(c.name)[episode].counts for c in dataset.contract.cameras}
    return columns | pictures | counts | {"instruction": dataset.instructions[episode], "side": dataset.side[episode]}


def assert_same(one: EpisodeDataset, first: int, other: EpisodeDataset, second: int) -> None:
    mine, theirs = content(one, first), content(other, second)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert np.array_equal(value, theirs[name]) if isinstance(value, np.ndarray) else value == theirs[name], name


def assert_sound(dataset: EpisodeDataset) -> None:
    """Dense indices, places in the videos, statistics exact against numpy over all data."""
    assert list(StructureCheck(dataset).problems()) == []
    for name in (fmt.STATE, fmt.ACTION, fmt.REWARD, "source.front.age_s"):
        values = dataset.column(name).astype(np.float64)
        entry = dataset.statistics[name]
        assert entry["mean"] == pytest.approx(np.atleast_1d(values.mean(axis=0)).tolist(), abs=1e-12)
        assert entry["std"] == pytest.approx(np.atleast_1d(values.std(axis=0)).tolist(), abs=1e-12)
        assert entry["q90"] == pytest.approx(np.atleast_1d(np.quantile(values, 0.9, axis=0)).tolist())
    assert wrong_statistics(dataset, *exact_statistics(dataset)) == []
    assert dataset.info["splits"] == {"train": f"0:{dataset.num_episodes}"}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(EPISODES)), cut=st.integers(1, EPISODES - 1), data_bytes=st.sampled_from([1, 10**8]),
       video_bytes=st.sampled_from([1, 60_000, 10**8]))
def test_splitting_and_merging_gives_the_same_content(folder: Path, tmp_path_factory: pytest.TempPathFactory,
                                                      order: list[int], cut: int, data_bytes: int, video_bytes: int
                                                      ) -> None:
    dataset, tmp_path = EpisodeDataset.open(folder), tmp_path_factory.mktemp("property")
    split(dataset, {"a": order[:cut], "b": order[cut:]}, tmp_path / "parts")
    parts = [EpisodeDataset.open(tmp_path / "parts" / name) for name in "ab"]
    assert merge(parts, Target(tmp_path / "whole", data_file_bytes=data_bytes, video_file_bytes=video_bytes)) == []
    whole = EpisodeDataset.open(tmp_path / "whole")
    for place, episode in enumerate(order):
        assert_same(dataset, episode, whole, place)
    assert_sound(whole)
    assert (len(list((tmp_path / "whole/data").rglob("*.parquet"))) == EPISODES) == (data_bytes == 1)
    assert (len(whole.video_files("front")) == EPISODES) == (video_bytes == 1)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=st.sets(st.integers(0, EPISODES - 1), min_size=1, max_size=EPISODES - 1))
def test_after_deleting_indices_are_dense(folder: Path, tmp_path_factory: pytest.TempPathFactory, gone: set[int]
                                          ) -> None:
    dataset, target = EpisodeDataset.open(folder), tmp_path_factory.mktemp("delete") / "less"
    delete(dataset, gone, Target(target))
    less = EpisodeDataset.open(target)
    assert_sound(less)
    for place, episode in enumerate(sorted(set(range(EPISODES)) - gone)):
        assert_same(dataset, episode, less, place)


def test_merging_survives_roll_over_on_both_sides(folder: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small", [demonstration(20 + k, 5) for k in range(3)], data_file_bytes=1,
                  video_file_bytes=1)
    merge([EpisodeDataset.open(small), EpisodeDataset.open(folder)],
          Target(tmp_path / "all", data_file_bytes=20_000, video_file_bytes=100_000))
    whole = EpisodeDataset.open(tmp_path / "all")
    assert_sound(whole)
    assert 1 < len(whole.video_files("wrist")) < 8
    assert [row[f"videos/{fmt.image_key('wrist')}/from_timestamp"] for row in whole.episodes].count(0.0) == \
        len(whole.video_files("wrist"))
    assert_same(EpisodeDataset.open(small), 2, whole, 2)
    assert_same(EpisodeDataset.open(folder), 4, whole, 7)
    source = json.loads((tmp_path / "all" / fmt.SOURCE_PATH).read_text())
    assert source["merged"] == [str(small), str(folder)] and source["sources"][0]["source"]["bags"] == [str(small)]


def test_another_codec_is_encoded_again_and_only_that(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "av1", [demonstration(9, 6)], codec="libsvtav1")
    merge([EpisodeDataset.open(folder), EpisodeDataset.open(other)], Target(tmp_path / "all"))
    whole = EpisodeDataset.open(tmp_path / "all")
    assert_sound(whole)
    assert whole.info["features"][fmt.image_key("front")]["info"]["video.codec"] == "h264"
    assert_same(EpisodeDataset.open(folder), 3, whole, 3)
    mine, theirs = content(EpisodeDataset.open(other), 0), content(whole, EPISODES)
    assert np.abs(mine["front"].astype(int) - theirs["front"]).mean() < 3
    assert np.array_equal(mine["histogram front"], theirs["histogram front"])


def test_contracts_that_mean_something_else_are_not_merged(folder: Path, tmp_path: Path) -> None:
    slower = dataclasses.replace(CONTRACT, rate_hz=5)
    write_dataset(tmp_path / "slow", [demonstration(1, 5)], slower)
    with pytest.raises(EditError, match="rate_hz: 10 != 5"):
        merge([EpisodeDataset.open(folder), EpisodeDataset.open(tmp_path / "slow")], Target(tmp_path / "all"))
    assert not (tmp_path / "all").exists()


def test_other_topics_and_columns_are_merged_with_a_note(folder: Path, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(CONTRACT, joint_state=dataclasses.replace(CONTRACT.joint_state, topic="/arm/js"))
    episode = demonstration(1, 5)
    episode.columns["source.force.age_s"] = np.zeros(5, np.float32)
    write_dataset(tmp_path / "other", [episode], elsewhere)
    notes = merge([EpisodeDataset.open(folder), EpisodeDataset.open(tmp_path / "other")], Target(tmp_path / "all"))
    assert len(notes) == 2 and "/arm/js" in notes[0] and "source.force.age_s" in notes[1]
    assert "source.force.age_s" not in EpisodeDataset.open(tmp_path / "all").info["features"]


def test_a_data_set_is_not_merged_into_itself(folder: Path) -> None:
    with pytest.raises(EditError, match="one of the data sets"):
        merge([EpisodeDataset.open(folder), EpisodeDataset.open(folder)], Target(folder, overwrite=True))


def test_splits_are_complete_and_keep_the_share_of_each_task(folder: Path) -> None:
    dataset = EpisodeDataset.open(folder)
    for seed in range(5):
        parts = split_fraction(dataset, 0.5, seed)
        assert sorted(parts["train"] + parts["test"]) == list(range(EPISODES))
        assert {dataset.instructions[k] for k in parts["train"]} == {"pick cube 0", "pick cube 1"}
        assert parts == split_fraction(dataset, 0.5, seed)
    assert split_tasks(dataset) == {"task_0": [0, 2, 4], "task_1": [1, 3]}
    assert split_outcome(dataset) == {"success": [0, 1, 3, 4], "failure": [2]}
    with pytest.raises(EditError, match="between 0 and 1"):
        split_fraction(dataset, 1.0, 0)


def test_an_empty_part_or_an_unknown_episode_writes_nothing(folder: Path, tmp_path: Path) -> None:
    dataset = EpisodeDataset.open(folder)
    with pytest.raises(EditError, match="part b"):
        split(dataset, {"a": [0], "b": []}, tmp_path / "parts")
    with pytest.raises(EditError, match="no episode"):
        delete(dataset, range(EPISODES), Target(tmp_path / "none"))
    for wrong in (-1, EPISODES):
        with pytest.raises(EditError, match="episodes 0 to 4"):
            select(dataset, [0, wrong], Target(tmp_path / "none"))
        with pytest.raises(EditError, match="episodes 0 to 4"):
            delete(dataset, [wrong], Target(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_in_place_replaces_in_one_step_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    delete(EpisodeDataset.open(copy), [0], Target(copy, overwrite=True))
    assert EpisodeDataset.open(copy).num_episodes == EPISODES - 1
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    video = EpisodeDataset.open(copy).video_files("wrist")[0]
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(Exception, match="video"):
        delete(EpisodeDataset.open(copy), [0], Target(copy, overwrite=True))
    video.write_bytes(whole)
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_existing_folders_are_kept(folder: Path, tmp_path: Path) -> None:
    dataset = EpisodeDataset.open(folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(WriteError):
            select(dataset, [0], Target(tmp_path / "photos", overwrite))
        with pytest.raises(WriteError):
            split(dataset, split_outcome(dataset), tmp_path / "photos", overwrite)
        with pytest.raises(ExportError):
            export_arrays(dataset, tmp_path / "photos", overwrite=overwrite)
    assert (tmp_path / "photos/holiday.jpg").read_bytes() == b"x"
    for _ in range(2):
        split(dataset, split_outcome(dataset), tmp_path / "parts", overwrite=True)
        export_arrays(dataset, tmp_path / "arrays", overwrite=True)


def test_statistics_are_recomputed_and_repaired(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    stats = json.loads((copy / fmt.STATS_PATH).read_text())
    stats["action"]["q10"][2] += 0.1
    stats[fmt.image_key("front")]["std"][0][0][0] *= 0.01
    del stats["timestamp"]
    (copy / fmt.STATS_PATH).write_text(json.dumps(stats))
    dataset = EpisodeDataset.open(copy)
    computed = exact_statistics(dataset)
    assert sorted(wrong_statistics(dataset, *computed)) == ["action", fmt.image_key("front"), "timestamp"]
    repair(dataset, *computed)
    mended = EpisodeDataset.open(copy)
    assert wrong_statistics(mended, *exact_statistics(mended)) == []
    assert json.loads((copy / fmt.STATS_PATH).read_text()).keys() == EpisodeDataset.open(folder).statistics.keys()
    check_dataset(copy)


def test_without_histograms_statistics_come_from_decoded_pictures(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "meta/corft/histograms")
    dataset = EpisodeDataset.open(copy)
    totals, episodes = exact_statistics(dataset)
    key = fmt.image_key("wrist")
    assert np.ravel(totals[key]["mean"]) == pytest.approx(frames(folder, "wrist").mean(axis=(0, 1, 2)) / 255)
    assert wrong_statistics(dataset, totals, episodes) == []
    merge([dataset], Target(tmp_path / "again"))
    check_dataset(tmp_path / "again")


@pytest.mark.parametrize(("pictures", "tolerance"), [("png", 0), ("jpg", 12)])
def test_exported_arrays_hold_everything(folder: Path, tmp_path: Path, pictures: str, tolerance: int) -> None:
    dataset = EpisodeDataset.open(folder)
    export_arrays(dataset, tmp_path / "out", pictures)
    about = json.loads((tmp_path / "out/dataset.json").read_text())
    assert about["episodes"] == EPISODES and about["state"] == list(CONTRACT.state_names)
    for episode in range(EPISODES):
        place, expected = tmp_path / f"out/episode_{episode:06d}", content(dataset, episode)
        meta = json.loads((place / "meta.json").read_text())
        assert (meta["instruction"], meta["scene_id"]) == (expected["instruction"], f"demo/{episode}")
        with np.load(place / "steps.npz", allow_pickle=False) as steps:
            assert set(steps.files) == {n for n, f in dataset.info["features"].items() if f["dtype"] != "video"}
            assert np.array_equal(steps["action"], expected["action"])
        for camera in ("front", "wrist"):
            images = [cv2.imread(str(path)) for path in sorted((place / camera).iterdir())]
            difference = np.stack(images)[..., ::-1].astype(int) - expected[camera]
            assert np.abs(difference).mean() <= tolerance and len(images) == 4 + episode


def test_a_plain_export_reads_like_the_data_set(folder: Path, tmp_path: Path) -> None:
    export_lerobot(EpisodeDataset.open(folder), tmp_path / "plain")
    plain = EpisodeDataset.open(tmp_path / "plain", CONTRACT)
    assert list(StructureCheck(plain).problems()) == []
    assert not [name for name in plain.info["features"] if name.startswith("source.")]
    assert np.array_equal(plain.action, EpisodeDataset.open(folder).action)
    assert not (tmp_path / "plain/meta/corft").exists()
