"""Data sets in other forms: plain LeRobot v3 without our additions, and a folder of arrays and pictures an episode."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from corft_core.data import lerobot_format as fmt
from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.data.store import check_target, disk_errors
from corft_core.errors import CorftError
from corft_core.files import atomic_folder

Progress = Callable[[int], None]
PICTURES = {"png": [cv2.IMWRITE_PNG_COMPRESSION, 1], "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95]}


class ExportError(CorftError):
    """A folder that cannot be exported to."""


def export_arrays(dataset: EpisodeDataset, folder: Path, pictures: str = "png", overwrite: bool = False,
                  progress: Progress = lambda episodes: None) -> None:
    """Write ``folder/episode_000000/``: steps.npz (all columns, no pickle), meta.json, <camera>/000000.<pictures>.

    ``folder/dataset.json`` tells rate, names and units. PNG keeps the decoded frames exactly.
    """
    if folder.exists() and not (overwrite and (folder / "dataset.json").exists()):
        raise ExportError(f"{folder} exists already" + (" and is no such export; choose another folder." if overwrite
                                                        else ". Choose another folder or add --overwrite."))
    columns = {name: dataset.column(name) for name, feature in dataset.info["features"].items()
               if feature["dtype"] not in ("video", "image")}
    with disk_errors(folder), atomic_folder(folder, overwrite) as temporary:
        frames = {camera.name: dataset.frames(camera.name) for camera in dataset.contract.cameras}
        for episode in range(dataset.num_episodes):
            rows = slice(*dataset.episode_starts[episode : episode + 2])
            place = temporary / f"episode_{episode:06d}"
            place.mkdir()
            with (place / "steps.npz").open("wb") as file:
                parts: dict[str, Any] = {name: values[rows] for name, values in columns.items()}
                np.savez_compressed(file, allow_pickle=False, **parts)
            about = {"instruction": dataset.instructions[episode], "success": bool(dataset.episode_success[episode])}
            _write_json(place / "meta.json", dataset.side[episode] | about)
            for camera, source in frames.items():
                (place / camera).mkdir()
                for k, frame in enumerate(islice(source, rows.stop - rows.start)):
                    _write_picture(place / camera / f"{k:06d}.{pictures}", frame, PICTURES[pictures])
            progress(1)
        _write_json(temporary / "dataset.json", {
            "fps": dataset.fps, "episodes": dataset.num_episodes, "frames": dataset.num_frames,
            "state": list(dataset.contract.state_names), "action": list(dataset.contract.action_names),
            "units": "rad, m, s; gripper opening 0 closed … 1 open", "contract": dataset.contract.to_dict()})


def export_lerobot(dataset: EpisodeDataset, folder: Path, overwrite: bool = False) -> None:
    """Copy the data set without our columns (``source.*``) and without meta/corft; videos are copied as they are."""
    import pyarrow.parquet as pq

    own = [name for name in dataset.info["features"] if name.startswith("source.")]
    check_target(folder, overwrite)
    with disk_errors(folder), atomic_folder(folder, overwrite) as root:
        for path in dataset.folder.rglob("*"):
            relative = path.relative_to(dataset.folder)
            if not path.is_file() or relative.is_relative_to("meta/corft"):
                continue
            target = root / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if relative.parts[0] == "data" or relative.is_relative_to("meta/episodes"):
                _copy_table(pq, path, target, own)
            elif str(relative) not in (fmt.INFO_PATH, fmt.STATS_PATH):
                shutil.copyfile(path, target)
        info = dataset.info | {"features": {name: feature for name, feature in dataset.info["features"].items()
                                            if name not in own}}
        _write_json(root / fmt.INFO_PATH, info)
        _write_json(root / fmt.STATS_PATH, {k: v for k, v in dataset.statistics.items() if k not in own})


def _copy_table(pq: Any, path: Path, target: Path, own: list[str]) -> None:
    """Copy a parquet file row group by row group without the ``own`` columns and their statistics."""
    source = pq.ParquetFile(path)
    schema = source.schema_arrow
    names = [name for name in schema.names if name not in own and name.split("/")[1:2] not in [[o] for o in own]]
    metadata = dict(schema.metadata or {})
    if b"huggingface" in metadata:
        spec = json.loads(metadata[b"huggingface"])
        spec["info"]["features"] = {name: spec["info"]["features"][name] for name in names}
        metadata[b"huggingface"] = json.dumps(spec).encode()
    with pq.ParquetWriter(target, source.read_row_group(0, names).schema.with_metadata(metadata),
                          compression="snappy") as writer:
        for group in range(source.num_row_groups):
            writer.write_table(source.read_row_group(group, names).replace_schema_metadata(metadata))


def _write_picture(path: Path, frame: np.ndarray, options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ExportError(f"{path} cannot be encoded")
    path.write_bytes(data.tobytes())


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
