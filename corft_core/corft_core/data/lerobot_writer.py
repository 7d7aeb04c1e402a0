"""Writes episodes as a LeRobotDataset v3.0 folder; the caller makes the folder appear atomically."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.episode import Episode
from corft_core.data.feature_stats import ImageHistogram, Statistics, vector_statistics
from corft_core.data.video import CODEC_NAMES, PathOf, VideoWriter, default_codec


class LeRobotWriter:
    """Takes episodes one by one, then ``finish`` writes the tables. ``abort`` stops the encoder threads on errors.

    Memory: one episode here and up to two waiting in each camera's encoder.
    """

    def __init__(self, root: Path, contract: Contract, codec: str | None = None) -> None:
        self._root, self._contract = root, contract
        self._fps = contract.rate_hz
        self._codec = codec or default_codec()
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._side: list[dict[str, Any]] = []
        self._frames = 0
        self._data = _DataFiles(root)
        self._features: dict[str, fmt.Feature] | None = None
        self._videos = {
            camera.name: VideoWriter(PathOf(root, fmt.VIDEO_PATH, video_key=fmt.image_key(camera.name)), camera.size,
                                     self._fps, self._codec, fmt.VIDEO_FILE_MB * 1_000_000)
            for camera in contract.cameras
        }

    @property
    def episodes(self) -> int:
        """Number of episodes added."""
        return len(self._rows)

    def add(self, episode: Episode) -> None:
        """Append an episode. Raises ValueError when it does not fit the contract or the episodes before it."""
        self._check(episode)
        columns = {name: values.dtype for name, values in episode.columns.items()}
        features = fmt.data_features(self._contract, columns)
        if self._features is None:
            self._features = features
        elif features != self._features:
            raise ValueError(f"episode {self.episodes} has the columns {sorted(columns)}, unlike the ones before")
        for name, video in self._videos.items():
            video.submit(episode.images[name])
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        values = self._columns(episode, task)
        chunk, file = self._data.write(values, features)
        row: dict[str, Any] = {
            "episode_index": self.episodes, "tasks": [episode.instruction], "length": len(episode),
            "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": self._frames, "dataset_to_index": self._frames + len(episode),
        }
        for name, column in values.items():
            row |= _stats_row(name, vector_statistics(column))
        self._rows.append(row)
        self._side.append({"scene_id": episode.scene_id, "success": bool(episode.success),
                           "instruction": episode.instruction, **episode.origin})
        self._frames += len(episode)

    def finish(self, source: dict[str, Any], report: dict[str, Any] | None) -> None:
        """Close all files and write the meta folder. At least one episode must have been added."""
        assert self._features is not None, "add at least one episode first"
        for video in self._videos.values():
            video.close()
        self._data.close()
        totals: dict[str, Statistics] = {}
        for camera, video in self._videos.items():
            key = fmt.image_key(camera)
            total = ImageHistogram()
            for row, where, histogram in zip(self._rows, video.slices, video.histograms, strict=True):
                row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"] = divmod(where.file, fmt.CHUNK_SIZE)
                row[f"videos/{key}/from_timestamp"] = where.first_frame / self._fps
                row[f"videos/{key}/to_timestamp"] = (where.first_frame + where.frames) / self._fps
                row |= _stats_row(key, histogram.statistics())
                total.merge(histogram)
            totals[key] = total.statistics()
        for name in self._features:
            totals[name] = vector_statistics(self._data.column(name))
        self._write_meta(totals, source, report)

    def abort(self) -> None:
        """Stop the threads and close the files after an error."""
        for video in self._videos.values():
            video.abort()
        self._data.abort()

    def _check(self, episode: Episode) -> None:
        episode.validate()
        contract = self._contract
        if episode.state.shape[1] != len(contract.state_names) or episode.action.shape[1] != len(contract.action_names):
            raise ValueError(f"state and action need {len(contract.state_names)} and {len(contract.action_names)} "
                             f"columns, got {episode.state.shape[1]} and {episode.action.shape[1]}")
        for camera in contract.cameras:
            if camera.name not in episode.images:
                raise ValueError(f"the episode has no images of camera {camera.name}; it has {sorted(episode.images)}")
            if episode.images[camera.name].shape[1:3] != tuple(camera.size):
                raise ValueError(f"images of {camera.name} must be {camera.size} (height, width), "
                                 f"got {episode.images[camera.name].shape[1:3]}")

    def _columns(self, episode: Episode, task: int) -> dict[str, np.ndarray[Any, Any]]:
        steps = np.arange(len(episode), dtype=np.int64)
        return {
            fmt.STATE: episode.state.astype(np.float32), fmt.ACTION: episode.action.astype(np.float32),
            fmt.REWARD: episode.reward, fmt.DONE: episode.done, fmt.TRUNCATED: episode.truncated,
            fmt.SUCCESS: episode.done, **episode.columns,
            "timestamp": (steps / self._fps).astype(np.float32), "frame_index": steps,
            "episode_index": np.full(len(steps), self.episodes, np.int64), "index": steps + self._frames,
            "task_index": np.full(len(steps), task, np.int64),
        }

    def _write_meta(self, totals: dict[str, Statistics], source: dict[str, Any], report: dict[str, Any] | None) -> None:
        assert self._features is not None
        videos = {fmt.image_key(c.name): fmt.video_feature(c.size, self._fps, CODEC_NAMES[self._codec])
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
        (self._root / "meta/corft").mkdir(parents=True)
        episodes = self._root / fmt.EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), episodes)
        pq.write_table(fmt.tasks_table(list(self._tasks)), self._root / fmt.TASKS_PATH)
        self._write_json(fmt.INFO_PATH, info)
        self._write_json(fmt.STATS_PATH, totals)
        self._write_json(fmt.CONTRACT_PATH, self._contract.to_dict())
        self._write_json(fmt.SOURCE_PATH, source | {"versions": _versions()})
        self._write_json(fmt.EPISODES_SIDE_PATH, self._side)
        if report is not None:
            self._write_json(fmt.REPORT_PATH, report)

    def _write_json(self, path: str, value: Any) -> None:
        (self._root / path).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


class _DataFiles:
    """Parquet files of ≤ ``DATA_FILE_MB``, one row group an episode."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writer: pq.ParquetWriter | None = None
        self._number = 0
        self._paths: list[Path] = []

    def write(self, values: dict[str, np.ndarray[Any, Any]], features: dict[str, fmt.Feature]) -> tuple[int, int]:
        """Append one episode; returns (chunk, file) index."""
        schema = fmt.data_schema(features)
        if self._writer is not None and self._paths[-1].stat().st_size >= fmt.DATA_FILE_MB * 1_000_000:
            self.close()
            self._number += 1
        if self._writer is None:
            chunk, file = divmod(self._number, fmt.CHUNK_SIZE)
            path = self._root / fmt.DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._paths.append(path)
            self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        arrays = [fmt.column_array(values[field.name], field) for field in schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        return divmod(self._number, fmt.CHUNK_SIZE)

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """All values of one column, (N,) or (N, D)."""
        return np.concatenate([read_column(path, name) for path in self._paths])

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def abort(self) -> None:
        try:
            self.close()
        except (OSError, pa.ArrowException):
            self._writer = None  # the error that led here is the one to report


def read_column(path: Path, name: str) -> np.ndarray[Any, Any]:
    """One column of a data file as (N,) or (N, D)."""
    column = pq.read_table(path, columns=[name]).column(0).combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _stats_row(feature: str, statistics: Statistics) -> dict[str, Any]:
    return {f"stats/{feature}/{name}": value for name, value in statistics.items()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("corft_core", "numpy", "pyarrow", "av", "rosbags", "rosbags-image", "opencv-python-headless"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
