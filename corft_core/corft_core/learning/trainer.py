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

import torch
from tqdm import tqdm

from corft_core.features import image_size
from corft_core.files import write_json
from corft_core.learning import processes
from corft_core.learning.co_rft_stage import CoRFTStage, critic_settings
from corft_core.learning.config import TrainConfig
from corft_core.learning.curves import draw_curves
from corft_core.learning.frames import CachedFrames, LiveFrames
from corft_core.learning.loop import StopRequest, run_stage
from corft_core.learning.memory import keep_freed_memory
from corft_core.learning.memory_check import check_memory
from corft_core.learning.offline_check import NO_SUCCESS_RATE, check_policy, lines, measured_on
from corft_core.learning.prepared import Prepared, check_data
from corft_core.learning.q_export import export_q_vs_return
from corft_core.learning.reuse import EarlierRun, FeatureCache, check_statistics, check_unchanged, data_digest
from corft_core.learning.run_folder import FINISHED, RunFolder, SavedState
from corft_core.learning.sft import SFTStage
from corft_core.learning.tensorboard_log import require_tensorboard
from corft_core.learning.training_data import TrainingData
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.backbones import make_backbone
from corft_core.policy.checkpoint import Bundle, load_checkpoint, network_shapes, save_checkpoint, with_selection
from corft_core.policy.policy import Policy

logger = logging.getLogger(__name__)


def train(
    dataset: TrainingData, folder: Path | str, config: TrainConfig, *, dataset_path: Path | str = "",
    resume: bool = False, init: Path | str | None = None, features: FeatureCache | None = None, device: str = "cpu",
    quiet: bool = False,
) -> Path:
    """Train into `folder` and return it.

    init: an earlier run on the same data whose finished stage 1 is taken instead of trained, and whose trained critic
    too where all critic settings agree. features: backbone tokens shared by several runs of this process.
    Under torchrun every process calls this; the first one writes.
    Raises CorftError on unusable data, ConfigError on an `init` with other settings, Interrupted after a SIGTERM.
    """
    run = RunFolder(folder)
    check_data(dataset, config)
    keep_freed_memory()
    if config.tensorboard:
        require_tensorboard()
    digest = data_digest(dataset)
    if resume:
        check_unchanged(run, digest)
        saved = run.saved()
        if saved is not None and saved[0] == FINISHED:
            return run.folder
        init = None if saved is not None and saved[1] else run.init()
    earlier = EarlierRun(init, config, digest) if init is not None else None
    with processes.joined(device) as own_device, StopRequest().listening() as stop:
        if not resume:
            run.create(config, dataset_path, digest, init)
        prepared = Prepared.of(dataset, config, torch.device(own_device))
        if processes.is_main():
            write_json(run.data_path, prepared.counts())
        quiet = quiet or not processes.is_main()
        if not quiet:
            print(prepared.summary(), flush=True)
        _Training(prepared, run, config, digest, earlier, features, stop, quiet).fit(resume)
    return run.folder


