"""The whole training of one policy: data → stage 1 (SFT) → stage 2 (CO-RFT) → exports.

Rule for choosing a checkpoint, fixed in advance: the last one of each stage.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from corft_core.data.chunks import build_chunks
from corft_core.data.statistics import Statistics
from corft_core.errors import CorftError
from corft_core.features import image_size
from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.learning.config import TrainConfig
from corft_core.learning.curves import draw_curves
from corft_core.learning.frames import CachedFrames, LiveFrames, Samples
from corft_core.learning.loop import StopRequest, run_stage
from corft_core.learning.q_export import export_q_vs_return
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.sft import SFTStage
from corft_core.learning.training_data import TrainingData
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.backbones import make_backbone
from corft_core.policy.checkpoint import Bundle, load_checkpoint, network_shapes, save_checkpoint, with_selection

logger = logging.getLogger(__name__)


def train(
    dataset: TrainingData, folder: Path | str, config: TrainConfig, *, dataset_path: Path | str = "",
    resume: bool = False, device: str = "cpu", quiet: bool = False,
) -> Path:
    """Train into `folder` and return it. Raises CorftError on unusable data, Interrupted after a SIGTERM."""
    run = RunFolder(folder)
    check_data(dataset, config)
    if not resume:
        run.create(config, dataset_path)
    with StopRequest().listening() as stop:
        _Training(dataset, run, config, torch.device(device), stop, quiet).fit(resume)
    return run.folder


def check_data(dataset: TrainingData, config: TrainConfig) -> None:
    """Refuse data nothing can be learned from, saying what to record."""
    if dataset.num_frames == 0:
        raise CorftError("the data set holds no step: record episodes and convert them with bag_to_dataset.")
    if dataset.fps != dataset.contract.rate_hz:
        raise CorftError(
            f"the data set has {dataset.fps} steps/s, its contract says rate_hz = {dataset.contract.rate_hz}: convert "
            "the bag again with this contract."
        )
    if not np.any(dataset.done):
        raise CorftError(
            f"none of the {dataset.num_episodes} episodes succeeded: there is nothing to imitate and no reward. Record "
            "episodes that end with the EpisodeEvent SUCCESS."
        )
    if config.held_out >= dataset.num_episodes:
        raise CorftError(f"held_out = {config.held_out} leaves none of {dataset.num_episodes} episodes to train on.")


class _Training:
    def __init__(
        self, dataset: TrainingData, run: RunFolder, config: TrainConfig, device: torch.device, stop: StopRequest,
        quiet: bool,
    ) -> None:
        self.dataset, self.run, self.config = dataset, run, config
        self.device, self.stop, self.quiet = device, stop, quiet
        self.contract = dataset.contract
        self.table = build_chunks(
            dataset.episode_index, dataset.action, dataset.reward, dataset.done, config.policy.horizon,
            config.co_rft.gamma, config.co_rft.reward_copies,
        )
        self.trained = self.table.episode < self.table.episode.max() + 1 - config.held_out
        training = self.trained
        self.statistics = Statistics.measure(
            dataset.state[training], self.table.action[training], self.table.valid[training],
            self.contract.action_representation,
        )
        self.samples = Samples.build(dataset, self.table, self.statistics, device)
        torch.manual_seed(config.seed)
        self.backbone = make_backbone(
            config.policy.backbone, cameras=len(self.contract.cameras), image_size=image_size(self.contract),
            **config.policy.backbone_options,
        ).to(device)
        torch.set_num_threads(config.threads or _default_threads(self.backbone.frozen))
        self.actor = Actor(network_shapes(self.backbone, self.contract), config.policy).to(device)
        self.images = [dataset.images()[camera.name] for camera in self.contract.cameras]
        digest = hashlib.sha256(json.dumps([asdict(config), self.statistics.to_dict()]).encode()).hexdigest()
        self.identity = f"{run.folder.name}-{digest[:8]}"

    def fit(self, resume: bool) -> None:
        state = self.run.load_state() if resume else None
        config = self.config
        stage, start, tensors, extra = state if state is not None else ("sft", 0, {}, {})
        frames: CachedFrames | LiveFrames
        finished = self.run.checkpoint("sft")
        if resume and finished.exists():
            bundle = load_checkpoint(finished, self.contract)
            self.backbone, self.actor = bundle.backbone.to(self.device), bundle.actor.to(self.device)
            frames = self._cache()
        else:
            frames = self._cache() if self.backbone.frozen else LiveFrames(
                self.backbone, self.images, self.samples, self.device, config.sft.shift_px
            )
            self._fit_inputs(frames)
            eligible = self.trained & self._of_successes() if config.sft.successes_only else self.trained
            sft = SFTStage(
                self.actor, self.backbone, frames, self._index(eligible), self._index(~self.trained), config.sft,
                config.seed, config.log_every,
            )
            if stage == "sft" and tensors:
                sft.load(tensors, extra)
            self._run(sft, start)
            sft.finish()
            save_checkpoint(finished, self._bundle("sft", None))
            start, tensors, extra = 0, {}, {}
            if isinstance(frames, LiveFrames) and config.co_rft.steps:
                frames = self._cache()
        if config.co_rft.steps:
            assert isinstance(frames, CachedFrames)
            self._co_rft(frames, *((start, tensors, extra) if stage == "co_rft" else (0, {}, {})))
        draw_curves(self.run)

    def _co_rft(self, frames: CachedFrames, start: int, tensors: dict[str, Any], extra: dict[str, Any]) -> None:
        config = self.config
        torch.manual_seed(config.seed + 1)
        critic = Critic(network_shapes(self.backbone, self.contract), config.policy).to(self.device)
        critic.encoder.load_state_dict(self.actor.encoder.state_dict())
        stage = CoRFTStage(
            self.actor, critic, frames, self.table, self._index(self.trained), config, self.device
        )
        if tensors:
            stage.load(tensors, extra)
        self._run(stage, start)
        stage.finish()
        save_checkpoint(self.run.checkpoint("co_rft"), self._bundle("co_rft", critic))
        export_q_vs_return(self.run.folder / "q_vs_return.json", stage, self.table, self.trained)

    def _run(self, stage: Any, start: int) -> None:
        run_stage(stage, self.run, start, self.config.log_every, self.config.save_every, self.stop, self.quiet)

    def _cache(self) -> CachedFrames:
        with tqdm(total=len(self.samples), desc="features", unit="frame", disable=self.quiet, mininterval=1.0) as bar:
            return CachedFrames.compute(self.backbone, self.images, self.samples, self.device, bar.update)

    def _fit_inputs(self, frames: CachedFrames | LiveFrames) -> None:
        index = self._index(self.trained)
        index = index[:: max(1, len(index) // 256)]
        tokens, text = frames.input_sample(index)
        if not self.backbone.frozen:  # a moving backbone's scale is its own; only rescale by one number
            tokens = tokens.float()
            self.actor.encoder.get_buffer("token_scale").fill_(float(tokens.std().clamp_min(1e-3)))
            return
        self.actor.encoder.fit_inputs(tokens, text)

    def _of_successes(self) -> np.ndarray:
        succeeded = np.zeros(int(self.table.episode.max()) + 1, bool)
        succeeded[self.table.episode[np.asarray(self.dataset.done, bool)]] = True
        return succeeded[self.table.episode]

    def _index(self, mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.flatnonzero(mask)).to(self.device)

    def _bundle(self, stage: str, critic: Critic | None) -> Bundle:
        config = self.config.policy if critic is not None else with_selection(self.config.policy, 1)
        return Bundle(
            config=config, contract=self.contract, statistics=self.statistics, backbone=self.backbone,
            actor=self.actor, critic=critic, policy_id=f"{self.identity}-{stage}", stage=stage,
            instructions=self.samples.instructions,
        )


def _default_threads(frozen: bool) -> int:
    """The experts alone are too small to gain from every core, and wait long for threads that others hold up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2) if frozen else cores


__all__ = ["check_data", "train"]
