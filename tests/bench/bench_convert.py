"""convert: bag → LeRobot v3 against the lerobot-dataset package's own writer and against decoding and encoding alone.

The bag: two cameras of 640x480 JPEG at 30 Hz, joints at 100 Hz (convert_bag.py). The contenders take turns in one run,
each in a process of its own; ratios are of median wall times on stretches of equal length: a short one for the slow
peer, two minutes for the floor, which at 224x224 is told as well: no converter could be faster than that here. The peer
gets decoded frames from memory, so neither reading nor decoding is in its time. Ratios above 1: the peer is slower than
ours (ratio_vs_lerobot), ours is slower than the floor (ratio_vs_floor). ``times_real_time`` is wall time;
``times_real_time_cpu`` is what two idle cores would reach with the same processor time. ``peak_rss_mb`` adds up our
processes, each at its largest. Lengths can be set: CORFT_BENCH_PEER_S, CORFT_BENCH_FLOOR_S, CORFT_BENCH_MINUTES ("1 5
20"; speed is told of the middle one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import convert_bag
import cv2
import peer_environment  # tests/ is on the path since convert_bag was imported

FOLDER = convert_bag.FOLDER
PEER_S = int(os.environ.get("CORFT_BENCH_PEER_S", "10"))
FLOOR_S = int(os.environ.get("CORFT_BENCH_FLOOR_S", "120"))
MINUTES = [int(m) for m in os.environ.get("CORFT_BENCH_MINUTES", "1 5 20").split()]
ROUNDS = 3
FULL, SMALL = (480, 640), (224, 224)
Result = dict[str, float]


def measure() -> dict[str, Any]:
    """One run; see the module's docstring."""
    began_load = os.getloadavg()[0]
    peer = _Peer()
    rounds: dict[str, list[Result]] = {name: [] for name in ("ours", "floor", "ours_small", "floor_small", "ours_short",
                                                             "peer")}
    for _ in range(ROUNDS):
        for size, name in ((FULL, ""), (SMALL, "_small")):
            rounds["ours" + name].append(ours(convert_bag.recording(FLOOR_S), size, convert_bag.CAMERA_HZ))
            rounds["floor" + name].append(_run("floor", [str(FOLDER / "floor"), *size, convert_bag.CAMERA_HZ, FLOOR_S]))
        rounds["ours_short"].append(ours(convert_bag.recording(PEER_S), FULL, convert_bag.CAMERA_HZ))
        rounds["peer"] += peer.turn()
    taken = {name: float(np.median([turn["seconds"] for turn in turns])) for name, turns in rounds.items() if turns}
    long = {minutes: ours(convert_bag.recording(60 * minutes), FULL, convert_bag.CAMERA_HZ) for minutes in MINUTES}
    five = convert_bag.recording(60 * MINUTES[len(MINUTES) // 2])
    length_s = 60 * MINUTES[len(MINUTES) // 2]
    small = {rate_hz: ours(five, SMALL, rate_hz) for rate_hz in (convert_bag.CAMERA_HZ, 10)}
    whole = long[MINUTES[len(MINUTES) // 2]]
    size_mb = sum(path.stat().st_size for path in five.iterdir()) / 1e6
    return {
        "ratio_vs_lerobot": taken["peer"] / taken["ours_short"] if "peer" in taken else None, "lerobot": peer.note,
        "ratio_vs_floor": taken["ours"] / taken["floor"],
        "ratio_vs_floor_cpu": float(np.median([turn["cpu_s"] for turn in rounds["ours"]])
                                    / np.median([turn["cpu_s"] for turn in rounds["floor"]])),
        "times_real_time": length_s / whole["seconds"], "times_real_time_cpu": 2 * length_s / whole["cpu_s"],
        "mb_per_s": size_mb / whole["seconds"],
        "peak_rss_mb": max(turn["peak_rss_mb"] for turn in long.values()),
        "peak_rss_mb_of_minutes": {str(minutes): turn["peak_rss_mb"] for minutes, turn in long.items()},
        "resized_to_224": {f"{rate_hz}_hz": {"times_real_time": length_s / turn["seconds"],
                                             "times_real_time_cpu": 2 * length_s / turn["cpu_s"]}
                           for rate_hz, turn in small.items()}
        | {"ratio_vs_floor": taken["ours_small"] / taken["floor_small"],
           "floor_times_real_time": FLOOR_S / taken["floor_small"]},
        "peer_s": PEER_S, "floor_s": FLOOR_S, "recording_s": length_s, "recording_mb": size_mb,
        "turns": {name: [round(turn["seconds"], 2) for turn in turns] for name, turns in rounds.items()},
        "load_average": [began_load, os.getloadavg()[0]],
    }


def ours(bag: Path, size: tuple[int, int], rate_hz: int) -> Result:
    """One conversion as bag_to_dataset does it by default."""
    return _run("ours", [str(bag), str(FOLDER / "out"), *size, rate_hz])


class _Peer:
    """The lerobot-dataset package in its own environment; ``note`` says what it is or why it is missing."""

    def __init__(self) -> None:
        self.python, self.note = None, peer_environment.LEROBOT_DATASET.packages[0]
        try:
            self.python = peer_environment.python(peer_environment.LEROBOT_DATASET)
        except peer_environment.PeerMissing as error:
            self.note = str(error)
            return
        self.frames = FOLDER / f"frames{PEER_S}"
        if not self.frames.exists():
            self._decode()

    def turn(self) -> list[Result]:
        """Write the short stretch."""
        if self.python is None:
            return []
        return [_run("peer", [str(self.frames), str(FOLDER / "peer"), convert_bag.CAMERA_HZ], self.python,
                     peer_environment.environ())]

    def _decode(self) -> None:
        new = self.frames.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for k, camera in enumerate(convert_bag.contract().cameras):
            pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                        for data in convert_bag.pictures(k)]
            numbers = [convert_bag.picture_number(i) for i in range(PEER_S * convert_bag.CAMERA_HZ)]
            np.save(new / f"{camera.name}.npy", np.stack([pictures[number] for number in numbers]))
        new.rename(self.frames)


def _run(name: str, arguments: list[Any], python: str = sys.executable,
         environ: dict[str, str] | None = None) -> Result:
    command = [python, str(Path(__file__).parent / "convert_worker.py"), name, json.dumps(arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environ or os.environ | {
        "OMP_NUM_THREADS": "1"}, check=False)
    if result.returncode:
        raise RuntimeError(f"{name} failed:\n{result.stderr[-2000:]}")
    for leftover in ("out", "peer"):
        shutil.rmtree(FOLDER / leftover, ignore_errors=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))
