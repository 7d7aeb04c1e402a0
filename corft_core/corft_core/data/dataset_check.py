"""Reopens a written data set and compares its parts, so that damage is found now and not at training time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.data import lerobot_format as fmt
from corft_core.data.feature_stats import vector_statistics
from corft_core.data.lerobot_reader import DatasetError, EpisodeDataset
from corft_core.data.video import count_frames, decode_frame


def check_dataset(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Check counts, indices, statistics, and the first, last and a random frame of every episode and camera.

    Returns what was checked. Raises DatasetError or VideoError naming the first part that is wrong.
    """
    dataset = EpisodeDataset.open(folder)
    random = np.random.default_rng(seed)
    starts = dataset.episode_starts
    _require(int(starts[-1]) == dataset.num_frames, f"episode lengths add up to {starts[-1]}, not {dataset.num_frames}")
    _require(np.array_equal(dataset.column("index"), np.arange(dataset.num_frames)), "column index is not 0 … N-1")
    _require(np.array_equal(dataset.episode_index, np.repeat(np.arange(dataset.num_episodes), np.diff(starts))),
             "column episode_index disagrees with the episodes table")
    for name in (fmt.STATE, fmt.ACTION):
        _require(bool(np.all(np.isfinite(dataset.column(name)))), f"column {name} holds values that are not finite")
    ends = starts[1:] - 1
    _require(bool(np.all((dataset.done | dataset.truncated)[ends])), "an episode ends neither done nor truncated")
    _require(int((dataset.done | dataset.truncated).sum()) == dataset.num_episodes, "an episode ends twice")
    stats = json.loads((folder / fmt.STATS_PATH).read_text())
    for name in (fmt.STATE, fmt.ACTION, fmt.REWARD):
        _require(stats[name] == vector_statistics(dataset.column(name)), f"stats.json is wrong for {name}")
    frames = _check_videos(dataset, stats, random)
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames, "decoded_frames": frames}


def _check_videos(dataset: EpisodeDataset, stats: dict[str, Any], random: np.random.Generator) -> int:
    decoded = 0
    for camera in dataset.contract.cameras:
        key = fmt.image_key(camera.name)
        counts = [count_frames(path) for path in dataset.video_files(camera.name)]
        _require(sum(counts) == dataset.num_frames,
                 f"the videos of {camera.name} hold {sum(counts)} frames, the tables {dataset.num_frames}")
        _require(stats[key]["count"] == [dataset.num_frames], f"stats.json counts other frames for {key}")
        for row in dataset.episodes:
            path = dataset.folder / fmt.VIDEO_PATH.format(
                video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"])
            first = round(row[f"videos/{key}/from_timestamp"] * dataset.fps)
            last = first + row["length"] - 1
            _require(round(row[f"videos/{key}/to_timestamp"] * dataset.fps) == last + 1,
                     f"episode {row['episode_index']}: {key} from and to stamps disagree with its length")
            for index in {first, last, int(random.integers(first, last + 1))}:
                shape = decode_frame(path, index, dataset.fps).shape
                _require(shape == (*camera.size, 3), f"{path} has frames of {shape}, the contract says {camera.size}")
                decoded += 1
    return decoded


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise DatasetError(f"the written data set failed its check: {problem}. This is a bug or a failing disk; "
                           "nothing was left behind.")
