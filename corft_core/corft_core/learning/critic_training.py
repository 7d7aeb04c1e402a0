"""Training of the prefix critic of stage 2, and of a state value where the settings ask for one."""

from __future__ import annotations

import torch
from torch import Tensor

from corft_core.data.chunks import ChunkTable
from corft_core.learning import processes
from corft_core.learning.co_rft import (
    conservative_loss,
    distributional_td_loss,
    expectile_loss,
    masked_mean,
    policy_advantage,
    smoothed,
    td_loss,
)
from corft_core.learning.config import TrainConfig
from corft_core.learning.frames import CachedFrames
from corft_core.learning.loop import Diverged
from corft_core.learning.optim import draw_batch, load_optimizer, optimizer_tensors
from corft_core.learning.sft import part
from corft_core.learning.targets import (
    PrefixTable,
    StateValues,
    TargetNetworks,
    Targets,
    make_targets,
    policy_values,
)
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.critic import StateValue
from corft_core.policy.distribution import two_hot

PIECE = 512
ALARM_MARGIN = 1.0
"""Values further outside the feasible range than this many times its width stop the run [ours]."""
SATURATED, EARNED = 0.9, 0.5
"""A mean value above the first of these parts of the feasible range where mean returns stay below the second stops the
run too [ours]: what a distributional critic, which cannot leave the range, shows when its values run away."""
RANDOM_REACH = 2.0
"""Random chunks are uniform within this many deviations of the data [ours]."""


