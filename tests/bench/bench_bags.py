"""Reading recordings: processor time against rosbags' own reader on the same bag, for each kind of storage.

A minute of two JPEG cameras at 30 Hz and joints at 100 Hz, 40 kB a picture. Both readers hand out every message's bytes
without decoding it; the best of seven turns counts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader

from corft_core.data.bag import Bag

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bag_files import Recorded, Style, write_bag
from recordings import SECOND, Messages, typestore

SECONDS, TURNS = 60, 7
STYLES = {"mcap": Style(chunks="", chunk_bytes=800_000), "mcap_lz4": Style(chunks="lz4", chunk_bytes=800_000),
          "mcap_zstd": Style(chunk_bytes=800_000), "mcap_plain": Style(chunks=None), "sqlite3": Style("sqlite3")}


def messages() -> list[Recorded]:
    """What the recorder gets, in order."""
    store, build, random = typestore(), Messages(), np.random.default_rng(0)
    picture = random.integers(0, 255, 40_000, dtype=np.uint8)
    names = [f"joint{k}" for k in range(9)]
    items: list[tuple[int, str, Any]] = []
    for k in range(100 * SECONDS):
        stamp = 1000 * SECOND + k * SECOND // 100
        items.append((stamp, "/joint_states", build.joint_state(stamp, names, random.normal(size=9))))
    image = store.types["sensor_msgs/msg/CompressedImage"]
    for camera in ("/front/compressed", "/wrist/compressed"):
        for k in range(30 * SECONDS):
            stamp = 1000 * SECOND + k * SECOND // 30
            items.append((stamp, camera, image(header=build.header(stamp), format="jpeg", data=picture)))
    items.sort(key=lambda item: item[0])
    return [Recorded(stamp, topic, message.__msgtype__, bytes(store.serialize_cdr(message, message.__msgtype__)))
            for stamp, topic, message in items]


def ours(path: Path) -> int:
    """Bytes of all messages."""
    with Bag(path) as bag:
        return sum(len(message.data) for message in bag.messages(bag.topics))


def theirs(path: Path) -> int:
    """The same by rosbags."""
    with Reader(path) as reader:
        return sum(len(data) for _, _, data in reader.messages())


def seconds(read: Callable[[Path], int], path: Path) -> float:
    """Processor time of one turn."""
    start = time.process_time()
    read(path)
    return time.process_time() - start


def measure() -> dict[str, float]:
    """``ratio_<storage>``: our time / rosbags' (at most 1.1 is the aim); ``mb_per_s_<storage>``: MB read a second."""
    out: dict[str, float] = {}
    recorded = messages()
    for name, style in STYLES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_bag(Path(folder) / "bag", recorded, typestore(), style)
            assert ours(path) == theirs(path)
            times = [(seconds(ours, path), seconds(theirs, path)) for _ in range(TURNS)]
            best, reference = (min(column) for column in zip(*times, strict=True))
            size = sum(file.stat().st_size for file in path.iterdir())
            out |= {f"ratio_{name}": round(best / reference, 2), f"mb_per_s_{name}": round(size / best / 1e6)}
    return out
