"""Processes of `bench_convert` and `bench_read`, each with its own memory. Each prints one line of JSON."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

TASK = "sort the parts"


def ours(bag: str, out: str, height: int, width: int, rate_hz: int) -> float:
    """Seconds to convert."""
    import convert_bag

    from corft_core.data.convert import convert

    contract = convert_bag.contract((height, width), rate_hz)
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    convert([bag], out, contract, jobs=os.cpu_count() or 1)
    return time.perf_counter() - began


def floor(out: str, height: int, width: int, rate_hz: int, seconds: int) -> float:
    """Seconds to decode, resize and encode the same frames from memory, a decoder and an encoder thread a camera."""
    import convert_bag

    from corft_core.data.bag import BagMessage  # noqa: F401  # the same imports are warm
    from corft_core.data.images import camera_image
    from corft_core.data.video import CODECS, default_codec
    from corft_core.data.yuv import Yuv420

    contract = convert_bag.contract((height, width), rate_hz)
    jpegs = [convert_bag.pictures(k) for k in range(len(contract.cameras))]
    every, frames = convert_bag.CAMERA_HZ // rate_hz, seconds * rate_hz
    codec = default_codec()

    class Message:
        format = "jpeg"

        def __init__(self, data: bytes) -> None:
            self.data = np.frombuffer(data, np.uint8)

    def encode(camera: int) -> None:
        import av

        with av.open(f"{out}.{camera}.mp4", "w") as container:
            stream: Any = container.add_stream(codec, rate=rate_hz, options=CODECS[codec])
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.thread_count = 1
            yuv = Yuv420(height, width)
            with ThreadPoolExecutor(1) as decoder:
                def decode(k: int) -> Any:
                    message = Message(jpegs[camera][convert_bag.picture_number(k * every)])
                    return decoder.submit(camera_image, message, contract.cameras[camera])

                ahead = [decode(k) for k in range(min(4, frames))]
                for k in range(frames):
                    picture = yuv(ahead.pop(0).result())
                    if k + 4 < frames:
                        ahead.append(decode(k + 4))
                    picture.pts = k
                    container.mux(stream.encode(picture))
            container.mux(stream.encode(None))

    began = time.perf_counter()
    with ThreadPoolExecutor(len(contract.cameras)) as pool:
        list(pool.map(encode, range(len(contract.cameras))))
    return time.perf_counter() - began


def peer(source: str, out: str, rate_hz: int) -> float:
    """Seconds of LeRobotDataset's own writer, fed with decoded frames and vectors; one episode, its defaults."""
    from peer_environment import define_torchvision_operators

    define_torchvision_operators()
    from ledataset.datasets.lerobot_dataset import LeRobotDataset

    shutil.rmtree(out, ignore_errors=True)
    cameras = sorted(Path(source).glob("*.npy"))
    pictures = {f"observation.images.{path.stem}": np.load(path, mmap_mode="r") for path in cameras}
    for values in pictures.values():
        np.asarray(values).max()  # in memory before the clock starts
    frames = len(next(iter(pictures.values())))
    names = {"dtype": "float32", "shape": (8,), "names": [f"j{k}" for k in range(8)]}
    features: dict[str, Any] = {"observation.state": names, "action": names} | {
        key: {"dtype": "video", "shape": values.shape[1:], "names": ["height", "width", "channels"]}
        for key, values in pictures.items()}
    began = time.perf_counter()
    dataset = LeRobotDataset.create("bench/convert", rate_hz, features, root=out, use_videos=True,
                                    image_writer_threads=4 * len(pictures))
    for k in range(frames):
        vector = np.full(8, k / frames, np.float32)
        dataset.add_frame({"observation.state": vector, "action": vector, "task": TASK}
                          | {key: values[k] for key, values in pictures.items()})
    dataset.save_episode()
    dataset.finalize()
    return time.perf_counter() - began


def read(folder: str, batches: list[list[int]], chunk: int) -> float:
    """Median seconds of a batch by LeRobotDataset: both cameras now and a chunk later, state, the chunk of actions."""
    from peer_environment import define_torchvision_operators

    define_torchvision_operators()
    import torch
    from ledataset.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    torch.set_num_threads(1)
    meta = LeRobotDatasetMetadata("bench/read", root=folder)
    deltas = {key: [0.0, chunk / meta.fps] for key in meta.camera_keys}
    deltas["action"] = [step / meta.fps for step in range(chunk)]
    dataset = LeRobotDataset("bench/read", root=folder, delta_timestamps=deltas, video_backend="pyav")
    took = []
    for rows in batches:
        began = time.perf_counter()
        torch.utils.data.default_collate([dataset[row] for row in rows])
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def _cpu_s() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """``<name> <JSON list of arguments>``."""
    cpu_s = _cpu_s()
    seconds = {"ours": ours, "floor": floor, "peer": peer, "read": read}[sys.argv[1]](*json.loads(sys.argv[2]))
    cpu_s = _cpu_s() - cpu_s
    # Not ru_maxrss, which a process inherits from the one that starts it: the benchmark, with pictures in its memory.
    peak_mb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    if sys.argv[1] == "ours":  # the largest child stands for each of them, one a core
        peak_mb += (os.cpu_count() or 1) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_rss_mb": peak_mb}))


if __name__ == "__main__":
    main()