class CriticTraining:
    """Critic, state value, targets and their optimiser; tables over all N frames."""

    def __init__(
        self, actor: Actor, critic: Critic, frames: CachedFrames, table: ChunkTable, train_index: Tensor,
        config: TrainConfig, device: torch.device,
    ) -> None:
        self.actor, self.critic, self.frames = actor, critic, frames
        self.settings, self.train_index, self.device = config.co_rft, train_index, device
        settings = self.settings
        self.table = PrefixTable.build(table, critic.values.lengths, device)
        critic.values.set_range(self.table.low, self.table.high)
        critic.encoder.requires_grad_(settings.train_encoder)
        self.value_only = settings.advantage == "value"
        self.embedding = self._embed_all()
        wants_value = self.value_only or settings.value == "iql"
        self.state_value = StateValue(self.embedding.shape[1]).to(device) if wants_value else None
        moved = [p for p in critic.parameters() if p.requires_grad] if not self.value_only else []
        moved += list(self.state_value.parameters()) if self.state_value is not None else []
        self.parameters = moved
        self.optimizer = torch.optim.AdamW(moved, settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.networks = TargetNetworks(critic, actor, settings.tau) if settings.target_source == "network" else None
        self.pool = self._policy_pool()
        self.values = self._returns(self.table.mc_return)

    def _pieces(self) -> tuple[Tensor, ...]:
        return torch.arange(len(self.frames.samples), device=self.device).split(PIECE)

    @torch.no_grad()
    def _embed_all(self) -> Tensor:
        self.critic.eval()
        return torch.cat([self.critic.embed(self.frames.observe(index)) for index in self._pieces()])

    def _embed(self, critic: Critic, index: Tensor) -> Tensor:
        """(B, E) of these frames by this critic's encoder, from the table while encoders do not move."""
        return critic.embed(self.frames.observe(index)) if self.settings.train_encoder else self.embedding[index]

    @torch.no_grad()
    def _chunks(self, actor: Actor, index: Tensor) -> Tensor:
        """The policy's chunks (B, n, H, A) for these frames."""
        count = self.settings.policy_samples if actor.head.stochastic else 1
        return actor.sample(self.frames.observe(index), count)

    def _policy_pool(self) -> Tensor:
        """The policy's chunks for every frame, (N, n, H, A)."""
        return torch.cat([self._chunks(self.actor, index) for index in self._pieces()])

    @torch.no_grad()
    def table_values(self, chunks: Tensor) -> Tensor:
        """Prefix values of chunks (N, n, H, A) of every frame → (K, N, n, P)."""
        return torch.cat([self.critic(self.embedding[i], chunks[i]) for i in self._pieces()], 1)

    # State values and targets

    def _returns(self, value: Tensor) -> StateValues:
        critic = self.critic.values
        return StateValues(value, two_hot(value, critic.support) if critic.kind == "c51" else None)

    @torch.no_grad()
    def _state_values(self, critic: Critic, embedding: Tensor, chunks: Tensor) -> StateValues:
        if self.state_value is not None:
            values = self._returns(self.state_value(embedding))
        else:
            chunks = smoothed(chunks, self.settings.target_noise, self.settings.target_noise_clip)
            values = policy_values(critic.values, embedding, chunks, self.settings.bootstrap)
        if self.settings.clip_targets:
            values = StateValues(values.value.clamp(self.table.low, self.table.high), values.probabilities)
        return values

    def refresh(self) -> None:
        """Bring what is tabulated up to date: embeddings, the moving policy's chunks, state values."""
        if self.settings.train_encoder:
            self.embedding = self._embed_all()
        if not self.actor.head.stochastic:
            self.pool = self._policy_pool()
        if self.settings.value != "mc" and self.networks is None:
            pieces = [self._state_values(self.critic, self.embedding[i], self.pool[i]) for i in self._pieces()]
            self.values = StateValues.join(pieces)

    def _following(self, index: Tensor) -> StateValues:
        """Values (B, P) of the states that follow the prefixes of these frames."""
        following = self.table.following[index]
        if self.networks is None or self.settings.value == "mc":
            return self.values[following]
        distinct, place = following.unique(return_inverse=True)
        critic = self.networks.critic
        reader = critic if self.state_value is None else self.critic  # V has no copy: it reads what it was trained on
        with torch.no_grad():
            embedding = self._embed(reader, distinct)
            return self._state_values(critic, embedding, self._chunks(self.networks.actor, distinct))[place]

    def targets(self, index: Tensor) -> Targets:
        """Targets of the frames `index` (B,)."""
        shared = self.settings.targets == "shared"
        return make_targets(self.table, index, self._following(index), self.critic.values, shared)

    # Steps

    def step(self) -> dict[str, float]:
        """One update of critic and state value."""
        index = draw_batch(self.train_index, self.settings.batch)
        self.critic.train()
        train_encoder = self.settings.train_encoder and not self.value_only
        embedding = self.critic.embed(self.frames.observe(index)) if train_encoder else self.embedding[index]
        if self.value_only:
            target = self.targets(index).value.gather(1, self.table.longest[index, None])[:, 0]
            loss, info = self._value_loss(index, embedding, target)
        else:
            loss, info = self._critic_loss(index, embedding)
        info |= {"critic_loss": float(loss.detach()), "mc_return": float(self.table.mc_return[index].mean())}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(self.parameters)
        self.optimizer.step()
        if self.networks is not None:
            self.networks.update()
        return info

    def _critic_loss(self, index: Tensor, embedding: Tensor) -> tuple[Tensor, dict[str, float]]:
        settings, critic = self.settings, self.critic.values
        chunks = [self.frames.samples.actions[index][:, None]]
        if settings.alpha:
            chunks += self._conservative_chunks(index)
        logits = critic.logits(embedding, torch.cat(chunks, 1))
        q = critic.values(logits)
        q_data, targets = q[:, :, 0], self.targets(index)
        if targets.distribution is None:
            loss, info = td_loss(q_data, targets.value, targets.valid)
        else:
            loss, info = distributional_td_loss(logits[:, :, 0], targets.distribution, targets.valid)
        if settings.alpha:
            split = 1 + chunks[1].shape[1]
            extra, more = conservative_loss(
                q_data, q[:, :, 1:split], self.table.mc_return[index], targets.valid, settings.calibrated,
                settings.conservative, q[:, :, split:] if q.shape[2] > split else None, settings.bound,
            )
            loss, info = loss + settings.alpha * extra, info | more
            self.check_range("the policy's chunks", more["q_policy"])
        loss = loss * processes.balance(targets.valid)
        if self.state_value is not None:
            with torch.no_grad():
                judge = q_data
                if self.networks is not None:
                    judge = self.networks.critic(self._embed(self.networks.critic, index), chunks[0])[:, :, 0]
                best = judge.amin(0).gather(1, self.table.longest[index, None])[:, 0]
            extra, more = self._value_loss(index, embedding.detach(), best)
            loss, info = loss + extra, info | more
        recorded = q_data.detach()
        mean = float(masked_mean(recorded, targets.valid))
        self.check_range("recorded chunks", float(recorded.max()), mean)
        self.check_saturation(mean, float(self.table.mc_return[index].mean()))
        return loss, info

    def _conservative_chunks(self, index: Tensor) -> list[Tensor]:
        """The policy's chunks (B, n, H, A) and, in the log-sum-exp form, random ones."""
        settings = self.settings
        policy = self.pool[index] if self.networks is None else self._chunks(self.actor, index)
        if not self.actor.head.stochastic:
            policy = policy.expand(-1, settings.policy_samples, -1, -1)
            policy = policy + settings.policy_noise * torch.randn_like(policy)
        if settings.conservative != "logsumexp" or not settings.random_samples:
            return [policy]
        random = torch.rand((len(index), settings.random_samples, *policy.shape[2:]), device=policy.device)
        return [policy, (2.0 * random - 1.0) * RANDOM_REACH]

    def _value_loss(self, index: Tensor, embedding: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        assert self.state_value is not None
        expectile = self.settings.expectile if self.settings.value == "iql" else 0.5
        valid = self.table.valid[index].any(1)
        loss, info = expectile_loss(target, self.state_value(embedding), expectile, valid)
        return loss * processes.balance(valid), info

    def check_range(self, chunks: str, largest: float, smallest: float = 0.0) -> None:
        """Raise Diverged where values of `chunks` lie outside the feasible range by more than `ALARM_MARGIN`.

        Of the policy's chunks only large values count: a conservative term that is not calibrated pushes theirs down
        without end, which is no fault.
        """
        low, high = self.table.low, self.table.high
        margin = ALARM_MARGIN * (high - low)
        if largest > high + margin:
            claim, bound = largest, f"largest feasible return is {high:.2f}"
        elif smallest < low - margin:
            claim, bound = smallest, f"smallest feasible return is {low:.2f}"
        else:
            return
        raise Diverged(
            f"the critic claims a value of {claim:.2f} for {chunks}, the {bound}: values diverge. Lower co_rft.lr, "
            "co_rft.actor_lr or co_rft.gamma, or raise co_rft.alpha."
        )

    def check_saturation(self, mean: float, mean_return: float) -> None:
        """Raise Diverged where a distributional critic's mean value is at the top of the range and returns are not."""
        low, width = self.table.low, self.table.high - self.table.low
        if not (self.critic.values.distributional and mean > low + SATURATED * width
                and mean_return < low + EARNED * width):
            return
        raise Diverged(
            f"the critic's mean value of recorded chunks is {mean:.2f}, at the top of its range (largest feasible "
            f"return {self.table.high:.2f}), where their mean return is {mean_return:.2f}: values run away. Lower "
            "co_rft.lr or co_rft.gamma, or raise co_rft.alpha."
        )

    # Use and saving

    def finish(self) -> None:
        """Bring `table_values` up to date with the finished critic."""
        self.critic.eval()
        if self.settings.train_encoder:
            self.embedding = self._embed_all()

    @torch.no_grad()
    def advantages(self) -> Tensor:
        """Advantage of every frame's recorded chunk, (N,); see `co_rft.advantage`."""
        table, longest = self.table, self.table.longest[:, None]
        if self.state_value is None:
            data = self.table_values(self.frames.samples.actions[:, None])[:, :, 0]
            return policy_advantage(data, self.table_values(self.pool), table.recorded)
        value = self.state_value(self.embedding)
        if not self.value_only:
            following = self.table_values(self.frames.samples.actions[:, None])[:, :, 0].amin(0)
        elif self.settings.value == "mc":
            return table.mc_return - value
        else:
            following = table.known_return + table.discount * value.clamp(table.low, table.high)[table.following]
        return torch.where(table.valid.any(1), following.gather(1, longest)[:, 0] - value, 0.0)

    def trained(self) -> dict[str, Tensor]:
        """What was learned: with equal `critic_settings` and stage 1 it serves another run."""
        state = {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        if self.state_value is not None:
            state |= {f"state_value.{k}": v for k, v in self.state_value.state_dict().items()}
        return state

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `trained`."""
        self.critic.load_state_dict(part(tensors, "critic."))
        if self.state_value is not None:
            self.state_value.load_state_dict(part(tensors, "state_value."))

    def tensors(self) -> dict[str, Tensor]:
        state = self.trained() | {"values": self.values.value, "pool": self.pool, "embedding": self.embedding}
        if self.values.probabilities is not None:
            state["probabilities"] = self.values.probabilities
        if self.networks is not None:
            state |= {f"networks.{k}": v for k, v in self.networks.tensors().items()}
        return state | {f"critic_optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.take(tensors)
        load_optimizer(self.optimizer, part(tensors, "critic_optimizer."))
        probabilities = tensors.get("probabilities")
        self.values = StateValues(
            tensors["values"].to(self.device), None if probabilities is None else probabilities.to(self.device)
        )
        self.pool, self.embedding = tensors["pool"].to(self.device), tensors["embedding"].to(self.device)
        if self.networks is not None:
            self.networks.load(part(tensors, "networks."))
