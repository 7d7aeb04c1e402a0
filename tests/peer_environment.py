"""Environments of other projects' packages, to check and measure against: built under out/peers, torch borrowed.

Their pins contradict ours, so each gets its own folder and process. Its own packages come first; what is not installed
there (torch, numpy, pyarrow, …) is taken from the environment that builds it. The module needs the standard library
only, because the processes that run in such an environment import it too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "out" / "peers"


class PeerMissing(Exception):
    """The environment cannot be built here; the text is the reason, for a skip or a report."""


@dataclass(frozen=True)
class Peer:
    """``packages`` are installed without their dependencies, so all that is not borrowed is named."""

    name: str
    packages: tuple[str, ...]


# The upstream data set classes without the pins of training; their module is called ledataset.
LEROBOT_DATASET = Peer("lerobot-dataset", (
    "lerobot-dataset==0.4.4", "av==15.1.0", "datasets==4.1.1", "huggingface-hub==0.35.3", "torchvision==0.25.0",
    "numpy==2.2.6",  # its writer turns arrays of one value into numbers, which newer ones refuse
    "pandas==2.3.3", "python-dateutil==2.9.0.post0", "pytz==2025.2", "tzdata==2025.2", "six==1.17.0",
    "dill==0.4.0", "multiprocess==0.70.16", "xxhash==3.6.0", "requests==2.32.5", "urllib3==2.5.0", "idna==3.11",
    "certifi==2025.10.5", "charset-normalizer==3.4.4", "jsonlines==4.0.0", "attrs==25.4.0"))
# Only its policies are used, as a yardstick of training speed.
LEROBOT = Peer("lerobot", (
    "lerobot==0.4.4", "draccus==0.11.6", "einops==0.8.2", "mergedeep", "pyyaml-include==2.2", "toml",
    "typing_inspect", "mypy_extensions"))
# Its whole policies, with their vision networks, as a yardstick of serving speed.
LEROBOT_SERVE = Peer("lerobot-serve", (*LEROBOT.packages, "torchvision==0.25.0"))


def python(peer: Peer) -> str:
    """The peer's interpreter, building its environment first (seconds, some tens of MB). Raises PeerMissing."""
    folder = FOLDER / peer.name
    key = hashlib.sha256("\n".join((sys.version, *peer.packages)).encode()).hexdigest()
    ready = folder / "ready"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{peer.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may ask at once
        if not ready.exists() or ready.read_text() != key:
            try:
                _build(folder, peer)
            except (OSError, subprocess.SubprocessError) as error:
                said = str(getattr(error, "stderr", None) or error).strip().splitlines() or [repr(error)]
                raise PeerMissing(f"{peer.name} cannot be installed: {said[-1]}") from error
            ready.write_text(key)
    return str(folder / "bin" / "python")


def environ(**more: str) -> dict[str, str]:
    """Variables for a peer's process: our sources and tests importable, one thread, no network."""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "corft_core")])
    quiet = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **quiet, **more}


def define_torchvision_operators() -> None:
    """Call before importing torchvision in a peer's process: its compiled part is for another torch, and not used."""
    import torch

    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _build(folder: Path, peer: Peer) -> None:
    venv.create(folder, clear=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:",
                    "--target", str(packages), *peer.packages],
                   check=True, capture_output=True, text=True, timeout=600)
    (packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