class _Training:
    def __init__(
        self, data: Prepared, run: RunFolder, config: TrainConfig, digest: str, earlier: EarlierRun | None,
        features: FeatureCache | None, stop: StopRequest, quiet: bool,
    ) -> None:
        self.data, self.run, self.config, self.digest, self.earlier = data, run, config, digest, earlier
        self.features, self.stop, self.quiet = features, stop, quiet
        self.frames: CachedFrames | None = None
        settings = hashlib.sha256(json.dumps([asdict(config), data.statistics.to_dict()]).encode()).hexdigest()
        self.identity = f"{run.folder.name}-{settings[:8]}"

    def fit(self, resume: bool) -> None:
        saved = self.run.load_state() if resume else None
        try:
            with self.run.tensorboard(self.config.tensorboard):
                self._both_stages(resume, saved)
        except Exception:  # a stop or an alarm; a second Ctrl-C does not wait for a picture
            self._draw()
            raise
        self._draw()
        self.run.save_state(FINISHED, 0, {}, {})
        processes.wait()

    def _draw(self) -> None:
        """RUN/curves.png of what was logged; a failure is only told: it must not hide why a run stopped."""
        if processes.is_main():
            try:
                draw_curves(self.run)
            except Exception as error:
                logger.warning("%s/curves.png could not be drawn: %s", self.run.folder, error)

    def _both_stages(self, resume: bool, saved: SavedState | None) -> None:
        stage, start, tensors, extra = saved if saved is not None else ("sft", 0, {}, {})
        finished, config = self.run.checkpoint("sft"), self.config
        if resume and finished.exists():
            self._take(load_checkpoint(finished, self.data.contract))
        elif self.earlier is not None:
            self._take(self.earlier.stage_one(self.data.contract))
            self._save("sft", None)
            self._check("sft", None)
        else:
            self._new_networks()
            self._imitate(start, tensors, extra)
        if config.co_rft.steps:
            if stage == "sft":
                self.run.save_state("co_rft", 0, {}, {})
            self._co_rft(self._cached(), *((start, tensors, extra) if stage == "co_rft" else (0, {}, {})))

    def _new_networks(self) -> None:
        config, contract = self.config, self.data.contract
        check_memory(config, contract, self.data.samples.instructions, len(self.data.samples), self.data.device)
        torch.manual_seed(config.seed)
        self.backbone = make_backbone(
            config.policy.backbone, cameras=len(contract.cameras), image_size=image_size(contract),
            **config.policy.backbone_options,
        ).to(self.data.device)
        self.actor = Actor(network_shapes(self.backbone, contract), config.policy).to(self.data.device)
        self._set_threads()

    def _take(self, bundle: Bundle) -> None:
        check_statistics(bundle, self.data.statistics)
        self.backbone, self.actor = bundle.backbone.to(self.data.device), bundle.actor.to(self.data.device)
        self._set_threads()

    def _set_threads(self) -> None:
        torch.set_num_threads(self.config.threads or _default_threads(self.backbone.frozen))

    def _imitate(self, start: int, tensors: dict[str, Any], extra: dict[str, Any]) -> None:
        data, config = self.data, self.config
        frames = self._cached() if self.backbone.frozen else LiveFrames(
            self.backbone, data.images, data.samples, data.device, config.sft.shift_px
        )
        self._fit_inputs(frames)
        shard = config.sft.shard and processes.count() > 1
        if shard:
            self.backbone.divide(data.device)
        stage = SFTStage(
            self.actor, self.backbone, frames, data.index(data.imitation.rows), data.index(~data.trained), config.sft,
            config.seed, config.log_every,
        )
        if tensors:
            stage.load(tensors, extra)
        self._run(stage, start)
        stage.finish()
        self._save("sft", None)
        if shard:  # what follows needs no gradients of the backbone, and the whole of it
            del stage, frames
            processes.wait()
            self._take(load_checkpoint(self.run.checkpoint("sft"), data.contract))
        self._check("sft", None)

    def _co_rft(self, frames: CachedFrames, start: int, tensors: dict[str, Any], extra: dict[str, Any]) -> None:
        data, config = self.data, self.config
        torch.manual_seed(config.seed + 1)
        critic = Critic(network_shapes(self.backbone, data.contract), config.policy).to(data.device)
        critic.encoder.load_state_dict(self.actor.encoder.state_dict())
        stage = CoRFTStage(
            self.actor, critic, frames, data.table, data.index(data.trained), config, data.device,
            actor_index=data.index(data.trained & data.imitation.succeeded if config.co_rft.successes_only
                                   else data.trained),
            imitation_index=data.index(data.imitation.rows),
        )
        trained = self.earlier.critic(config) if self.earlier is not None else None
        if tensors:
            stage.load(tensors, extra)
        elif trained is not None:
            start = stage.take_critic(trained)
        self._run(stage, start)
        stage.finish()
        self._save("co_rft", stage.run_time_critic)
        self._check("co_rft", stage.run_time_critic)
        if critic_settings(config) is not None:
            self.run.save_critic(stage.trained_critic())
        if processes.is_main() and stage.run_time_critic is not None:
            export_q_vs_return(self.run.folder / "q_vs_return.json", stage, data.table, data.trained)

    def _run(self, stage: Any, start: int) -> None:
        run_stage(stage, self.run, start, self.config.log_every, self.config.save_every, self.stop, self.quiet)

    def _cached(self) -> CachedFrames:
        """Tokens of all frames by the backbone as it is now; a frozen one's are computed once."""
        if self.frames is not None:
            return self.frames
        data = self.data
        key = FeatureCache.key(self.backbone, self.digest) if self.features is not None else ""
        frames = self.features.get(key, data.samples) if self.features is not None else None
        if frames is None:
            count = len(data.samples)
            with tqdm(total=count, desc="features", unit="frame", disable=self.quiet, mininterval=1.0) as bar:
                def progress(frames_done: int) -> None:
                    bar.update(frames_done)
                    self.stop.check(self.run)

                frames = CachedFrames.compute(self.backbone, data.images, data.samples, data.device, progress)
            if self.features is not None:
                self.features.put(key, frames)
        self.frames = frames
        return frames

    def _fit_inputs(self, frames: CachedFrames | LiveFrames) -> None:
        index = self.data.index(self.data.trained)
        self.actor.head.fit_actions(self.data.samples.imitation_actions[index])
        index = index[:: max(1, len(index) // 256)]
        tokens, text = frames.input_sample(index)
        if not self.backbone.frozen:  # a moving backbone's scale is its own; only rescale by one number
            tokens = tokens.float()
            self.actor.encoder.get_buffer("token_scale").fill_(float(tokens.std().clamp_min(1e-3)))
            return
        self.actor.encoder.fit_inputs(tokens, text)

    def _bundle(self, stage: str, critic: Critic | None) -> Bundle:
        data, config = self.data, self.config
        return Bundle(
            config=config.policy if critic is not None else with_selection(config.policy, 1), contract=data.contract,
            statistics=data.statistics, backbone=self.backbone, actor=self.actor, critic=critic,
            policy_id=f"{self.identity}-{stage}", stage=stage, instructions=data.samples.instructions,
        )

    def _save(self, stage: str, critic: Critic | None) -> None:
        weights = self.backbone.saved_state()  # of a divided backbone every process gives its part
        if processes.is_main():
            save_checkpoint(self.run.checkpoint(stage), self._bundle(stage, critic), weights)

    def _check(self, stage: str, critic: Critic | None) -> None:
        data, config = self.data, self.config
        if config.check_frames and processes.is_main():
            rows = ~data.trained if config.held_out else data.trained
            policy = Policy(self._bundle(stage, critic), str(data.device))
            checked = check_policy(policy, data.dataset, data.table, rows, config.check_frames)
            report = {
                "note": NO_SUCCESS_RATE, "measured_on": measured_on(config.held_out, data.dataset.num_episodes),
                "checkpoints": self.run.checks() | {stage: checked},
            }
            write_json(self.run.check_path, report)
            if not self.quiet:
                print("\n".join(lines(report | {"checkpoints": {stage: checked}})), flush=True)


def _default_threads(frozen: bool) -> int:
    """The experts alone are too small to gain from every core, and wait long for threads that others hold up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2) if frozen else cores


__all__ = ["FeatureCache", "check_data", "train"]
