"""Policy extraction of stage 2: actor updates by (weighted) imitation or along the critic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corft_core.learning import processes
from corft_core.learning.bc import bc_loss
from corft_core.learning.co_rft import actor_loss, advantage_weights
from corft_core.learning.config import DETERMINISTIC, TrainConfig
from corft_core.learning.critic_training import CriticTraining
from corft_core.learning.frames import CachedFrames
from corft_core.learning.optim import Averaged, cosine, draw_batch, load_optimizer, optimizer_tensors
from corft_core.learning.sft import noisy, part
from corft_core.policy.actor import Actor
from corft_core.policy.heads import masked_chunk_mean


class Extraction:
    """Actor, its optimiser and average, and the advantage weights of all N frames."""

    def __init__(
        self, actor: Actor, frames: CachedFrames, actor_index: Tensor, imitation_index: Tensor, config: TrainConfig
    ) -> None:
        self.actor, self.frames, self.config = actor, frames, config
        self.actor_index, self.imitation_index = actor_index, imitation_index
        self.settings = config.co_rft
        self.optimizer = torch.optim.AdamW(
            [p for p in actor.parameters() if p.requires_grad], self.settings.actor_lr,
            weight_decay=config.sft.weight_decay, fused=True,
        )
        self.average = Averaged([actor], config.sft.ema)
        self.updates = 0
        self.coupled_steps = self.settings.steps - self.settings.warmup
        """Critic steps during which a deterministic extraction moves the actor too."""
        delay = self.settings.policy_delay
        delayed = bool(delay) and self.settings.extraction in DETERMINISTIC
        self.total = self.coupled_steps // delay if delayed else self.settings.actor_steps
        self.weights: Tensor | None = None

    def due(self, coupled_step: int) -> int:
        """Actor updates that should be done after so many coupled critic steps (0 = none yet)."""
        delay = self.settings.policy_delay
        return coupled_step // delay if delay else coupled_step * self.total // max(1, self.coupled_steps)

    def imitate(self) -> dict[str, float]:
        """One step of plain imitation, stage 1 continued: the same frames and chunks."""
        index, samples = draw_batch(self.imitation_index, self.settings.batch), self.frames.samples
        return self._imitation_step(index, samples.imitation_actions, samples.imitation_valid, None)

    def regress(self, critic: CriticTraining) -> dict[str, float]:
        """One step of advantage-weighted regression over recorded chunks."""
        index, samples = draw_batch(self.actor_index, self.settings.batch), self.frames.samples
        weight = self._weights(critic)[index]
        info = self._imitation_step(index, samples.actions, samples.valid, weight)
        return info | {"largest_weight": float(weight.max())}

    def _imitation_step(
        self, index: Tensor, actions: Tensor, valid: Tensor, weight: Tensor | None
    ) -> dict[str, float]:
        observation = noisy(self.frames.observe(index), self.actor, self.config.sft)
        self.actor.train()
        loss, info = bc_loss(
            self.actor, observation, actions[index], valid[index], self.frames.samples.keyframe[index],
            self.config.sft.keyframe_weight, weight,
        )
        return info | {"gradient": self._update(loss)}

    def follow(self, critic: CriticTraining) -> dict[str, float]:
        """One step of a deterministic actor along the critic; see `actor_loss`."""
        index = draw_batch(self.actor_index, self.settings.batch)
        samples = self.frames.samples
        self.actor.train()
        chunk = self.actor.sample(self.frames.observe(index))
        error = masked_chunk_mean((chunk[:, 0] - samples.actions[index]).square(), samples.valid[index])
        q = critic.critic(critic.embedding[index], chunk)[:, :, 0].amin(0)
        weight = self._weights(critic)[index] if self.settings.extraction == "weighted_anchor" else None
        loss, info = actor_loss(q, error, self.settings.extraction, self.settings.q_weight, weight)
        return info | {"gradient": self._update(loss)}

    def _weights(self, critic: CriticTraining) -> Tensor:
        if self.weights is None:
            weights = torch.zeros(len(self.frames.samples), device=self.actor_index.device)
            rows = self.actor_index
            weights[rows] = advantage_weights(critic.advantages()[rows], self.settings.temperature)
            self.weights = weights
        return self.weights

    def _update(self, loss: Tensor) -> float:
        """One optimiser step; returns the gradient's norm."""
        self.optimizer.param_groups[0]["lr"] = self.settings.actor_lr * cosine(self.updates, self.total, 0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(self.average.parameters)
        norm = nn.utils.clip_grad_norm_(self.average.parameters, self.config.sft.clip_norm or float("inf"))
        self.optimizer.step()
        self.average.update()
        self.updates += 1
        return float(norm)

    def finish(self) -> None:
        """Keep the averaged actor."""
        if self.average.updates and self.average.decay:
            self.average.swap()
        self.actor.eval()

    def tensors(self) -> dict[str, Tensor]:
        state = {f"actor.{k}": v for k, v in self.actor.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.state().items()}
        state |= {f"actor_optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        return state | ({"weights": self.weights} if self.weights is not None else {})

    def extra(self) -> dict[str, Any]:
        return {"updates": self.average.updates, "actor_updates": self.updates}

    def load(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Inverse of `tensors` and `extra`."""
        self.actor.load_state_dict(part(tensors, "actor."))
        self.average.load(part(tensors, "average."), extra["updates"])
        load_optimizer(self.optimizer, part(tensors, "actor_optimizer."))
        self.updates = extra["actor_updates"]
        self.weights = tensors["weights"].to(self.actor_index.device) if "weights" in tensors else None
