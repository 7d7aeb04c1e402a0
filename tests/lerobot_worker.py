"""Reads and writes data sets with LeRobot's own package, in the environment that peer_environment.py builds.

Takes one JSON request a line. {"folder", "out", "windows"?: {feature: [offsets in steps]}}: every frame as the package
gives it is put into ``out`` (.npz, an array a feature, pictures uint8 (N, H, W, 3)), with "windows" also every window.
{"folder", "like", "frames"}: writes a new data set with the features of the data set ``like`` from an .npz.
Answers one JSON line: the numbers of the metadata, or {"error": …}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from peer_environment import define_torchvision_operators


def read(folder: str, out: str, windows: dict[str, list[int]] | None = None) -> dict[str, Any]:
    """Read all of a data set and write what was read."""
    from ledataset.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    fps = LeRobotDatasetMetadata("local/check", root=folder).fps
    deltas = {name: [step / fps for step in steps] for name, steps in (windows or {}).items()} or None
    dataset = LeRobotDataset("local/check", root=folder, delta_timestamps=deltas, video_backend="pyav")
    items = [dataset[i] for i in range(len(dataset))]
    arrays: dict[str, np.ndarray] = {"task": np.array([item["task"] for item in items])}
    for name in items[0]:
        if name == "task":
            continue
        values = np.stack([item[name].numpy() for item in items])
        if name in dataset.meta.camera_keys:
            levels = np.rint(values * 255.0)
            assert np.abs(levels - values * 255.0).max() < 1e-3, "pictures are levels of 0…255"
            values = np.moveaxis(levels.astype(np.uint8), -3, -1)
        arrays[name] = values
    np.savez(out, **arrays)
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames, "fps": fps,
            "tasks": dataset.meta.tasks.index.tolist(), "features": sorted(dataset.features),
            "stats": {name: np.asarray(value["mean"]).reshape(-1).tolist()
                      for name, value in dataset.meta.stats.items()}}


def write(folder: str, like: str, frames: str) -> dict[str, Any]:
    """Write a data set as the package does it by default; ``frames`` has the columns, pictures, lengths and tasks."""
    from ledataset.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from ledataset.datasets.utils import DEFAULT_FEATURES

    meta = LeRobotDatasetMetadata("local/like", root=like)
    features = {name: feature for name, feature in meta.features.items() if name not in DEFAULT_FEATURES}
    dataset = LeRobotDataset.create("local/new", meta.fps, features, root=folder, robot_type=meta.robot_type)
    with np.load(frames, allow_pickle=False) as given:
        arrays, row = dict(given), 0
    for length, task in zip(arrays["lengths"], arrays["tasks"], strict=True):
        for step in range(row, row + int(length)):
            dataset.add_frame({name: np.atleast_1d(arrays[name][step]) for name in features} | {"task": str(task)})
        dataset.save_episode()
        row += int(length)
    dataset.finalize()
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames}


def main() -> None:
    """Answer requests until the end of input."""
    define_torchvision_operators()
    for line in sys.stdin:
        try:
            request = json.loads(line)
            answer = write(**request) if "like" in request else read(**request)
        except Exception as error:  # whatever the package raises is the finding
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
