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
from corft_core.learning.optim import Averaged, cosine, draw_batch, load_optimizer, optimizer_tensors, seed_step
from corft_core.policy.actor import Actor, Observation
from corft_core.policy.backbones import Backbone

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
        groups: list[dict[str, Any]] = [{"params": [p for p in actor.parameters() if p.requires_grad], "lr": config.lr}]
        if not backbone.frozen:
            self.modules.append(backbone)
            moved = [p for p in backbone.parameters() if p.requires_grad]
            groups.append({"params": moved, "lr": config.backbone_lr})
        self.peak = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self.average = Averaged(self.modules, config.ema)

    def phase(self, step: int) -> tuple[str, int]:
        return "sft", 0

    def step(self, step: int) -> dict[str, float]:
        config = self.config
        seed_step(self.seed, STAGE_NUMBER, step)
        for group, peak in zip(self.optimizer.param_groups, self.peak, strict=True):
            group["lr"] = peak * cosine(step, config.steps, config.warmup)
        for module in self.modules:
            module.train()
        index = draw_batch(self.train_index, config.batch)
        samples = self.frames.samples
        observation = noisy(self.frames.observe(index, train=True), self.actor, config)
        loss, info = bc_loss(
            self.actor, observation, samples.imitation_actions[index], samples.imitation_valid[index],
            samples.keyframe[index], config.keyframe_weight,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(self.average.parameters)
        info["gradient"] = float(nn.utils.clip_grad_norm_(self.average.parameters, config.clip_norm or float("inf")))
        self.optimizer.step()
        self.average.update()
        if len(self.held_out_index) and (step + 1) % (10 * self.log_every) == 0:
            info["held_out_error"] = self._held_out()
        return info

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
        state = {f"model.{i}.{k}": v for i, m in enumerate(self.modules) for k, v in m.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.state().items()}
        return state | {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}

    def extra(self) -> dict[str, Any]:
        return {"updates": self.average.updates}

    def load(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Inverse of `tensors` and `extra`."""
        for i, module in enumerate(self.modules):
            module.load_state_dict(part(tensors, f"model.{i}."))
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
