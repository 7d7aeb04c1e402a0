"""Two 640x480 cameras at 30 Hz through camera_node into a policy's input: added age, drops, CPU.

Every part is a process of its own, over DDS with the profile that the launch files use. Added age: from a frame's
publication (its stamp) until it lies in the policy's aligner. ``cpu_share``: camera_node and the policy's input
together, of one core. Both transports are measured, for CORFT_BENCH_SECONDS each (300); the keys at the top are the
worse of the two. Where the machine has other work to do, start it with ``chrt -f 10``, so that this is measured and not
the other work; ``scheduling`` and ``load_1min`` say how it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "ros2_ws/src/corft/config"
WORKER = Path(__file__).with_name("ingest_worker.py")
DOMAIN = "97"
SIZE = (224, 224)
TRANSPORTS = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
# Left out at both ends, where processes come and go.
MARGIN_NS = 1_000_000_000


def measure() -> dict[str, Any]:
    """Both transports, one after the other."""
    seconds = float(os.environ.get("CORFT_BENCH_SECONDS", "300"))
    results = {name: run(name, seconds) for name in TRANSPORTS}
    worst = {key: max(result[key] for result in results.values())
             for key in ("age_p50_ms", "age_p95_ms", "drops", "cpu_share")}
    return {**worst, "seconds": seconds, "load_1min": round(os.getloadavg()[0], 2), "scheduling": scheduling(),
            **results}


def scheduling() -> str:
    """How this process, and so all that it starts, competes with whatever else the machine does."""
    names = {os.SCHED_OTHER: "normal", os.SCHED_FIFO: "real-time", os.SCHED_RR: "real-time"}
    return f"{names.get(os.sched_getscheduler(0), 'background')}, nice {os.nice(0)}"


def contract_file(folder: Path, transport: str) -> Path:
    """The Panda cell's contract with cameras of this transport and an image size that policies have."""
    data = yaml.safe_load((CONFIG / "panda_cell/contract.yaml").read_text())
    for camera in data["cameras"]:
        camera.update(type=TRANSPORTS[transport], size=list(SIZE))
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def environment() -> dict[str, str]:
    """A domain of its own, this machine only, the launch files' DDS profile."""
    sources = [ROOT / "corft_core", ROOT / "ros2_ws/src/corft", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTDDS_DEFAULT_PROFILES_FILE": str(CONFIG / "fastdds_profile.xml"), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, sources))}


def run(transport: str, seconds: float) -> dict[str, Any]:
    """One transport."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contract = contract_file(folder, transport)

        def start(*command: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, *command], env=environment(), stdout=subprocess.DEVNULL)

        node = start("-m", "corft.camera_node", "--ros-args", "-p", f"contract:={contract}")
        processes = [node]
        try:
            for transition in ("configure", "activate"):
                lifecycle(transition)
            policy = start(str(WORKER), "policy", str(contract), str(folder / "policy.json"))
            processes.append(policy)
            processes += [start(str(WORKER), "camera", str(contract), str(folder / f"{camera}.json"), camera)
                          for camera in ("front", "wrist")]
            time.sleep(4.0)
            watched = {"camera_node": psutil.Process(node.pid), "policy_input": psutil.Process(policy.pid)}
            before = {key: cpu_s(process) for key, process in watched.items()}
            start_ns = time.time_ns()
            time.sleep(seconds)
            stop_ns = time.time_ns()
            cpu = {key: (cpu_s(process) - before[key]) * 1e9 / (stop_ns - start_ns) for key, process in watched.items()}
            time.sleep(1.0)
        finally:
            for process in reversed(processes):
                stop(process)
        return evaluate(folder, start_ns + MARGIN_NS, stop_ns - MARGIN_NS, cpu)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and the end of a process that does not listen."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def lifecycle(transition: str) -> None:
    """One transition of camera_node, by the command line."""
    deadline = time.monotonic() + 60
    while subprocess.run(["ros2", "lifecycle", "set", "/camera_node", transition], env=environment(),
                         capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"camera_node does not {transition}")


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def evaluate(folder: Path, start_ns: int, stop_ns: int, cpu: dict[str, float]) -> dict[str, Any]:
    """Ages and drops of the frames that were published between two times."""
    policy = json.loads((folder / "policy.json").read_text())
    ages_ms, drops, sent_count = [], 0, 0
    for camera, received in policy["received"].items():
        sent = {stamp for stamp in json.loads((folder / f"{camera}.json").read_text())["sent"]
                if start_ns <= stamp <= stop_ns}
        arrived = dict(received)
        drops += len(sent - set(arrived))
        sent_count += len(sent)
        ages_ms += [(arrived[stamp] - stamp) * 1e-6 for stamp in sent if stamp in arrived]
    p50, p95, p99 = np.percentile(ages_ms, [50, 95, 99])
    return {"age_p50_ms": round(p50, 2), "age_p95_ms": round(p95, 2), "age_p99_ms": round(p99, 2), "drops": drops,
            "frames": sent_count, "rate_hz": round(sent_count / 2 / ((stop_ns - start_ns) * 1e-9), 2),
            "tick_age_p95_ms": round(1e3 * float(np.percentile(policy["tick_ages_s"], 95)), 1),
            "cpu_share": round(sum(cpu.values()), 3), "cpu_by_process": {key: round(v, 3) for key, v in cpu.items()}}
