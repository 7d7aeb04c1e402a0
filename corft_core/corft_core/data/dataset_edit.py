"""Merge, split and delete: episodes of data sets, in any order, written as a new data set.

Nothing is decoded or encoded unless it must be: data columns are copied, video packets too. What a new data set says
about itself (indices, tasks, places in the video files, statistics) is made anew from its own episodes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data.lerobot_meta import read_json
from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.data.lerobot_writer import LeRobotWriter, StoredEpisode
from corft_core.data.store import WriteError, disk_errors, new_dataset
from corft_core.data.video import VideoError, VideoPiece, codec_name, decode_video, default_codec
from corft_core.data.video_writer import EpisodeEncoder
from corft_core.errors import CorftError
from corft_core.files import atomic_folder

Progress = Callable[[int], None]
ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}


class EditError(CorftError):
    """Data sets or episodes that cannot be put together as asked."""


@dataclass(frozen=True)
class Target:
    """Where and how a new data set is written; files roll over at the given sizes."""

    folder: Path
    overwrite: bool = False
    data_file_bytes: int | None = None
    video_file_bytes: int | None = None


def merge(datasets: Sequence[EpisodeDataset], target: Target, progress: Progress = lambda episodes: None) -> list[str]:
    """All episodes of ``datasets``, in order. Returns notes on what differed and was evened out.

    Raises EditError naming the differences when their episodes do not mean the same.
    """
    if any(dataset.folder.resolve() == target.folder.resolve() for dataset in datasets):
        raise EditError(f"{target.folder} is one of the data sets to merge; choose another folder")
    first = datasets[0]
    for other in datasets[1:]:
        differing = data_differences(first.contract, other.contract)
        if differing:
            raise EditError(f"{first.folder} and {other.folder} cannot be merged, their contracts disagree: "
                            + "; ".join(differing))
    notes = [f"{other.folder}: contract differs in {line}; the first data set's is kept"
             for other in datasets[1:] for line in first.contract.differences(other.contract)]
    shared = set.intersection(*(set(_extra_columns(dataset)) for dataset in datasets))
    dropped = sorted({name for dataset in datasets for name in _extra_columns(dataset)} - shared)
    if dropped:
        notes.append(f"left out columns that not all data sets have: {', '.join(dropped)}")
    notes += [f"{dataset.folder}: left out {', '.join(left)}" for dataset in datasets if (left := _unwritten(dataset))]
    every = [(dataset, range(dataset.num_episodes)) for dataset in datasets]
    write(target, every, {"merged": [str(dataset.folder) for dataset in datasets], "notes": notes},
          [name for name in _extra_columns(first) if name in shared], progress)
    return notes


def select(dataset: EpisodeDataset, episodes: Sequence[int], target: Target,
           progress: Progress = lambda episodes: None) -> None:
    """The given episodes, in the given order. Raises EditError when one does not exist or none is left."""
    missing = sorted({k for k in episodes if not 0 <= k < dataset.num_episodes})
    if missing:
        raise EditError(f"{dataset.folder} has episodes 0 to {dataset.num_episodes - 1}, not {missing}")
    if not episodes:
        raise EditError(f"no episode of {dataset.folder} would be left in {target.folder}")
    source = {"from": str(dataset.folder), "episodes": [int(k) for k in episodes]}
    write(target, [(dataset, episodes)], source, _extra_columns(dataset), progress)


def delete(dataset: EpisodeDataset, episodes: Iterable[int], target: Target,
           progress: Progress = lambda episodes: None) -> None:
    """All but the given episodes; raises EditError as :func:`select` does."""
    gone = set(episodes)
    missing = sorted(k for k in gone if not 0 <= k < dataset.num_episodes)
    if missing:
        raise EditError(f"{dataset.folder} has episodes 0 to {dataset.num_episodes - 1}, not {missing}")
    select(dataset, [k for k in range(dataset.num_episodes) if k not in gone], target, progress)


def split_fraction(dataset: EpisodeDataset, fraction: float, seed: int) -> dict[str, list[int]]:
    """Names "train" and "test" → episodes; ``fraction`` of each task's episodes, drawn with ``seed``, are "train"."""
    if not 0.0 < fraction < 1.0:
        raise EditError(f"the fraction must lie between 0 and 1, got {fraction}")
    random = np.random.default_rng(seed)
    train: list[int] = []
    for task in sorted(set(dataset.instructions)):
        members = [k for k, name in enumerate(dataset.instructions) if name == task]
        train += random.permutation(members)[: round(fraction * len(members))].tolist()
    return {"train": sorted(train), "test": sorted(set(range(dataset.num_episodes)) - set(train))}


