"""read: random chunk batches/s for training, from the memory map against decoding video on the fly.

A data set with two cameras of 640x480 at 30 Hz, resized to 224x224 (convert_bag.py). A batch is 64 random samples: both
cameras' frames at the step and a chunk of ten steps later, state, chunk and returns. ``ratio``: against the
lerobot-dataset package's own reader on the same files. ``ratio_fastest_reader``: against the best that PyAV allows, one
open decoder a file and no frame decoded in vain, which only our files of key frames permit. All in turns in one run,
one thread each, with the trainer's memory settings; pages of the map are warm, as they are after the first epoch. The
frames that map and video give are compared. A batch of the map is a copy of 38 MB: memory bandwidth is its limit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
import convert_bag
import peer_environment  # tests/ is on the path since convert_bag was imported

from corft_core.data import EpisodeDataset
from corft_core.data.chunks import build_chunks
from corft_core.data.convert import convert
from corft_core.learning.memory import keep_freed_memory

BATCH, CHUNK, ROUNDS = 64, 10, 5
SECONDS, SIZE = 30, (224, 224)
Batch = tuple[dict[str, NDArray[np.uint8]], tuple[NDArray[Any], ...]]


class VideoReader:
    """Frames by row from the mp4 files, decoded when asked for."""

    def __init__(self, dataset: EpisodeDataset) -> None:
        import av

        self._fps, self._streams = dataset.fps, {}
        for camera in dataset.contract.cameras:
            (path,) = dataset.video_files(camera.name)  # the data set is small: row = frame
            container = av.open(str(path))
            container.streams.video[0].codec_context.thread_count = 1
            self._streams[camera.name] = container

    def __call__(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        container = self._streams[camera]
        stream = container.streams.video[0]
        frames = []
        for row in rows:
            target = round(int(row) / self._fps / stream.time_base)
            container.seek(target, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= target)
            frames.append(frame.to_ndarray(format="rgb24"))
        return np.stack(frames)


def measure() -> dict[str, Any]:
    """One run; see the module's docstring."""
    keep_freed_memory()
    out = convert_bag.FOLDER / "read"
    shutil.rmtree(out, ignore_errors=True)
    convert([convert_bag.recording(SECONDS)], out, convert_bag.contract(SIZE))
    dataset = EpisodeDataset.open(out)
    images, video = dataset.images(convert_bag.FOLDER / "cache"), VideoReader(dataset)
    for frames in images.values():
        np.asarray(frames).max()
    table = build_chunks(dataset.episode_index, dataset.action, dataset.reward, dataset.done, CHUNK, 0.99)

    def batch(rows: NDArray[np.int64], read: Callable[[str, NDArray[np.int64]], NDArray[np.uint8]]) -> Batch:
        both = np.concatenate([rows, table.bootstrap_index[rows, -1]])
        numbers = (dataset.state[rows], table.action[rows], table.known_return[rows], table.bootstrap_discount[rows])
        return {camera: read(camera, both) for camera in images}, numbers

    random = np.random.default_rng(0)
    took: dict[str, list[float]] = {"map": [], "fastest_reader": [], "lerobot": []}
    for _ in range(ROUNDS):
        rows = random.integers(0, dataset.num_frames, BATCH)
        began = time.perf_counter()
        decoded = batch(rows, video)
        took["fastest_reader"].append(time.perf_counter() - began)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            mapped = batch(rows, lambda camera, rows: images[camera][rows])
            times.append(time.perf_counter() - began)
        took["map"].append(float(np.median(times)))
        took["lerobot"] += _lerobot(out, rows)
        assert all(np.array_equal(mapped[0][camera], decoded[0][camera]) for camera in images)
    rate = {name: 1 / float(np.median(times)) for name, times in took.items() if times}
    shutil.rmtree(out)
    return {"ratio": rate["map"] / rate["lerobot"] if "lerobot" in rate else None,
            "ratio_fastest_reader": rate["map"] / rate["fastest_reader"], "batches_per_s": rate, "batch": BATCH,
            "chunk": CHUNK, "pictures_a_batch": 2 * BATCH * len(images), "picture": list(SIZE),
            "load_average": os.getloadavg()[0]}


def _lerobot(folder: Path, rows: NDArray[np.int64]) -> list[float]:
    """Seconds of the package's reader for one batch; nothing where the package cannot be installed."""
    try:
        python = peer_environment.python(peer_environment.LEROBOT_DATASET)
    except peer_environment.PeerMissing:
        return []
    worker = str(Path(__file__).parent / "convert_worker.py")
    made = subprocess.run([python, worker, "read", json.dumps([str(folder), [rows.tolist()], CHUNK])], check=True,
                          capture_output=True, text=True, env=peer_environment.environ())
    return [json.loads(made.stdout.splitlines()[-1])["seconds"]]
