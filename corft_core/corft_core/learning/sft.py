"""Stage 1: supervised fine-tuning of the actor, and of the backbone where it is not frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from corft_core.learning import processes
from corft_core.learning.bc import action_error, bc_loss
from corft_core.learning.config import SFTConfig
from corft_core.learning.frames import CachedFrames, LiveFrames
from corft_core.learning.noise import gaussian_like
from corft_core.learning.optim import (
    Averaged,
    backbone_groups,
    clip_gradients,
    cosine,
    draw_batch,
    load_optimizer,
    optimizer_tensors,
    seed_step,
)
from corft_core.policy.actor import Actor, Observation
from corft_core.policy.backbones import Backbone
from corft_core.policy.options import ConfigError

STAGE_NUMBER = 1


class SFTStage:
    """Imitation over the frames in `train_index`."""

    name = "sft"

    def __init__(
        self, actor: Actor, backbone: Backbone, frames: CachedFrames | LiveFrames, train_index: Tensor,
        held_out_index: Tensor, config: SFTConfig, seed: int, log_every: int,
    ) -> None:
        self.actor, self.frames, self.config, self.seed = actor, frames, config, seed
        self.train_index, self.held_out_index, self.log_every = train_index, held_out_index, log_every
        self.steps = config.steps
        self.modules: list[nn.Module] = [actor]
        self.backbone = None if backbone.frozen else backbone
        groups: list[dict[str, Any]] = [{"params": [p for p in actor.parameters() if p.requires_grad], "lr": config.lr}]
        if not backbone.frozen:
            self.modules.append(backbone)
            groups += backbone_groups(backbone, config.backbone_lr, config.vision_lr, config.weight_decay)
        self.peak = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self.average = Averaged(self.modules, config.ema)

    def phase(self, step: int) -> tuple[str, int]:
        return "sft", 0

    def step(self, step: int) -> dict[str, float]:
        config = self.config
        seed_step(self.seed, STAGE_NUMBER, step)
        self.actor.head.progress = (step + 1) / config.steps
        for group, peak in zip(self.optimizer.param_groups, self.peak, strict=True):
            group["lr"] = peak * cosine(step, config.steps, config.warmup)
        for module in self.modules:
            module.train()
        self.optimizer.zero_grad(set_to_none=True)
        info = self._gradients(draw_batch(self.train_index, config.batch))
        processes.average_gradients(self.average.parameters)
        info["gradient"] = clip_gradients(self.average.parameters, config.clip_norm)
        self.optimizer.step()
        self.average.update()
        if len(self.held_out_index) and (step + 1) % (10 * self.log_every) == 0:
            info["held_out_error"] = self._held_out()
        return info

    def _gradients(self, index: Tensor) -> dict[str, float]:
        """Add up the gradients of a batch that passes the networks in equal parts; its mean losses."""
        config, samples = self.config, self.frames.samples
        if len(index) % config.accumulate:
            raise ConfigError(
                f"sft.accumulate = {config.accumulate} does not divide the {len(index)} samples of each process."
            )
        sums: dict[str, float] = {}
        for part_index in index.chunk(config.accumulate):
            observation = noisy(self.frames.observe(part_index, train=True), self.actor, config)
            loss, info = bc_loss(
                self.actor, observation, samples.imitation_actions[part_index], samples.imitation_valid[part_index],
                samples.keyframe[part_index], config.keyframe_weight,
            )
            (loss / config.accumulate).backward()
            sums = {key: sums.get(key, 0.0) + value / config.accumulate for key, value in info.items()}
        return sums

    def _held_out(self) -> float:
        self.average.swap()
        self.actor.eval()
        index = self.held_out_index[:: max(1, len(self.held_out_index) // 256)]
        samples = self.frames.samples
        with torch.no_grad():
            error = action_error(self.actor, self.frames.observe(index), samples.actions[index], samples.valid[index])
        self.average.swap()
        return error

    def finish(self) -> None:
        """Keep the averaged weights."""
        if self.config.ema and self.config.steps:
            self.average.swap()
        for module in self.modules:
            module.eval()

    def tensors(self) -> dict[str, Tensor]:
        state = {f"model.0.{k}": v for k, v in self.actor.state_dict().items()}
        if self.backbone is not None:
            state |= {f"model.1.{k}": v for k, v in self.backbone.saved_state().items()}
        state |= {f"average.{k}": v for k, v in self.average.state().items()}
        return state | {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}

    def extra(self) -> dict[str, Any]:
        return {"updates": self.average.updates}

    def load(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Inverse of `tensors` and `extra`."""
        self.actor.load_state_dict(part(tensors, "model.0."))
        if self.backbone is not None:
            self.backbone.load_saved_state(part(tensors, "model.1."))
        self.average.load(part(tensors, "average."), extra["updates"])
        load_optimizer(self.optimizer, part(tensors, "optimizer."))


def noisy(observation: Observation, actor: Actor, config: SFTConfig) -> Observation:
    """Noise on standardised vision tokens and on the normalised state, against learning the scenes by heart."""
    tokens, state = observation.tokens, observation.state
    if config.token_noise:
        scale = config.token_noise * actor.encoder.token_scale[:, None]
        tokens = torch.addcmul(tokens, scale, gaussian_like(tokens))
    if config.state_noise:
        state = state + config.state_noise * torch.randn_like(state)
    return replace(observation, tokens=tokens, state=state)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