def split_tasks(dataset: EpisodeDataset) -> dict[str, list[int]]:
    """``task_<n>`` → episodes, in the order of first appearance."""
    tasks = list(dict.fromkeys(dataset.instructions))
    return {f"task_{number}": [k for k, name in enumerate(dataset.instructions) if name == task]
            for number, task in enumerate(tasks)}


def split_outcome(dataset: EpisodeDataset) -> dict[str, list[int]]:
    """Names "success" and "failure" → episodes."""
    return {"success": np.flatnonzero(dataset.episode_success).tolist(),
            "failure": np.flatnonzero(~dataset.episode_success).tolist()}


def split(dataset: EpisodeDataset, parts: dict[str, list[int]], folder: Path, overwrite: bool = False,
          progress: Progress = lambda episodes: None) -> None:
    """Write each part as ``folder/<name>``; ``folder`` appears with all of them. Raises EditError on an empty part."""
    empty = [name for name, episodes in parts.items() if not episodes]
    if empty:
        raise EditError(f"part {', '.join(empty)} of {dataset.folder} would have no episode; nothing was written")
    if folder.exists() and not (overwrite and all((child / fmt.INFO_PATH).exists() for child in folder.iterdir())):
        raise WriteError(f"{folder} exists already. Choose another folder" +
                         ("; it holds other things than a split." if overwrite else " or add --overwrite."))
    with disk_errors(folder), atomic_folder(folder, overwrite) as temporary:
        for name, episodes in parts.items():
            select(dataset, episodes, Target(temporary / name), progress)


def write(target: Target, selections: Sequence[tuple[EpisodeDataset, Sequence[int]]], source: dict[str, Any],
          extra: Sequence[str], progress: Progress) -> None:
    """Write the selected episodes; ``extra`` are the columns kept besides those that every data set has."""
    contract = selections[0][0].contract
    codecs = {camera.name: _codec(camera.name, [dataset for dataset, _ in selections]) for camera in contract.cameras}
    with new_dataset(target.folder, target.overwrite) as root, tempfile.TemporaryDirectory(dir=root) as scratch:
        writer = LeRobotWriter(root, contract, data_file_bytes=target.data_file_bytes,
                               video_file_bytes=target.video_file_bytes)
        try:
            for dataset, episodes in selections:
                for episode in stored_episodes(dataset, episodes, extra, codecs, Path(scratch)):
                    writer.add(episode)
                    progress(1)
            writer.finish(source | {"sources": [_source(dataset) for dataset, _ in selections]}, None)
        except ValueError as error:
            raise WriteError(f"{target.folder} cannot be written: {error}") from error
        finally:
            writer.abort()


def stored_episodes(dataset: EpisodeDataset, episodes: Sequence[int], extra: Sequence[str],
                    codecs: dict[str, str], scratch: Path) -> Iterator[StoredEpisode]:
    """Episodes as the writer takes them; frames that cannot be copied are encoded into ``scratch``."""
    columns = {name: dataset.column(name) for name in (*fmt.STEP_COLUMNS, *extra)}
    histograms = {camera.name: dataset.image_histograms(camera.name) for camera in dataset.contract.cameras}
    for episode in episodes:
        rows = slice(*dataset.episode_starts[episode : episode + 2])
        videos = {}
        for camera in dataset.contract.cameras:
            piece = dataset.video_slice(camera.name, episode)
            if not _can_be_copied(piece, dataset.fps, codecs[camera.name]):
                piece = _encoded(dataset, camera.name, episode, codecs[camera.name], scratch / f"{camera.name}.mp4")
            videos[camera.name] = piece
        side = {"scene_id": "", "success": bool(dataset.episode_success[episode]),
                "instruction": dataset.instructions[episode], **dataset.side[episode]}
        yield StoredEpisode(
            columns={name: values[rows] for name, values in columns.items()}, videos=videos,
            histograms={name: every[episode] for name, every in histograms.items()},
            instruction=dataset.instructions[episode], side=side)


