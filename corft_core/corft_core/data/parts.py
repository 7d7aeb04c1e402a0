"""One bag's episodes on their way into a data set: encoded and finished, not yet joined with those of other bags.

A part is a folder: ``part.json`` (report and the episodes' notes), per episode ``<n>.npz`` (columns and histograms)
and ``<n>.<camera>.mp4``. It is written under a name of its own and renamed when complete, so a part is there or not.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core import files
from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.episode import Episode
from corft_core.data.feature_stats import ImageHistogram
from corft_core.data.lerobot_writer import StoredEpisode
from corft_core.data.video import VideoPiece, default_codec
from corft_core.data.video_writer import EpisodeEncoder

PART_VERSION = 4
"""To be raised when the same bag, options and contract give other bytes than before."""
_INDEX = "part.json"
_HISTOGRAM = "histogram/"


class PartWriter:
    """Writes episodes as they are sampled: ``frames`` … then ``commit`` or ``drop``; at the end ``finish``.

    Memory: a few frames a camera wait for the encoders. Use as a context manager, which stops their threads and
    removes what was not finished. ``cameras``: only their pictures are wanted; `join_cameras` puts such parts together.
    """

    def __init__(self, folder: Path, contract: Contract, codec: str | None = None,
                 cameras: Collection[str] | None = None) -> None:
        self._target, self._contract = folder, contract
        self._folder = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._encoders = {camera.name: EpisodeEncoder(camera.size, contract.rate_hz, codec or default_codec())
                          for camera in contract.cameras if cameras is None or camera.name in cameras}
        self._episodes: list[dict[str, Any]] = []
        self._running = False

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Those whose pictures are written."""
        return tuple(self._encoders)

    def frames(self, images: dict[str, NDArray[np.uint8]]) -> None:
        """Append one step's frame of every camera, uint8 (H, W, 3), to the running episode; starts one if need be."""
        if not self._running:
            for name, encoder in self._encoders.items():
                encoder.start(self._video(name))
            self._running = True
        for name, encoder in self._encoders.items():
            encoder.put(images[name])

    def drop(self) -> None:
        """Forget the running episode."""
        if self._running:
            for encoder in self._encoders.values():
                encoder.drop()
        self._running = False

    def commit(self, episode: Episode) -> None:
        """End the running episode; ``episode`` carries everything but its images. Raises ValueError if unfit."""
        episode.validate()
        self._running = False
        values = {fmt.STATE: episode.state, fmt.ACTION: episode.action, fmt.REWARD: episode.reward,
                  fmt.DONE: episode.done, fmt.TRUNCATED: episode.truncated, fmt.SUCCESS: episode.done,
                  **episode.columns}
        stored: dict[str, NDArray[Any]] = dict(values)
        for name, encoder in self._encoders.items():
            frames, histogram = encoder.finish()
            if frames != len(episode):
                raise ValueError(f"camera {name} has {frames} frames, the episode {len(episode)} steps")
            stored[_HISTOGRAM + name] = histogram.counts
        with (self._folder / f"{len(self._episodes)}.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **stored)  # type: ignore[arg-type]
        self._episodes.append({"columns": list(values), "instruction": episode.instruction,
                               "side": {"scene_id": episode.scene_id, "success": bool(episode.success),
                                        "instruction": episode.instruction, **episode.origin}})

    def write(self, episode: Episode) -> None:
        """Append a whole episode with its images."""
        episode.validate()
        for camera in self._contract.cameras:
            frames = episode.images.get(camera.name)
            if frames is None:
                raise ValueError(f"the episode has no images of camera {camera.name}; it has {sorted(episode.images)}")
            if frames.shape[1:3] != tuple(camera.size):
                raise ValueError(f"images of {camera.name} must be {camera.size} (height, width), "
                                 f"got {frames.shape[1:3]}")
        for step in range(len(episode)):
            self.frames({name: np.ascontiguousarray(episode.images[name][step]) for name in self._encoders})
        self.commit(episode)

    def finish(self, report: dict[str, Any] | None = None) -> None:
        """Make the part appear; ``report`` is JSON-able and comes back from :func:`part_report`."""
        self.drop()
        files.write_json(self._folder / _INDEX, {"episodes": self._episodes, "report": report})
        os.chmod(self._folder, 0o755)
        os.replace(self._folder, self._target)

    def _video(self, camera: str) -> Path:
        return self._folder / f"{len(self._episodes)}.{camera}.mp4"


def part_exists(folder: Path) -> bool:
    """Whether the part was finished."""
    return (folder / _INDEX).is_file()


def join_cameras(folders: Sequence[Path], target: Path) -> bool:
    """Make one part of parts of the same bag that hold different cameras, in the contract's order; they are removed.

    False, and nothing is made, where a picture could not be decoded: the one before it stood in, which the parts of
    the other cameras do not know.
    """
    indices = [json.loads((folder / _INDEX).read_text()) for folder in folders]
    sound = not any(index["report"]["undecodable"] for index in indices)
    if sound:
        first = indices[0]
        assert all(index == first for index in indices), "the cameras' processes read the same bag differently"
        for number in range(len(first["episodes"])):
            whole: dict[str, NDArray[Any]] = {}
            for folder in folders:
                with np.load(folder / f"{number}.npz", allow_pickle=False) as stored:
                    whole |= {name: stored[name] for name in stored.files}
                for video in folder.glob(f"{number}.*.mp4"):
                    if folder != folders[0]:
                        video.rename(folders[0] / video.name)
            joined = folders[0] / f".{number}.npz"
            with joined.open("wb") as file:
                np.savez(file, allow_pickle=False, **whole)  # type: ignore[arg-type]
            os.replace(joined, folders[0] / f"{number}.npz")
        os.replace(folders[0], target)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return sound


def part_report(folder: Path) -> dict[str, Any]:
    """What ``finish`` was given."""
    report: dict[str, Any] = json.loads((folder / _INDEX).read_text())["report"]
    return report


def part_episodes(folder: Path) -> Iterator[StoredEpisode]:
    """The part's episodes in order; one episode's columns are in memory at a time."""
    for number, entry in enumerate(json.loads((folder / _INDEX).read_text())["episodes"]):
        with np.load(folder / f"{number}.npz", allow_pickle=False) as stored:
            columns = {name: stored[name] for name in entry["columns"]}
            steps = len(columns[fmt.STATE])
            counts = {key.removeprefix(_HISTOGRAM): stored[key] for key in stored.files if key.startswith(_HISTOGRAM)}
        yield StoredEpisode(
            columns=columns, instruction=entry["instruction"], side=entry["side"],
            videos={name: VideoPiece(folder / f"{number}.{name}.mp4", 0, steps) for name in counts},
            histograms={name: ImageHistogram.of(values, steps) for name, values in counts.items()})
