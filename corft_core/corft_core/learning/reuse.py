"""What a run may take from elsewhere instead of computing it again: an earlier run's stage 1 and critic, features.

Nothing is taken on trust: the data's digest and statistics, and every setting that the taken part depends on, must
agree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from corft_core.data.statistics import Statistics
from corft_core.errors import CorftError
from corft_core.learning.co_rft_stage import critic_settings
from corft_core.learning.config import TrainConfig
from corft_core.learning.frames import CachedFrames, Samples
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.training_data import TrainingData
from corft_core.policy.backbones import Backbone
from corft_core.policy.checkpoint import Bundle, load_checkpoint
from corft_core.policy.options import ConfigError

LATER = ("critic", "selection")
"""Sections of the policy that stage 1 does not depend on."""


def data_digest(dataset: TrainingData) -> str:
    """Hash over everything a run learns from: contract, vectors, outcomes, instructions and all images."""
    digest = hashlib.sha256(json.dumps([dataset.contract.to_dict(), dataset.instructions], sort_keys=True).encode())
    for array in (dataset.episode_index, dataset.state, dataset.action, dataset.reward, dataset.done):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    for name, images in sorted(dataset.images().items()):
        digest.update(f"{name}{images.shape}".encode())
        for start in range(0, len(images), 256):  # a memory map is never read whole
            digest.update(np.ascontiguousarray(images[start : start + 256]).data)
    return digest.hexdigest()[:16]


def check_unchanged(run: RunFolder, digest: str) -> None:
    """Refuse to continue a run on other data than it began with."""
    began = run.data_digest()
    if began != digest:
        raise CorftError(
            f"the data set has changed since {run.folder} was started (digest {digest}, then {began}): statistics and "
            "value targets would not match the trained weights. Restore the data, or train into a new folder."
        )


def check_statistics(bundle: Bundle, statistics: Statistics) -> None:
    """Refuse a stage 1 that was trained on vectors scaled otherwise than `statistics`, this run's, scale them."""
    theirs, ours = bundle.statistics.to_dict(), statistics.to_dict()
    different = [key for key in ours if not _close(theirs[key], ours[key])]
    if different:
        raise CorftError(
            f"statistics.json of {bundle.policy_id} differs from the statistics of the data in {', '.join(different)}, "
            "though the data are the same: its weights would read and give other units. It was edited, or made by "
            "another version of corft: restore it, or train stage 1 again, into a new folder and without --from."
        )


def _close(theirs: Any, ours: Any) -> bool:
    """Equal up to the rounding of another machine's sums."""
    if not isinstance(ours, list):
        return bool(theirs == ours)
    one, other = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-6)


def imitation_settings(config: TrainConfig) -> dict[str, Any]:
    """What stage 1's result depends on, as `key.path` → value. The seed is left to whoever names the run."""
    policy = {key: value for key, value in asdict(config.policy).items() if key not in LATER}
    return _flat({"held_out": config.held_out, "policy": policy, "sft": asdict(config.sft)})


class EarlierRun:
    """A run folder whose finished parts are taken over."""

    def __init__(self, folder: Path | str, config: TrainConfig, digest: str) -> None:
        """Raises CorftError when the run is missing, unfinished or on other data, ConfigError on other settings."""
        self.run = RunFolder(folder)
        self.config, _ = self.run.read()
        if not self.run.checkpoint("sft").exists():
            raise CorftError(f"{folder} has no finished stage 1: continue it with --resume {folder} first.")
        if self.run.data_digest() != digest:
            raise CorftError(
                f"{folder} was trained on other data (digest {self.run.data_digest()}, here {digest}): give the data "
                "set it was trained on, or train without --from."
            )
        theirs, ours = imitation_settings(self.config), imitation_settings(config)
        different = [f"{key} = {theirs.get(key)} there, {ours.get(key)} here"
                     for key in sorted(theirs.keys() | ours.keys()) if theirs.get(key) != ours.get(key)]
        if different:
            raise ConfigError(f"stage 1 of {folder} cannot be taken: {'; '.join(different)}. Use its settings, or "
                              "train without --from.")

    def stage_one(self, contract: Any) -> Bundle:
        """Its finished stage 1."""
        return load_checkpoint(self.run.checkpoint("sft"), contract)

    def critic(self, config: TrainConfig) -> dict[str, Tensor] | None:
        """Its trained critic, or None where it kept none or trained it with other settings."""
        ours = critic_settings(config)
        if ours is None or critic_settings(self.config) != ours or not self.run.critic_path.exists():
            return None
        return load_file(self.run.critic_path)


class FeatureCache:
    """Backbone tokens shared by runs of one process on the same episodes; holds the `keep` last used."""

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep
        self.entries: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @staticmethod
    def key(backbone: Backbone, digest: str) -> str:
        """Names backbone, its weights and the data."""
        return json.dumps([backbone.config(), backbone.fingerprint(), digest], sort_keys=True)

    def get(self, key: str, samples: Samples) -> CachedFrames | None:
        """Frames over the kept tokens, or None."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return None
        self.entries[key] = entry
        return CachedFrames(samples, *entry)

    def put(self, key: str, frames: CachedFrames) -> None:
        """Keep these tokens, dropping the longest unused."""
        self.entries[key] = (frames.tokens, frames.text, frames.text_row)
        while len(self.entries) > self.keep:
            del self.entries[next(iter(self.entries))]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    return {key: value for name, part in data.items()
            for key, value in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()}
