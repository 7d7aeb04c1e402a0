"""Stage 2, CO-RFT: train the critic (critic_training.py), and meanwhile or afterwards the policy (extraction.py)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from corft_core.data.chunks import ChunkTable
from corft_core.learning.config import DETERMINISTIC, TrainConfig
from corft_core.learning.critic_training import CriticTraining
from corft_core.learning.extraction import Extraction
from corft_core.learning.frames import CachedFrames
from corft_core.learning.optim import seed_step
from corft_core.policy.actor import Actor, Critic

STAGE_NUMBER = 2
AFTER_CRITIC = ("awr", "imitation")
"""Extractions that move the actor when the critic is finished; the deterministic ones move it meanwhile."""
CRITIC_IRRELEVANT = (
    "warmup", "extraction", "successes_only", "actor_steps", "policy_delay", "actor_lr", "temperature", "q_weight",
)


def critic_settings(config: TrainConfig) -> dict[str, Any] | None:
    """All settings that the trained critic depends on, or None where it cannot be shared.

    Runs on the same data with equal answers train the same critic: one may take the other's. A deterministic
    extraction moves the actor while the critic learns, and imitation has no critic: their answer is None.
    """
    if config.co_rft.extraction not in ("awr", "best_of_n"):
        return None
    everything = asdict(config)
    policy, co_rft = dict(everything["policy"]), dict(everything["co_rft"])
    policy.pop("selection")
    for name in CRITIC_IRRELEVANT:
        co_rft.pop(name)
    return {"seed": config.seed, "held_out": config.held_out, "policy": policy, "sft": everything["sft"],
            "co_rft": co_rft}


class CoRFTStage:
    """`train_index`: frames of the critic's data; `actor_index`: those that move the policy; `imitation_index`: those
    that stage 1 imitated.

    Steps 0 … critic_steps − 1 move the critic (deterministic extractions after the warm-up also the actor); awr
    and imitation then take `actor_steps` steps with the actor.
    """

    name = "co_rft"

    def __init__(
        self, actor: Actor, critic: Critic, frames: CachedFrames, table: ChunkTable, train_index: Tensor,
        config: TrainConfig, device: torch.device, actor_index: Tensor | None = None,
        imitation_index: Tensor | None = None,
    ) -> None:
        self.frames, self.config, self.settings = frames, config, config.co_rft
        extraction = self.settings.extraction
        self.critic_steps = 0 if extraction == "imitation" else self.settings.steps
        self.steps = self.critic_steps + (self.settings.actor_steps if extraction in AFTER_CRITIC else 0)
        seed_step(config.seed, STAGE_NUMBER, -1)
        # The tables over all frames are costly; imitation looks nothing up in them.
        self._critic = None if extraction == "imitation" else CriticTraining(
            actor, critic, frames, table, train_index, config, device
        )
        self.extraction = Extraction(
            actor, frames, train_index if actor_index is None else actor_index,
            train_index if imitation_index is None else imitation_index, config,
        )

    @property
    def critic(self) -> CriticTraining:
        """The critic's training; imitation has none."""
        assert self._critic is not None
        return self._critic

    @property
    def run_time_critic(self) -> Critic | None:
        """The critic that ranks chunks at run time; None where no action critic was trained."""
        unranked = self.critic_steps == 0 or self.critic.value_only
        return None if unranked else self.critic.critic

    def table_values(self, chunks: Tensor) -> Tensor:
        """Prefix values of chunks (N, n, H, A) of every frame → (K, N, n, P)."""
        return self.critic.table_values(chunks)

    def phase(self, step: int) -> tuple[str, int]:
        return ("critic", 0) if step < self.critic_steps else ("actor", self.critic_steps)

    def step(self, step: int) -> dict[str, float]:
        seed_step(self.config.seed, STAGE_NUMBER, step)
        settings = self.settings
        if step >= self.critic_steps:
            if settings.extraction == "imitation":
                return self.extraction.imitate()
            if step == self.critic_steps:
                self.critic.refresh()  # advantages of the finished critic
                self.extraction.weights = None
            return self.extraction.regress(self.critic)
        if step and step % settings.refresh == 0:
            self.critic.refresh()
            self.extraction.weights = None
        info = self.critic.step()
        if settings.extraction in DETERMINISTIC and step >= settings.warmup:
            due = self.extraction.due(step + 1 - settings.warmup)
            while self.extraction.updates < due:
                info |= self.extraction.follow(self.critic)
                self.critic.check_range("the actor's chunks", info["actor_q"])
        return info

    def finish(self) -> None:
        """Keep the averaged actor."""
        self.extraction.finish()
        if self._critic is not None:
            self._critic.finish()

    # Saving

    def trained_critic(self) -> dict[str, Tensor]:
        """The finished critic, for other runs with equal `critic_settings`."""
        return self.critic.trained()

    def take_critic(self, tensors: dict[str, Tensor]) -> int:
        """Take another run's `trained_critic`; returns the step from which this run is to go on."""
        self.critic.take(tensors)
        return self.critic_steps

    def tensors(self) -> dict[str, Tensor]:
        return (self._critic.tensors() if self._critic is not None else {}) | self.extraction.tensors()

    def extra(self) -> dict[str, Any]:
        return self.extraction.extra()

    def load(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Inverse of `tensors` and `extra`."""
        self.extraction.load(tensors, extra)
        if self._critic is not None:
            self._critic.load(tensors)