def data_differences(one: Contract, other: Contract) -> list[str]:
    """Lines on what makes the same numbers mean something else; topics, ages and limits may differ."""
    def meaning(contract: Contract) -> dict[str, object]:
        return {"rate_hz": contract.rate_hz, "state": contract.state_names, "action": contract.action_names,
                "action space": contract.action_space, "action representation": contract.action_representation,
                "gripper": contract.gripper, "cameras": [(c.name, c.size, c.crop) for c in contract.cameras]}

    mine, theirs = meaning(one), meaning(other)
    return [f"{key}: {mine[key]} != {theirs[key]}" for key in mine if mine[key] != theirs[key]]


def _extra_columns(dataset: EpisodeDataset) -> list[str]:
    known = {*fmt.STEP_COLUMNS, *fmt.INDEX_COLUMNS}
    return [name for name, feature in dataset.info["features"].items()
            if feature["dtype"] not in ("video", "image", "string") and name not in known]


def _unwritten(dataset: EpisodeDataset) -> list[str]:
    """Features that no data set of ours holds: texts, single pictures, cameras that the contract does not name."""
    written = {*fmt.STEP_COLUMNS, *fmt.INDEX_COLUMNS, *_extra_columns(dataset),
               *(fmt.image_key(camera.name) for camera in dataset.contract.cameras)}
    return [name for name in dataset.info["features"] if name not in written]


def _source(dataset: EpisodeDataset) -> dict[str, Any]:
    """Where a data set came from, with its own notes on that."""
    path = dataset.folder / fmt.SOURCE_PATH
    return {"folder": str(dataset.folder), "source": read_json(path) if path.exists() else None}


def _codec(camera: str, datasets: Sequence[EpisodeDataset]) -> str:
    """The codec that all of a camera's files have, else the one that we encode with."""
    found = {codec_name(path) for dataset in datasets for path in dataset.video_files(camera)}
    return found.pop() if len(found) == 1 else {encoder: name for name, encoder in ENCODERS.items()}[default_codec()]


def _can_be_copied(piece: VideoPiece, fps: int, codec: str) -> bool:
    """Whether the piece has this codec and begins with a key frame."""
    import av

    try:
        with av.open(str(piece.path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            wanted = round(piece.first_frame / fps / stream.time_base)
            container.seek(wanted, stream=stream, backward=True)
            packet = next(container.demux(stream))
            return bool(packet.is_keyframe and packet.pts == wanted
                        and stream.codec_context.codec.canonical_name == codec)
    except (av.error.FFmpegError, IndexError, StopIteration) as error:
        raise VideoError(f"video {piece.path} cannot be read: {error}") from error


def _encoded(dataset: EpisodeDataset, camera: str, episode: int, codec: str, path: Path) -> VideoPiece:
    """An episode's frames, decoded and encoded again into ``path``."""
    piece = dataset.video_slice(camera, episode)
    height, width, _ = dataset.info["features"][fmt.image_key(camera)]["shape"]
    encoder = EpisodeEncoder((height, width), dataset.fps, ENCODERS[codec])
    try:
        encoder.start(path)
        for frame in islice(decode_video(piece.path), piece.first_frame, piece.first_frame + piece.frames):
            encoder.put(frame)
        frames, _ = encoder.finish()
    finally:
        encoder.close()
    if frames != piece.frames:
        raise VideoError(f"video {piece.path} ends before the last frame of episode {episode}")
    return VideoPiece(path, 0, frames)
