"""Reads a LeRobotDataset v3.0 folder into arrays, and its frames into a memory map decoded once."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.feature_stats import ImageHistogram
from corft_core.data.lerobot_writer import read_column
from corft_core.data.video import VideoError, VideoPiece, decode_video
from corft_core.errors import CorftError
from corft_core.files import FULL_DISK, atomic_folder

logger = logging.getLogger(__name__)


class DatasetError(CorftError):
    """A folder that is not a readable data set."""


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

    @classmethod
    def open(cls, folder: str | Path, contract: Contract | None = None) -> EpisodeDataset:
        """Open a data set; ``contract`` stands in when the folder carries none (written by other software).

        Raises DatasetError saying what is missing and which command makes a data set.
        """
        folder = Path(folder)
        info = _read_info(folder)
        stored = folder / fmt.CONTRACT_PATH
        if stored.exists():
            contract = Contract.load(stored)
        elif contract is None:
            raise DatasetError(f"{folder} has no {fmt.CONTRACT_PATH}; give the robot's contract as well (--contract FILE)")
        missing = [key for key in (fmt.STATE, fmt.ACTION, *(fmt.image_key(c.name) for c in contract.cameras))
                   if key not in info["features"]]
        if missing:
            raise DatasetError(f"{folder} has no feature {', '.join(missing)}; it has {', '.join(info['features'])}")
        episodes = _read_episodes(folder)
        if len(episodes) != info["total_episodes"] or not episodes:
            raise DatasetError(f"{folder}: info.json tells of {info['total_episodes']} episodes, the episodes table "
                               f"of {len(episodes)}")
        side_file = folder / fmt.EPISODES_SIDE_PATH
        side = read_json(side_file) if side_file.exists() else [{} for _ in episodes]
        if not isinstance(side, list) or len(side) != len(episodes):
            raise DatasetError(f"{side_file} must be a list of {len(episodes)} entries, one an episode")
        return cls(folder, contract, info, episodes, side)

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
        return self._column(fmt.REWARD).astype(np.float32)

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """True where the task ended (N,)."""
        return self._column(fmt.DONE).astype(np.bool_)

    @cached_property
    def truncated(self) -> NDArray[np.bool_]:
        """True where the recording ended before the task (N,)."""
        return self._column(fmt.TRUNCATED).astype(np.bool_)

    @cached_property
    def success(self) -> NDArray[np.bool_]:
        """True where the task succeeded (N,)."""
        return self._column(fmt.SUCCESS).astype(np.bool_)

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
        """Any data column, (N,) or (N, D). Raises DatasetError naming the columns there are."""
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
        """Frames of all cameras, camera → read-only memory map uint8 (N, H, W, 3).

        Decoded on first use, one thread a camera, into a folder beside the data set (or ``cache``), named after the
        content, so that a changed data set is decoded again and an interrupted run leaves nothing behind.
        """
        parent = Path(cache) if cache is not None else self.folder.resolve().parent / ".corft_cache"
        name = f"{self.folder.resolve().name}-"
        target = parent / (name + self._content_key())
        if not target.exists():
            try:
                parent.mkdir(parents=True, exist_ok=True)
                self._decode(target)
            except PermissionError as error:
                if cache is not None:
                    raise
                fallback = Path(tempfile.gettempdir()) / "corft_cache"
                logger.warning("%s is not writable (%s), frames are cached in %s", parent, error, fallback)
                return self.images(fallback)
            for old in parent.glob(f"{name}{'?' * 16}"):
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
        return {camera.name: np.load(target / f"{camera.name}.npy", mmap_mode="r", allow_pickle=False)
                for camera in self.contract.cameras}

    def _decode(self, target: Path) -> None:
        try:
            with atomic_folder(target) as temporary, ThreadPoolExecutor(max(1, len(self.contract.cameras))) as pool:
                for job in [pool.submit(self._decode_camera, c.name, temporary) for c in self.contract.cameras]:
                    job.result()
        except OSError as error:
            if target.exists():  # another process decoded the same content first
                return
            if error.errno in FULL_DISK:
                shapes = [self.info["features"][fmt.image_key(c.name)]["shape"] for c in self.contract.cameras]
                size_mb = sum(self.num_frames * int(np.prod(shape)) for shape in shapes) / 1e6
                raise DatasetError(f"no space left in {target.parent} for the decoded frames ({size_mb:.0f} MB). Free "
                                   "some space, or move the data set to another disk.") from error
            raise

    def _decode_camera(self, camera: str, folder: Path) -> None:
        height, width, channels = self.info["features"][fmt.image_key(camera)]["shape"]
        shape = (self.num_frames, height, width, channels)
        with (folder / f"{camera}.npy").open("wb") as file:  # a memory map would die of SIGBUS on a full disk
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for frame in self.frames(camera):
                file.write(frame.tobytes())

    def _content_key(self) -> str:
        digest = hashlib.sha256((self.folder / fmt.INFO_PATH).read_bytes())
        for camera in self.contract.cameras:
            for path in self.video_files(camera.name):
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / fmt.INFO_PATH
    if not path.exists():
        raise DatasetError(f"{folder} is not a LeRobot v3 data set: there is no {fmt.INFO_PATH}. "
                           "Make one with: ros2 run corft bag_to_dataset BAG OUT")
    info = read_json(path)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version != fmt.CODEBASE_VERSION:
        raise DatasetError(f"{folder} has codebase_version {version!r}, corft reads {fmt.CODEBASE_VERSION!r}")
    for key, kind in (("fps", int), ("total_episodes", int), ("total_frames", int), ("features", dict)):
        if not isinstance(info.get(key), kind) or not info[key]:
            raise DatasetError(f"{path}: {key} must be a {kind.__name__} and not 0 or empty, got {info.get(key)!r}")
    return info


def _read_episodes(folder: Path) -> list[dict[str, Any]]:
    """Rows of the episodes table without their statistics, in the order of episode_index."""
    rows: list[dict[str, Any]] = []
    try:
        for path in sorted((folder / "meta/episodes").rglob("*.parquet")):
            names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
            rows += pq.read_table(path, columns=names).to_pylist()
        for row in rows:
            if not (row["length"] > 0 and row["tasks"] and row["episode_index"] >= 0):
                raise ValueError(f"row {row}")
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{folder}: the episodes table cannot be read: {error!r}") from error
    return sorted(rows, key=lambda row: row["episode_index"])


def read_json(path: Path) -> Any:
    """Content of a JSON file of a data set. Raises DatasetError."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
