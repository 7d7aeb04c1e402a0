"""Stage 2: critic with tabulated targets, then (or meanwhile) policy extraction.

Some tens of demonstrations fit a table: the value of every recorded state is refreshed now and then, and a step's
targets are looked up. That replaces target networks and saves the actor's and critic's passes over s_{t+1..t+h} in
every step. Targets are clipped to the feasible range of returns; values that leave it raise the alarm.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corft_core.data.chunks import ChunkTable
from corft_core.learning.bc import bc_loss
from corft_core.learning.co_rft import actor_loss, advantage_weights, conservative_loss, shared_targets, td_loss
from corft_core.learning.config import DETERMINISTIC, TrainConfig
from corft_core.learning.frames import CachedFrames
from corft_core.learning.loop import Diverged
from corft_core.learning.optim import Averaged, cosine, load_optimizer, optimizer_tensors, seed_step
from corft_core.learning.sft import noisy, part
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.critic import rank_chunks

STAGE_NUMBER = 2
PIECE = 512
ALARM_MARGIN = 1.0
"""Values further outside the feasible range than this many times its width stop the run [ours]."""


class CoRFTStage:
    """See the module's docstring. Steps 0 … co_rft.steps − 1 move the critic (deterministic extractions also the
    actor after the warm-up); the awr extraction adds `actor_steps` steps for the actor behind them."""

    name = "co_rft"

    def __init__(
        self, actor: Actor, critic: Critic, frames: CachedFrames, table: ChunkTable, train_index: Tensor,
        config: TrainConfig, device: torch.device,
    ) -> None:
        self.actor, self.critic, self.frames, self.config = actor, critic, frames, config
        self.settings = config.co_rft
        self.table, self.train_index, self.device = table, train_index, device
        self.critic_steps = self.settings.steps
        self.steps = self.critic_steps + (self.settings.actor_steps if self.settings.extraction == "awr" else 0)
        critic.encoder.requires_grad_(self.settings.train_encoder)
        moved = [p for p in critic.parameters() if p.requires_grad]
        self.critic_optimizer = torch.optim.AdamW(moved, self.settings.lr, weight_decay=self.settings.weight_decay)
        self.actor_optimizer = torch.optim.AdamW(
            [p for p in actor.parameters() if p.requires_grad], self.settings.actor_lr,
            weight_decay=config.sft.weight_decay,
        )
        self.average = Averaged([actor], config.sft.ema)
        self.behaviour = copy.deepcopy(actor).requires_grad_(False).eval()
        self.actor_updates = 0
        self.low, self.high = table.value_range
        self.mc_return = torch.from_numpy(table.mc_return).float().to(device)
        self.target_valid = torch.from_numpy(table.target_valid).to(device)
        self.values = table.mc_return.copy()
        self._set_targets()
        seed_step(config.seed, STAGE_NUMBER, -1)
        self.pool = self._policy_pool(self.behaviour)
        self.embedding = self._embed_all()
        self.weights: Tensor | None = None

    # Tables over all frames

    def _pieces(self) -> tuple[Tensor, ...]:
        return torch.arange(len(self.frames.samples), device=self.device).split(PIECE)

    @torch.no_grad()
    def _policy_pool(self, actor: Actor) -> Tensor:
        """Chunks of the policy for every frame, (N, n, H, A)."""
        count = self.settings.policy_samples if actor.head.stochastic else 1
        return torch.cat([actor.sample(self.frames.observe(index), count) for index in self._pieces()])

    @torch.no_grad()
    def _embed_all(self) -> Tensor:
        self.critic.eval()
        return torch.cat([self.critic.embed(self.frames.observe(index)) for index in self._pieces()])

    @torch.no_grad()
    def table_values(self, chunks: Tensor) -> Tensor:
        """Prefix values of chunks (N, n, H, A) of every frame → (K, N, n, H)."""
        return torch.cat([self.critic(self.embedding[i], chunks[i]) for i in self._pieces()], 1)

    def _refresh(self) -> None:
        """State values V(s) = Q_h(s, pi(s)), smallest critic, clipped to feasible returns; then all targets."""
        if self.settings.train_encoder:
            self.embedding = self._embed_all()
        if not self.actor.head.stochastic:
            self.pool = self._policy_pool(self.actor)
        score = rank_chunks(self.table_values(self.pool), "last")
        value = score.mean(1) if self.settings.bootstrap == "mean" else score.amax(1)
        self.values = value.clamp(self.low, self.high).double().cpu().numpy()
        self._set_targets()

    def _set_targets(self) -> None:
        self.targets = torch.from_numpy(self.table.targets(self.values)).float().to(self.device)

    def advantages(self) -> Tensor:
        """mean_i [Q_i(s, A_D) − E_{A~pi} Q_i(s, A)] over recorded steps, mean over critics, (N,)."""
        samples = self.frames.samples
        data = self.table_values(samples.actions[:, None])[:, :, 0].mean(0)
        policy = self.table_values(self.pool).mean((0, 2))
        valid = samples.valid.float()
        return ((data - policy) * valid).sum(1) / valid.sum(1).clamp_min(1.0)

    def _advantage_weights(self) -> Tensor:
        if self.weights is None:
            weights = torch.zeros(len(self.frames.samples), device=self.device)
            train = self.train_index
            weights[train] = advantage_weights(self.advantages()[train], self.settings.temperature)
            self.weights = weights
        return self.weights

    # Steps

    def phase(self, step: int) -> tuple[str, int]:
        return ("critic", 0) if step < self.critic_steps else ("actor", self.critic_steps)

    def step(self, step: int) -> dict[str, float]:
        seed_step(self.config.seed, STAGE_NUMBER, step)
        settings = self.settings
        if step >= self.critic_steps:
            return self._weighted_imitation_step(step - self.critic_steps)
        if step and step % settings.refresh == 0:
            self._refresh()
            self.weights = None
        info = self._critic_step()
        if settings.extraction in DETERMINISTIC and step >= settings.warmup:
            due = (step + 1 - settings.warmup) * settings.actor_steps // (self.critic_steps - settings.warmup)
            while self.actor_updates < due:
                info |= self._actor_step()
        return info

    def _batch(self) -> Tensor:
        picked = torch.randint(len(self.train_index), (self.settings.batch,))
        return self.train_index[picked.to(self.device)]

    def _critic_step(self) -> dict[str, float]:
        settings, samples = self.settings, self.frames.samples
        index = self._batch()
        self.critic.train()
        embedding = self.critic.embed(self.frames.observe(index)) if settings.train_encoder else self.embedding[index]
        policy = self.pool[index]
        if not self.actor.head.stochastic:
            policy = policy.expand(-1, settings.policy_samples, -1, -1)
            policy = policy + settings.policy_noise * torch.randn_like(policy)
        chunks = [samples.actions[index][:, None], policy]
        if settings.conservative == "logsumexp":
            chunks.append(torch.rand_like(policy) * 4.0 - 2.0)  # random chunks cover about two deviations
        q = self.critic(embedding, torch.cat(chunks, 1))
        count = policy.shape[1]
        q_data, q_policy, q_random = q[:, :, 0], q[:, :, 1 : 1 + count], q[:, :, 1 + count :]
        targets, valid = self.targets[index], self.target_valid[index]
        if settings.targets == "shared":
            targets, valid = shared_targets(targets, valid)
        loss, info = td_loss(q_data, targets, valid)
        if settings.alpha:
            extra, more = conservative_loss(
                q_data, q_policy, self.mc_return[index], valid, settings.calibrated, settings.conservative,
                q_random if q_random.shape[2] else None,
            )
            loss, info = loss + settings.alpha * extra, info | more
        info |= {"critic_loss": float(loss.detach()), "mc_return": float(self.mc_return[index].mean())}
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        self._check_range(float(q_data.detach().max()))
        return info

    def _check_range(self, largest: float) -> None:
        limit = self.high + ALARM_MARGIN * (self.high - self.low)
        if largest > limit:
            raise Diverged(
                f"the critic claims a value of {largest:.2f}, the largest feasible return is {self.high:.2f}: values "
                "diverge. Lower co_rft.lr or co_rft.gamma, or raise co_rft.alpha."
            )

    def _actor_step(self) -> dict[str, float]:
        settings, samples = self.settings, self.frames.samples
        index = self._batch()
        self.actor.train()
        self._schedule_actor()
        chunk = self.actor.sample(self.frames.observe(index))
        valid = samples.valid[index]
        error = ((chunk[:, 0] - samples.actions[index]).square().mean(-1) * valid).sum(1) / valid.sum(1).clamp_min(1)
        q = self.critic(self.embedding[index], chunk)[:, :, 0].amin(0)
        weight = self._advantage_weights()[index] if settings.extraction == "weighted_anchor" else None
        loss, info = actor_loss(q, error, settings.extraction, settings.q_weight, weight)
        self._update_actor(loss)
        return info

    def _weighted_imitation_step(self, step: int) -> dict[str, float]:
        samples = self.frames.samples
        index = self._batch()
        self.actor.train()
        self._schedule_actor()
        weight = self._advantage_weights()[index]
        loss, info = bc_loss(
            self.actor, noisy(self.frames.observe(index), self.actor, self.config.sft), samples.actions[index],
            samples.valid[index], samples.keyframe[index], self.config.sft.keyframe_weight, weight,
        )
        self._update_actor(loss)
        return info | {"largest_weight": float(weight.max())}

    def _schedule_actor(self) -> None:
        total = self.settings.actor_steps
        self.actor_optimizer.param_groups[0]["lr"] = self.settings.actor_lr * cosine(self.actor_updates, total, 0)

    def _update_actor(self, loss: Tensor) -> None:
        self.actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.average.parameters, self.config.sft.clip_norm or float("inf"))
        self.actor_optimizer.step()
        self.average.update()
        self.actor_updates += 1

    def finish(self) -> None:
        """Keep the averaged actor."""
        if self.average.updates and self.average.decay:
            self.average.swap()
        self.actor.eval()
        self.critic.eval()

    # Saving

    def tensors(self) -> dict[str, Tensor]:
        state = {f"actor.{k}": v for k, v in self.actor.state_dict().items()}
        state |= {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.state().items()}
        state |= {f"actor_optimizer.{k}": v for k, v in optimizer_tensors(self.actor_optimizer).items()}
        state |= {f"critic_optimizer.{k}": v for k, v in optimizer_tensors(self.critic_optimizer).items()}
        state |= {"values": torch.from_numpy(np.asarray(self.values)), "pool": self.pool, "embedding": self.embedding}
        return state | ({"weights": self.weights} if self.weights is not None else {})

    def extra(self) -> dict[str, Any]:
        return {"updates": self.average.updates, "actor_updates": self.actor_updates}

    def load(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Inverse of `tensors` and `extra`."""
        self.actor.load_state_dict(part(tensors, "actor."))
        self.critic.load_state_dict(part(tensors, "critic."))
        self.average.load(part(tensors, "average."), extra["updates"])
        load_optimizer(self.actor_optimizer, part(tensors, "actor_optimizer."))
        load_optimizer(self.critic_optimizer, part(tensors, "critic_optimizer."))
        self.actor_updates = extra["actor_updates"]
        self.values = tensors["values"].numpy()
        self._set_targets()
        self.pool, self.embedding = tensors["pool"].to(self.device), tensors["embedding"].to(self.device)
        self.weights = tensors["weights"].to(self.device) if "weights" in tensors else None
