"""What bench_train.py measures: the product's training steps on made-up data, and the same steps written naively."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corft_core.data.chunks import build_chunks
from corft_core.learning.co_rft import state_distribution
from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.learning.config import TrainConfig
from corft_core.learning.frames import CachedFrames, Samples
from corft_core.learning.sft import SFTStage
from corft_core.policy.actor import Actor, Critic, Observation, Shapes
from corft_core.policy.distribution import categorical_projection
from corft_core.policy.options import override

EPISODES, STEPS, CAMERAS, TOKENS, CHANNELS, TEXT, STATE, ACTIONS = 30, 80, 2, 256, 24, 384, 8, 8
BATCH = 64
Step = Callable[[int], Any]


class Setup:
    """30 episodes of 80 random frames with the shapes of the cell's tasks and the default backbone."""

    def __init__(self, device: str = "cpu", **settings: Any) -> None:
        self.config = override(TrainConfig, {}, {"sft.batch": BATCH, "co_rft.batch": BATCH} | settings)
        self.device = torch.device(device)
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        count = EPISODES * STEPS
        self.episode = np.repeat(np.arange(EPISODES), STEPS)
        self.done = np.arange(count) % STEPS == STEPS - 1
        self.action = rng.normal(size=(count, ACTIONS)).astype(np.float32)
        horizon, co_rft = self.config.policy.horizon, self.config.co_rft
        self.table = build_chunks(self.episode, self.action, self.done.astype(np.float32), self.done, horizon,
                                  co_rft.gamma, co_rft.reward_copies)
        actions, valid = torch.from_numpy(self.table.action).to(device), torch.from_numpy(self.table.valid).to(device)
        self.samples = Samples(
            state=torch.randn(count, STATE).to(device), actions=actions, valid=valid,
            keyframe=torch.randn(count, STATE - 1).to(device),
            text_index=torch.zeros(count, dtype=torch.long).to(device),
            instructions=("",), imitation_actions=actions, imitation_valid=valid,
        )
        tokens = torch.randn(count, CAMERAS, TOKENS, CHANNELS).half().to(device)
        self.frames = CachedFrames(self.samples, tokens, torch.randn(1, TEXT).to(device), self.samples.text_index)
        self.index = torch.arange(count).to(device)

    def actor(self) -> Actor:
        """A new actor."""
        made = Actor(Shapes(CAMERAS, (TOKENS, CHANNELS), TEXT, STATE, ACTIONS), self.config.policy).to(self.device)
        made.encoder.fit_inputs(self.frames.tokens[:256], self.frames.text)
        return made

    def critic(self, actor: Actor) -> Critic:
        """A new critic over the actor's encoder."""
        made = Critic(Shapes(CAMERAS, (TOKENS, CHANNELS), TEXT, STATE, ACTIONS), self.config.policy).to(self.device)
        made.encoder.load_state_dict(actor.encoder.state_dict())
        return made

    def imitation(self) -> SFTStage:
        """Stage 1 as the trainer runs it with a frozen backbone."""
        frozen: Any = SimpleNamespace(frozen=True)
        return SFTStage(self.actor(), frozen, self.frames, self.index, self.index[:0], self.config.sft, 0, 50)

    def reinforcement(self) -> CoRFTStage:
        """Stage 2 as the trainer runs it."""
        actor = self.actor()
        return CoRFTStage(actor, self.critic(actor), self.frames, self.table, self.index, self.config, self.device)


