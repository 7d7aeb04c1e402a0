"""Compares the parts of a data set with each other, so that damage is found now and not at training time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corft_core.data import lerobot_format as fmt
from corft_core.data.feature_stats import ImageHistogram, vector_statistics
from corft_core.data.lerobot_meta import DatasetError, read_json
from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.data.video import VideoError, count_frames, decode_frame

# Another machine's numpy may add in another order.
STATISTICS_RTOL = 1e-6


def check_dataset(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Check counts, indices, statistics, and the first, last and a random frame of every episode and camera.

    Returns what was checked. Raises DatasetError or VideoError naming the first part that is wrong.
    """
    check = StructureCheck(EpisodeDataset.open(folder), seed)
    for problem in check.problems():
        raise DatasetError(f"the written data set failed its check: {problem}. This is a bug or a failing disk; "
                           "nothing was left behind.")
    return {"episodes": check.dataset.num_episodes, "frames": check.dataset.num_frames,
            "decoded_frames": check.decoded_frames}


class StructureCheck:
    """The check of one open data set; ``decoded_frames`` counts the frames looked at."""

    def __init__(self, dataset: EpisodeDataset, seed: int = 0) -> None:
        self.dataset = dataset
        self.decoded_frames = 0
        self._random = np.random.default_rng(seed)

    def problems(self) -> Iterator[str]:
        """What is wrong, part by part; a part that cannot be read is one problem."""
        for part in (self._indices, self._ends, self._tasks, self._side_files, self._statistics, self._videos):
            try:
                yield from part()
            except (DatasetError, VideoError) as error:
                yield str(error)

    def _indices(self) -> Iterator[str]:
        dataset, starts = self.dataset, self.dataset.episode_starts
        lengths = np.diff(starts)
        if starts[-1] != dataset.num_frames:
            yield f"episode lengths add up to {starts[-1]}, info.json says {dataset.num_frames}"
            return
        expected = {
            "index": np.arange(dataset.num_frames),
            "episode_index": np.repeat(np.arange(dataset.num_episodes), lengths),
            "frame_index": np.arange(dataset.num_frames) - np.repeat(starts[:-1], lengths),
        }
        for name, values in expected.items():
            if not np.array_equal(dataset.column(name), values):
                yield f"column {name} does not count up as the episodes table says"
        if not np.allclose(dataset.column("timestamp"), expected["frame_index"] / dataset.fps, atol=1e-4):
            yield f"column timestamp is not frame_index / {dataset.fps} s"
        for episode, row in enumerate(dataset.episodes):
            if (row["episode_index"], row["dataset_from_index"], row["dataset_to_index"]) != (
                    episode, starts[episode], starts[episode + 1]):
                yield f"row {episode} of the episodes table has a wrong episode_index or dataset_from/to_index"

    def _ends(self) -> Iterator[str]:
        dataset = self.dataset
        ended = dataset.done | dataset.truncated
        last = np.zeros(dataset.num_frames, np.bool_)
        last[dataset.episode_starts[1:] - 1] = True
        for episode in np.unique(dataset.episode_index[ended != last]):
            yield f"episode {episode} must be done or truncated on its last step, and on no other"

    def _tasks(self) -> Iterator[str]:
        path = self.dataset.folder / fmt.TASKS_PATH
        try:
            columns = pq.read_table(path).to_pydict()
            names = columns.get("task") or columns["__index_level_0__"]
            tasks = dict(zip(columns["task_index"], names, strict=True))
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            yield f"{path} cannot be read: {error}"
            return
        numbers = self.dataset.column("task_index")[self.dataset.episode_starts[:-1]]
        for episode, (number, instruction) in enumerate(zip(numbers, self.dataset.instructions, strict=True)):
            if tasks.get(int(number)) != instruction:
                yield f"episode {episode} has task_index {number}, which {path.name} calls {tasks.get(int(number))!r}"

    def _side_files(self) -> Iterator[str]:
        for name in (fmt.SOURCE_PATH, fmt.REPORT_PATH):
            if (self.dataset.folder / name).exists():
                read_json(self.dataset.folder / name)
        for episode, entry in enumerate(self.dataset.side):
            if entry.get("success", bool(self.dataset.episode_success[episode])) != \
                    bool(self.dataset.episode_success[episode]):
                yield f"episode {episode}: {fmt.EPISODES_SIDE_PATH} and column {fmt.SUCCESS} disagree"

    def _statistics(self) -> Iterator[str]:
        for name, feature in self.dataset.info["features"].items():
            stored = self.dataset.statistics.get(name)
            if stored is None:
                yield f"stats.json lacks {name}"
            elif feature["dtype"] == "video":
                if stored.get("count") != [self.dataset.num_frames]:
                    yield f"stats.json is wrong for {name}: it counts {stored.get('count')} frames"
                elif not self._agrees_with_histograms(name, stored):
                    yield f"stats.json and the stored histograms disagree for {name}"
            elif feature["dtype"] not in ("image", "string") and \
                    not same_statistics(stored, vector_statistics(self.dataset.column(name))):
                yield f"stats.json is wrong for {name}; write it anew with: ros2 run corft dataset stats --write"

    def _agrees_with_histograms(self, key: str, stored: dict[str, Any]) -> bool:
        histograms = self.dataset.stored_histograms(key.removeprefix(fmt.image_key("")))
        if histograms is None:
            return True
        total = ImageHistogram()
        for histogram in histograms:
            total.merge(histogram)
        return bool(total.counts.any(axis=1).all()) and same_statistics(stored, total.statistics())

    def _videos(self) -> Iterator[str]:
        for camera in self.dataset.contract.cameras:
            counts: dict[Path, int] = {}
            for episode, row in enumerate(self.dataset.episodes):
                where = self.dataset.video_slice(camera.name, episode)
                if where.frames != row["length"]:
                    yield f"episode {episode}: from and to stamps of {camera.name} disagree with its length"
                    continue
                counts[where.path] = counts.get(where.path, 0) + where.frames
                last = where.first_frame + where.frames - 1
                for index in sorted({where.first_frame, last, int(self._random.integers(where.first_frame, last + 1))}):
                    shape = decode_frame(where.path, index, self.dataset.fps).shape
                    self.decoded_frames += 1
                    if shape != (*camera.size, 3):
                        yield f"{where.path} has frames of {shape}, the contract says {camera.size}"
            for path, frames in counts.items():
                if (held := count_frames(path)) != frames:
                    yield f"the video {path} holds {held} frames, the episodes table {frames}"


def same_statistics(one: dict[str, Any], other: dict[str, Any], atol: float = 0.0) -> bool:
    """Whether two entries of stats.json agree but for rounding."""
    return one.keys() == other.keys() and all(
        np.shape(one[name]) == np.shape(other[name]) and
        np.allclose(np.asarray(one[name], np.float64), np.asarray(other[name], np.float64), STATISTICS_RTOL, atol)
        for name in one)
