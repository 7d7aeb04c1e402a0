"""A run's folder: config.json, metrics.jsonl, tensorboard/, checkpoints/, critic.safetensors, resume/.

Saves are atomic; under torchrun only the main process writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from corft_core.errors import CorftError
from corft_core.files import atomic_folder, write_bytes, write_json, write_text
from corft_core.learning import processes
from corft_core.learning.config import TrainConfig
from corft_core.learning.tensorboard_log import TensorBoardLog
from corft_core.policy.options import parse

CONFIG_VERSION = 2
SavedState = tuple[str, int, dict[str, Tensor], dict[str, Any]]
"""Stage, its finished steps, tensors, JSON state."""
FINISHED = "finished"
"""Stage of a run with nothing left to do."""


class RunFolder:
    """Paths and files of one training run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.metrics_path = self.folder / "metrics.jsonl"
        self.resume_path = self.folder / "resume"
        self.critic_path = self.folder / "critic.safetensors"
        self.check_path = self.folder / "offline_check.json"
        self.data_path = self.folder / "data.json"
        self.board: TensorBoardLog | None = None

    def checkpoint(self, stage: str) -> Path:
        return self.folder / "checkpoints" / stage

    def create(
        self, config: TrainConfig, dataset: Path | str, digest: str = "", init: Path | str | None = None
    ) -> None:
        """Start a new run on the data of this digest, `init` the run it starts from; nothing is ever overwritten."""
        if not processes.is_main():
            return
        if (self.folder / "config.json").exists():
            raise CorftError(
                f"{self.folder} already holds a run. Continue it with --resume {self.folder}, or name a new folder."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", {
            "version": CONFIG_VERSION, "dataset": str(Path(dataset).resolve()), "data_digest": digest,
            "from": str(Path(init).resolve()) if init is not None else None, "train": asdict(config),
        })

    def read(self) -> tuple[TrainConfig, Path]:
        """Configuration and data set of an existing run."""
        data = self._header()
        return parse(TrainConfig, data["train"]), Path(data["dataset"])

    def data_digest(self) -> str:
        """Digest of the data the run began with."""
        return self._header()["data_digest"]

    def init(self) -> Path | None:
        """The earlier run this one took stage 1 from."""
        earlier = self._header()["from"]
        return Path(earlier) if earlier is not None else None

    def data(self) -> dict[str, float]:
        """What there was to learn from (Prepared.counts); empty where the run was made before that was kept."""
        return dict(json.loads(self.data_path.read_text())) if self.data_path.exists() else {}

    def stage_one_digest(self) -> str:
        """First digits of the SHA-256 of the weights that stage 1 ended with, trained here or taken from `init`."""
        return hashlib.sha256((self.checkpoint("sft") / "model.safetensors").read_bytes()).hexdigest()[:16]

    def _header(self) -> dict[str, Any]:
        try:
            data = json.loads((self.folder / "config.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise CorftError(f"{self.folder} holds no run to resume ({error}). Start one with: "
                             f"ros2 run corft trainer DATASET {self.folder}") from error
        if data.get("version") != CONFIG_VERSION:
            raise CorftError(f"{self.folder}/config.json has version {data.get('version')!r}, not {CONFIG_VERSION}.")
        return data

    def log(self, stage: str, step: int, info: dict[str, float]) -> None:
        """Append one line to metrics.jsonl; values that are not finite become null."""
        if not processes.is_main():
            return
        row = {"stage": stage, "step": step}
        row |= {key: round(value, 6) if math.isfinite(value) else None for key, value in info.items()}  # type: ignore[misc]
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            self.board.write(row)

    @contextmanager
    def tensorboard(self, wanted: bool) -> Iterator[None]:
        """Inside the block rows also go to RUN/tensorboard, if `wanted`; those there are already are written anew."""
        if wanted and processes.is_main():
            self.board = TensorBoardLog(self.folder / "tensorboard", self.metrics())
        try:
            yield
        finally:
            if self.board is not None:
                self.board.close()
                self.board = None

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl."""
        if not self.metrics_path.exists():
            return []
        return [json.loads(line) for line in self.metrics_path.read_text().splitlines() if line.strip()]

    def checks(self) -> dict[str, Any]:
        """Checkpoints of offline_check.json."""
        return json.loads(self.check_path.read_text())["checkpoints"] if self.check_path.exists() else {}

    def save_critic(self, tensors: dict[str, Tensor]) -> None:
        """Keep a finished critic for runs that start from this one."""
        if processes.is_main():
            write_bytes(self.critic_path, save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}))

    def save_state(self, stage: str, step: int, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Everything needed to continue `stage` after `step` finished steps."""
        if not processes.is_main():
            return
        with atomic_folder(self.resume_path, overwrite=True) as temporary:
            stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
            save_file(stored, temporary / "state.safetensors")
            rows = len(self.metrics())
            write_json(temporary / "state.json", {"stage": stage, "step": step, "metric_rows": rows, **extra})

    def saved(self) -> tuple[str, int] | None:
        """Stage and finished steps of what `save_state` wrote last, or None."""
        path = self.resume_path / "state.json"
        if not path.exists():
            return None
        try:
            header = json.loads(path.read_text())
            return header["stage"], header["step"]
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise CorftError(f"{self.resume_path} is damaged ({error}); train again into a new folder.") from error

    def load_state(self) -> SavedState | None:
        """What `save_state` wrote last, or None; later metrics rows are dropped, they will be written again."""
        if self.saved() is None:
            return None
        try:
            header = json.loads((self.resume_path / "state.json").read_text())
            tensors = load_file(self.resume_path / "state.safetensors")
        except (OSError, json.JSONDecodeError, SafetensorError) as error:
            raise CorftError(f"{self.resume_path} is damaged ({error}); train again into a new folder.") from error
        stage, step = header.pop("stage"), header.pop("step")
        kept = self.metrics()[: header.pop("metric_rows")]
        if processes.is_main():
            write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))
        return stage, step, tensors, header