class Naive:
    """The same updates as most training scripts write them: a Python sampler that collates single samples, target
    networks evaluated on s_{t+1} … s_{t+h} in every step, fresh noise, optimisers as they come.

    `encode` turns the collated rows into tokens: the cache, or the backbone over the pictures in every step.
    """

    def __init__(self, setup: Setup, encode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.setup, self.settings = setup, setup.config.co_rft
        self.encode = encode or (lambda rows: setup.frames.tokens[rows].float())
        self.actor = setup.actor()
        self.critic = setup.critic(self.actor)
        self.targets = copy.deepcopy(self.critic), copy.deepcopy(self.actor)
        self.actor_optimizer = torch.optim.AdamW(self.actor.parameters(), setup.config.sft.lr)
        self.critic_optimizer = torch.optim.AdamW(self.critic.values.parameters(), self.settings.lr)
        self.average = [p.detach().clone() for p in self.actor.parameters()]

    def _sample(self, row: int) -> dict[str, Any]:
        setup, horizon, gamma = self.setup, self.setup.config.policy.horizon, self.settings.gamma
        last = int(setup.episode[row] + 1) * STEPS - 1
        steps = [min(row + k, last) for k in range(horizon)]
        after = [row + k + 1 for k in range(horizon)]
        return {
            "row": row, "state": setup.samples.state[row], "keyframe": setup.samples.keyframe[row],
            "actions": torch.stack([torch.from_numpy(setup.action[t]) for t in steps]),
            "valid": torch.tensor([row + k <= last for k in range(horizon)]),
            "next": torch.tensor([min(t, last) for t in after]),
            "known": torch.tensor([0.0 if t <= last else (1.0 - gamma) * gamma ** (last - row) for t in after]),
            "discount": torch.tensor([gamma ** (k + 1) if t <= last else 0.0 for k, t in enumerate(after)]),
            "return": torch.tensor(gamma ** (last - row)),
        }

    def _batch(self) -> tuple[dict[str, Tensor], Observation]:
        rows = np.random.default_rng().integers(EPISODES * STEPS, size=BATCH)
        batch = torch.utils.data.default_collate([self._sample(int(row)) for row in rows])
        return batch, self._observe(batch["row"])

    def _observe(self, rows: Tensor) -> Observation:
        setup = self.setup
        return Observation(self.encode(rows), setup.frames.text.expand(len(rows), -1), setup.samples.state[rows])

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    def imitation_step(self, weight: Tensor | None = None, drawn: tuple[dict[str, Tensor], Observation] | None = None
                       ) -> None:
        """One step of stage 1, or with weights (B,) of advantage-weighted regression."""
        batch, observation = drawn or self._batch()
        scale = self.setup.config.sft.token_noise * self.actor.encoder.token_scale[:, None]
        tokens = observation.tokens + scale * torch.randn_like(observation.tokens)
        observation = dataclasses.replace(observation, tokens=tokens)
        error, keyframe = self.actor.losses(observation, batch["actions"], batch["valid"], batch["keyframe"])
        loss = (error if weight is None else error * weight).mean() + keyframe.mean()
        self._update(self.actor_optimizer, loss, self.actor)
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.actor.parameters(), strict=True):
                mean.mul_(0.995).add_(parameter, alpha=0.005)

    def critic_step(self, drawn: tuple[dict[str, Tensor], Observation] | None = None) -> None:
        """One critic step with target networks over all following states."""
        batch, observation = drawn or self._batch()
        critic, actor = self.targets
        with torch.no_grad():
            following = self._observe(batch["next"].flatten())
            chunks = actor.sample(following, self.settings.policy_samples)
            logits = critic.values.logits(critic.embed(following), chunks)[..., -1, :]
            value = state_distribution(critic.values.values(logits), logits.softmax(-1), "mean")
            value = value.unflatten(0, batch["next"].shape)
            target = categorical_projection(batch["known"], batch["discount"], value, critic.values.support)
            policy = self.actor.sample(observation, self.settings.policy_samples)
            embedding = self.critic.embed(observation)
        logits = self.critic.values.logits(embedding, torch.cat([batch["actions"][:, None], policy], 1))
        q = self.critic.values.values(logits)
        error = -(target * logits[:, :, 0].log_softmax(-1)).sum(-1).mean()
        bounded = torch.maximum(q[:, :, 1:], batch["return"][None, :, None, None])
        loss = error + self.settings.alpha * (bounded.mean(2) - q[:, :, 0]).mean()
        self._update(self.critic_optimizer, loss, self.critic.values)
        with torch.no_grad():
            for copied, module in zip(self.targets, (self.critic, self.actor), strict=True):
                for mean, parameter in zip(copied.parameters(), module.parameters(), strict=True):
                    mean.mul_(0.995).add_(parameter, alpha=0.005)

    def actor_step(self) -> None:
        """Advantage-weighted regression with the advantages computed anew for the batch."""
        drawn = self._batch()
        batch, observation = drawn
        with torch.no_grad():
            policy = self.actor.sample(observation, self.settings.policy_samples)
            q = self.critic(self.critic.embed(observation), torch.cat([batch["actions"][:, None], policy], 1)).mean(0)
            advantage = (q[:, 0] - q[:, 1:].mean(1)).mean(1)
            weight = (self.settings.temperature * advantage / advantage.std()).clamp(-6.0, 3.0).exp()
        self.imitation_step(weight / weight.mean(), drawn)


def loading_step(setup: Setup, actor: Actor) -> Step:
    """What of a stage-1 step is data loading: drawing a batch and gathering its rows (without augmentation)."""
    from corft_core.learning.optim import draw_batch, seed_step

    def step(number: int) -> None:
        seed_step(0, 1, number)
        index = draw_batch(setup.index, BATCH)
        setup.frames.observe(index, train=True)
        samples = setup.samples
        _ = samples.actions[index], samples.valid[index], samples.keyframe[index]

    return step


__all__ = ["BATCH", "Naive", "Setup", "loading_step"]
