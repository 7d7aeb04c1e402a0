"""Reads the tables of a LeRobotDataset v3.0 folder's meta part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corft_core.data import lerobot_format as fmt
from corft_core.errors import CorftError


class DatasetError(CorftError):
    """A folder that is not a readable data set."""


def read_info(folder: Path) -> dict[str, Any]:
    """Content of info.json. Raises DatasetError saying what is wrong and which command makes a data set."""
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


def read_episodes(folder: Path) -> list[dict[str, Any]]:
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
