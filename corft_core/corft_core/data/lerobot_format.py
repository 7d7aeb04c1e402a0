"""Names and schemas of LeRobotDataset v3.0, as far as corft writes and reads them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from corft_core.contract import Contract

CODEBASE_VERSION = "v3.0"
CHUNK_SIZE = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
# corft's own side files, ignored by other readers.
CONTRACT_PATH = "meta/corft/contract.json"
SOURCE_PATH = "meta/corft/source.json"
EPISODES_SIDE_PATH = "meta/corft/episodes.json"
REPORT_PATH = "meta/corft/report.json"
REPORT_PAGE_PATH = "meta/corft/report.html"
HISTOGRAMS_PATH = "meta/corft/histograms/{camera}.npy"  # int64 (episodes, 3, 256): levels before encoding

STATE, ACTION = "observation.state", "action"
REWARD, DONE, TRUNCATED, SUCCESS = "next.reward", "next.done", "next.truncated", "next.success"
STEP_COLUMNS = (STATE, ACTION, REWARD, DONE, TRUNCATED, SUCCESS)
_INDEX_FEATURES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
                   "task_index": "int64"}
INDEX_COLUMNS = tuple(_INDEX_FEATURES)
Feature = dict[str, Any]


def image_key(camera: str) -> str:
    """Feature key of a camera."""
    return f"observation.images.{camera}"


def data_features(contract: Contract, columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, Feature]:
    """Features that are columns of the data files, in order; ``columns`` are further ones, (N,) or (N, D)."""
    def scalar(dtype: str) -> Feature:
        return {"dtype": dtype, "shape": [1], "names": None}

    def vector(names: tuple[str, ...]) -> Feature:
        return {"dtype": "float32", "shape": [len(names)], "names": list(names)}

    features = {STATE: vector(contract.state_names), ACTION: vector(contract.action_names), REWARD: scalar("float32"),
                DONE: scalar("bool"), TRUNCATED: scalar("bool"), SUCCESS: scalar("bool")}
    features |= {name: scalar(str(values.dtype)) | {"shape": list(values.shape[1:]) or [1]}
                 for name, values in columns.items()}
    return features | {name: scalar(dtype) for name, dtype in _INDEX_FEATURES.items()}


def video_feature(size: tuple[int, int], fps: int, codec: str) -> Feature:
    """Feature of a camera stored as video; ``size`` is (height, width)."""
    height, width = size
    info = {"video.height": height, "video.width": width, "video.codec": codec, "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False, "video.fps": fps, "video.channels": 3, "has_audio": False}
    return {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": info}


def data_schema(features: dict[str, Feature]) -> pa.Schema:
    """Arrow schema of the data files: fixed-size float lists and plain scalars, with the ``datasets`` feature spec."""
    fields, spec = [], {}
    for name, feature in features.items():
        dtype, width = feature["dtype"], feature["shape"][0]
        arrow = pa.bool_() if dtype == "bool" else pa.from_numpy_dtype(np.dtype(dtype))
        value: dict[str, Any] = {"dtype": dtype, "_type": "Value"}
        if width > 1:
            arrow = pa.list_(pa.field("element", arrow), width)
            value = {"feature": value, "length": width, "_type": "List"}
        fields.append(pa.field(name, arrow))
        spec[name] = value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": spec}})})


def column_array(values: np.ndarray[Any, Any], field: pa.Field) -> pa.Array:
    """Arrow array of (N,) or (N, D) values for a field of :func:`data_schema`."""
    if pa.types.is_fixed_size_list(field.type):
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=field.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
    return pa.array(values.reshape(-1), type=field.type)


def tasks_table(tasks: list[str]) -> pa.Table:
    """The tasks table: a pandas frame whose index, called ``task``, is the instruction."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
         "metadata": None},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    pandas = {"index_columns": ["task"], "columns": columns, "pandas_version": "2.2.0",
              "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object",
                                  "metadata": {"encoding": "UTF-8"}}]}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
