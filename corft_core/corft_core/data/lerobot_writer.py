"""Writes stored episodes as a LeRobotDataset v3.0 folder; the caller makes the folder appear atomically."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.feature_stats import ImageHistogram, Statistics, vector_statistics
from corft_core.data.video import VideoPiece
from corft_core.data.video_writer import VideoFiles


@dataclass(frozen=True)
class StoredEpisode:
    """An episode whose frames are encoded already.

    ``columns``: name → (T,) or (T, D) values of the data files in their order, without the index columns (timestamp,
    frame_index, episode_index, index, task_index), which are made anew. ``videos`` and ``histograms``: camera → its
    frames. ``side``: its entry of meta/corft/episodes.json.
    """

    columns: dict[str, np.ndarray[Any, Any]]
    videos: dict[str, VideoPiece]
    histograms: dict[str, ImageHistogram]
    instruction: str
    side: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns[fmt.STATE])


class LeRobotWriter:
    """Takes episodes one by one, then ``finish`` writes the tables; ``abort`` closes the files after an error.

    Video packets are copied. Files roll over between episodes at ``data_file_bytes`` and ``video_file_bytes``.
    """

    def __init__(self, root: Path, contract: Contract, *, data_file_bytes: int | None = None,
                 video_file_bytes: int | None = None) -> None:
        self._root, self._contract, self._fps = root, contract, contract.rate_hz
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._side: list[dict[str, Any]] = []
        self._frames = 0
        self._features: dict[str, fmt.Feature] | None = None
        self._data = _DataFiles(root, _limit(data_file_bytes, fmt.DATA_FILE_MB))
        limit = _limit(video_file_bytes, fmt.VIDEO_FILE_MB)
        self._videos = {camera.name: VideoFiles(_path_of(root, fmt.image_key(camera.name)), self._fps, limit)
                        for camera in contract.cameras}
        self._histograms: dict[str, list[ImageHistogram]] = {camera.name: [] for camera in contract.cameras}

    @property
    def episodes(self) -> int:
        """Number of episodes added."""
        return len(self._rows)

    def add(self, episode: StoredEpisode) -> None:
        """Append an episode. Raises ValueError when it does not fit the contract or the episodes before it."""
        features = self._check(episode)
        for name, video in self._videos.items():
            video.append(episode.videos[name])
            self._histograms[name].append(episode.histograms[name])
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        values = episode.columns | self._index_columns(len(episode), task)
        chunk, file = self._data.write(values, features)
        row: dict[str, Any] = {
            "episode_index": self.episodes, "tasks": [episode.instruction], "length": len(episode),
            "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": self._frames, "dataset_to_index": self._frames + len(episode),
        }
        for name, video in self._videos.items():
            key, where = f"videos/{fmt.image_key(name)}", video.slices[-1]
            row[f"{key}/chunk_index"], row[f"{key}/file_index"] = divmod(where.file, fmt.CHUNK_SIZE)
            row[f"{key}/from_timestamp"] = where.first_frame / self._fps
            row[f"{key}/to_timestamp"] = (where.first_frame + where.frames) / self._fps
        for name in features:
            row |= _stats_row(name, vector_statistics(values[name]))
        for name, histogram in episode.histograms.items():
            row |= _stats_row(fmt.image_key(name), histogram.statistics())
        self._rows.append(row)
        self._side.append(episode.side)
        self._frames += len(episode)

    def finish(self, source: dict[str, Any], report: dict[str, Any] | None) -> None:
        """Close all files and write the meta folder. At least one episode must have been added."""
        assert self._features is not None, "add at least one episode first"
        self._close()
        totals: dict[str, Statistics] = {}
        for camera, histograms in self._histograms.items():
            total = ImageHistogram()
            for histogram in histograms:
                total.merge(histogram)
            totals[fmt.image_key(camera)] = total.statistics()
            path = self._root / fmt.HISTOGRAMS_PATH.format(camera=camera)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack([histogram.counts for histogram in histograms]), allow_pickle=False)
        for name in self._features:
            totals[name] = vector_statistics(self._data.column(name))
        self._write_meta(totals, source, report)

    def abort(self) -> None:
        """Close the files after an error; the error is the one to report."""
        try:
            self._close()
        except (OSError, ValueError, pa.ArrowException):
            return

    def _close(self) -> None:
        for video in self._videos.values():
            video.close()
        self._data.close()

    def _check(self, episode: StoredEpisode) -> dict[str, fmt.Feature]:
        cameras = {camera.name for camera in self._contract.cameras}
        if set(episode.videos) != cameras or set(episode.histograms) != cameras:
            raise ValueError(f"the episode has videos of {sorted(episode.videos)}, the contract has {sorted(cameras)}")
        extra = {name: values for name, values in episode.columns.items() if name not in fmt.STEP_COLUMNS}
        features = fmt.data_features(self._contract, extra)
        for name, values in episode.columns.items():
            shape = tuple(features[name]["shape"])
            if len(values) != len(episode) or (values.shape[1:] or (1,)) != shape:
                raise ValueError(f"column {name} must be ({len(episode)}, {shape[0]}), got {values.shape}")
        if self._features is None:
            self._features = features
        elif features != self._features:
            raise ValueError(f"episode {self.episodes} has the columns {sorted(episode.columns)}, unlike those before")
        return features

    def _index_columns(self, length: int, task: int) -> dict[str, np.ndarray[Any, Any]]:
        steps = np.arange(length, dtype=np.int64)
        return {"timestamp": (steps / self._fps).astype(np.float32), "frame_index": steps,
                "episode_index": np.full(length, self.episodes, np.int64), "index": steps + self._frames,
                "task_index": np.full(length, task, np.int64)}

    def _write_meta(self, totals: dict[str, Statistics], source: dict[str, Any], report: dict[str, Any] | None) -> None:
        assert self._features is not None
        videos = {fmt.image_key(c.name): fmt.video_feature(c.size, self._fps, self._videos[c.name].codec)
                  for c in self._contract.cameras}
        info = {
            "codebase_version": fmt.CODEBASE_VERSION, "robot_type": self._contract.robot.name,
            "total_episodes": self.episodes, "total_frames": self._frames, "total_tasks": len(self._tasks),
            "chunks_size": fmt.CHUNK_SIZE, "data_files_size_in_mb": fmt.DATA_FILE_MB,
            "video_files_size_in_mb": fmt.VIDEO_FILE_MB, "fps": self._fps, "splits": {"train": f"0:{self.episodes}"},
            "data_path": fmt.DATA_PATH, "video_path": fmt.VIDEO_PATH if videos else None,
            "features": videos | self._features,
        }
        for row in self._rows:
            row["meta/episodes/chunk_index"] = row["meta/episodes/file_index"] = 0
        (self._root / "meta/corft").mkdir(parents=True, exist_ok=True)
        episodes = self._root / fmt.EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), episodes)
        pq.write_table(fmt.tasks_table(list(self._tasks)), self._root / fmt.TASKS_PATH)
        self._write_json(fmt.INFO_PATH, info)
        self._write_json(fmt.STATS_PATH, totals)
        self._write_json(fmt.CONTRACT_PATH, self._contract.to_dict())
        self._write_json(fmt.SOURCE_PATH, source | {"versions": software_versions()})
        self._write_json(fmt.EPISODES_SIDE_PATH, self._side)
        if report is not None:
            self._write_json(fmt.REPORT_PATH, report)

    def _write_json(self, path: str, value: Any) -> None:
        (self._root / path).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


class _DataFiles:
    """Parquet files, one row group an episode."""

    def __init__(self, root: Path, file_bytes: int) -> None:
        self._root, self._file_bytes = root, file_bytes
        self._writer: pq.ParquetWriter | None = None
        self._paths: list[Path] = []

    def write(self, values: dict[str, np.ndarray[Any, Any]], features: dict[str, fmt.Feature]) -> tuple[int, int]:
        """Append one episode; returns (chunk, file) index."""
        schema = fmt.data_schema(features)
        if self._writer is not None and self._paths[-1].stat().st_size >= self._file_bytes:
            self.close()
        if self._writer is None:
            chunk, file = divmod(len(self._paths), fmt.CHUNK_SIZE)
            path = self._root / fmt.DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._paths.append(path)
            self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        arrays = [fmt.column_array(values[field.name], field) for field in schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        return divmod(len(self._paths) - 1, fmt.CHUNK_SIZE)

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """All values of one column, (N,) or (N, D)."""
        return np.concatenate([read_column(path, name) for path in self._paths])

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def read_column(path: Path, name: str) -> np.ndarray[Any, Any]:
    """One column of a data file as (N,) or (N, D)."""
    with pq.ParquetFile(path) as file:  # a third of read_table's time
        column = file.read(columns=[name], use_threads=False).column(0).combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _limit(given: int | None, default_mb: int) -> int:
    return default_mb * 1_000_000 if given is None else given


def _path_of(root: Path, video_key: str) -> Callable[[int], Path]:
    def path_of(number: int) -> Path:
        chunk, file = divmod(number, fmt.CHUNK_SIZE)
        return root / fmt.VIDEO_PATH.format(video_key=video_key, chunk_index=chunk, file_index=file)
    return path_of


def _stats_row(feature: str, statistics: Statistics) -> dict[str, Any]:
    return {f"stats/{feature}/{name}": value for name, value in statistics.items()}


def software_versions() -> dict[str, str]:
    """What decides the bytes besides the recording: Python and the packages that read, compute and encode."""
    found = {"python": platform.python_version()}
    for package in ("corft_core", "numpy", "pyarrow", "av", "rosbags", "opencv-python-headless"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
