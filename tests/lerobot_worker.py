"""Reads data sets with LeRobot's own package; run in the environment that peer_environment.py builds.

Reads one JSON request a line, {"folder", "out", "windows"?: {feature: [offsets in steps]}}: every frame as the package
gives it is put into ``out`` (.npz, an array a feature, pictures uint8 (N, H, W, 3)), with "windows" also every window.
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


def main() -> None:
    """Answer requests until the end of input."""
    define_torchvision_operators()
    for line in sys.stdin:
        try:
            answer = read(**json.loads(line))
        except Exception as error:  # whatever the package raises is the finding
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
