"""Reads a LeRobotDataset v3.0 folder into arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.feature_stats import ImageHistogram
from corft_core.data.frame_cache import decoded_frames
from corft_core.data.lerobot_meta import DatasetError, read_episodes, read_info, read_json
from corft_core.data.lerobot_writer import read_column
from corft_core.data.step_labels import COLUMNS, step_labels
from corft_core.data.video import VideoError, VideoPiece, decode_video

__all__ = ["DatasetError", "EpisodeDataset"]


@dataclass(frozen=True)
class EpisodeDataset:
    """All steps of a data set, N = ``num_frames`` rows in episode order, E = ``num_episodes``.

    Per step: ``episode_index`` int64 (N,); ``state`` float32 (N, S) and ``action`` float32 (N, A), absolute [rad] and
    gripper opening; ``reward`` float32 (N,); ``done``, ``truncated``, ``success`` bool (N,), each true on the last
    step only. Per episode: ``instructions``, ``scene_ids``, ``episode_success`` bool (E,), ``episode_starts`` int64
    (E + 1,) row offsets.
    """

    folder: Path
    contract: Contract
    info: dict[str, Any]
    episodes: list[dict[str, Any]] = field(repr=False)
    side: list[dict[str, Any]] = field(repr=False)
    succeeded: bool = False

    @classmethod
    def open(cls, folder: str | Path, contract: Contract | None = None, succeeded: bool = False) -> EpisodeDataset:
        """Open a data set; ``contract`` stands in when the folder carries none (written by other software).

        ``succeeded``: the episodes were successes where the data set does not say, see `step_labels`.
        Raises DatasetError saying what is missing and which command makes a data set.
        """
        folder = Path(folder)
        info = read_info(folder)
        stored = folder / fmt.CONTRACT_PATH
        if stored.exists():
            contract = Contract.load(stored)
        elif contract is None:
            raise DatasetError(f"{folder} has no {fmt.CONTRACT_PATH}: other software wrote it. Give the "
                               "robot's contract with --contract FILE; for training make it a data set of ours with: "
                               f"ros2 run corft dataset merge {folder} OUT --contract FILE --outcome success")
        missing = [key for key in (fmt.STATE, fmt.ACTION, *(fmt.image_key(c.name) for c in contract.cameras))
                   if key not in info["features"]]
        if missing:
            raise DatasetError(f"{folder} has no feature {', '.join(missing)}; it has {', '.join(info['features'])}")
        episodes = read_episodes(folder)
        if len(episodes) != info["total_episodes"] or not episodes:
            raise DatasetError(f"{folder}: info.json tells of {info['total_episodes']} episodes, the episodes table "
                               f"of {len(episodes)}")
        side_file = folder / fmt.EPISODES_SIDE_PATH
        side = read_json(side_file) if side_file.exists() else [{} for _ in episodes]
        if not isinstance(side, list) or len(side) != len(episodes):
            raise DatasetError(f"{side_file} must be a list of {len(episodes)} entries, one an episode")
        return cls(folder, contract, info, episodes, side, succeeded)

    @property
    def fps(self) -> int:
        """Steps per second."""
        return int(self.info["fps"])

    @property
    def num_frames(self) -> int:
        """Number of steps N."""
        return int(self.info["total_frames"])

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episodes)

    @cached_property
    def episode_starts(self) -> NDArray[np.int64]:
        """Row of each episode's first step, and N at the end: (E + 1,)."""
        return np.cumsum([0, *(row["length"] for row in self.episodes)], dtype=np.int64)

    @cached_property
    def episode_index(self) -> NDArray[np.int64]:
        """Episode of each step (N,)."""
        return self._column("episode_index").astype(np.int64)

    @cached_property
    def state(self) -> NDArray[np.float32]:
        """Measured joints [rad] and gripper opening (N, S)."""
        return self._column(fmt.STATE).astype(np.float32)

    @cached_property
    def action(self) -> NDArray[np.float32]:
        """Commanded joints [rad], absolute, and gripper opening (N, A)."""
        return self._column(fmt.ACTION).astype(np.float32)

    @cached_property
    def reward(self) -> NDArray[np.float32]:
        """Reward after each step (N,)."""
        return self._labels[fmt.REWARD]

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """True where the task ended (N,)."""
        return self._labels[fmt.DONE]

    @cached_property
    def truncated(self) -> NDArray[np.bool_]:
        """True where the recording ended before the task (N,)."""
        return self._labels[fmt.TRUNCATED]

    @cached_property
    def success(self) -> NDArray[np.bool_]:
        """True where the task succeeded (N,)."""
        return self._labels[fmt.SUCCESS]

    @cached_property
    def _labels(self) -> dict[str, NDArray[Any]]:
        stored = {name: self._column(name) for name in COLUMNS if name in self.info["features"]}
        return step_labels(stored, self.episode_starts, self.succeeded)

    @cached_property
    def episode_success(self) -> NDArray[np.bool_]:
        """Whether each episode succeeded (E,)."""
        return np.logical_or.reduceat(self.success, self.episode_starts[:-1])

    @property
    def instructions(self) -> list[str]:
        """Instruction of each episode."""
        return [row["tasks"][0] for row in self.episodes]

    @property
    def scene_ids(self) -> list[str]:
        """Scene of each episode; empty where unknown."""
        return [str(entry.get("scene_id", "")) for entry in self.side]

    def column(self, name: str) -> NDArray[Any]:
        """Any data column, (N,) or (N, D), or what stands in for it. Raises DatasetError naming those there are."""
        if name in COLUMNS:
            return self._labels[name]
        known = [n for n, f in self.info["features"].items() if f["dtype"] != "video"]
        if name not in known:
            raise DatasetError(f"{self.folder} has no column {name}; it has {', '.join(known)}")
        return self._column(name)

    def _column(self, name: str) -> NDArray[Any]:
        try:
            parts = [read_column(path, name) for path in sorted((self.folder / "data").rglob("*.parquet"))]
            values = np.concatenate(parts)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise DatasetError(f"{self.folder}: column {name} cannot be read: {error}") from error
        if len(values) != self.num_frames:
            raise DatasetError(f"{self.folder}: column {name} has {len(values)} rows, info.json says {self.num_frames}")
        return values

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """meta/stats.json: feature → statistics over all steps."""
        statistics = read_json(self.folder / fmt.STATS_PATH)
        if not isinstance(statistics, dict):
            raise DatasetError(f"{self.folder / fmt.STATS_PATH} must map features to statistics")
        return statistics

    def video_slice(self, camera: str, episode: int) -> VideoPiece:
        """Where an episode's frames lie."""
        key, row = fmt.image_key(camera), self.episodes[episode]
        try:
            path = self.folder / fmt.VIDEO_PATH.format(video_key=key, chunk_index=row[f"videos/{key}/chunk_index"],
                                                       file_index=row[f"videos/{key}/file_index"])
            first, end = (round(row[f"videos/{key}/{side}_timestamp"] * self.fps) for side in ("from", "to"))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{self.folder}: the episodes table does not say where the frames of {camera} in "
                               f"episode {episode} are: {error!r}") from error
        return VideoPiece(path, first, end - first)

    def frames(self, camera: str) -> Iterator[NDArray[np.uint8]]:
        """A camera's frames uint8 (H, W, 3), N of them in row order; files are decoded once when episodes follow.

        Raises VideoError when a frame is missing or of another size.
        """
        shape = tuple(self.info["features"][fmt.image_key(camera)]["shape"])
        path, position = Path(), 0
        pictures: Iterator[NDArray[np.uint8]] = iter(())
        for episode, row in enumerate(self.episodes):
            piece = self.video_slice(camera, episode)
            if piece.path != path or piece.first_frame < position:
                path, position, pictures = piece.path, 0, decode_video(piece.path)
            wanted = islice(pictures, piece.first_frame - position, piece.first_frame - position + row["length"])
            position = piece.first_frame
            for picture in wanted:
                if picture.shape != shape:
                    raise VideoError(f"{path} has frames of {picture.shape}, info.json says {shape}")
                position += 1
                yield picture
            if position != piece.first_frame + row["length"]:
                raise VideoError(f"{path} ends before the last frame of episode {episode}; the data set is incomplete, "
                                 "convert the bag again")

    def stored_histograms(self, camera: str) -> list[ImageHistogram] | None:
        """Level counts of each episode's pictures before encoding; None where the data set does not carry them."""
        path = self.folder / fmt.HISTOGRAMS_PATH.format(camera=camera)
        if not path.exists():
            return None
        try:
            counts = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        if getattr(counts, "shape", None) != (self.num_episodes, 3, 256):
            raise DatasetError(f"{path} must hold an array ({self.num_episodes}, 3, 256)")
        return [ImageHistogram.of(c, row["length"]) for c, row in zip(counts, self.episodes, strict=True)]

    def image_histograms(self, camera: str) -> list[ImageHistogram]:
        """Level counts of each episode's pictures: the stored ones, else of decoded pictures."""
        stored = self.stored_histograms(camera)
        if stored is not None:
            return stored
        histograms, pictures = [], self.frames(camera)
        for row in self.episodes:
            histogram = ImageHistogram()
            for picture in islice(pictures, row["length"]):
                histogram.add(picture[None])
            histograms.append(histogram)
        return histograms

    def video_files(self, camera: str) -> list[Path]:
        """The camera's video files in frame order."""
        return sorted((self.folder / "videos" / fmt.image_key(camera)).rglob("*.mp4"))

    def images(self, cache: str | Path | None = None) -> dict[str, NDArray[np.uint8]]:
        """Frames of all cameras, camera → read-only memory map uint8 (N, H, W, 3), decoded on first use.

        Kept beside the data set, or in the folder ``cache``; see `frame_cache`.
        """
        return decoded_frames(self, cache)
