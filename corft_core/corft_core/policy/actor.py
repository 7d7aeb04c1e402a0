"""The two experts over the backbone's tokens: actor (observation → chunk) and critic (observation, chunk → values)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corft_core.policy.config import PolicyConfig
from corft_core.policy.critic import make_critic
from corft_core.policy.heads import make_head
from corft_core.policy.memory import Past
from corft_core.policy.observation import ObservationEncoder


@dataclass(frozen=True)
class Observation:
    """What the experts see: tokens (M, cameras, N, C), text (M, L), normalised state (M, S) of M frames.

    Without memory these are B = M observations; with it `past` says which frames each of B observations consists of.
    """

    tokens: Tensor
    text: Tensor
    state: Tensor
    past: Past | None = None


@dataclass(frozen=True)
class Shapes:
    """Sizes that backbone and contract dictate."""

    cameras: int
    vision_shape: tuple[int, int]
    text_dim: int
    state_dim: int
    action_dim: int
    gripper: bool = True
    """Whether one of the state's values is a gripper opening."""

    @property
    def keyframe_dim(self) -> int:
        """State values without the gripper opening."""
        return self.state_dim - self.gripper


class Actor(nn.Module):
    """Observation encoder and action expert."""

    def __init__(self, shapes: Shapes, config: PolicyConfig) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(
            shapes.cameras, shapes.vision_shape, shapes.text_dim, shapes.state_dim, config.encoder, config.history
        )
        self.head = make_head(config.encoder.embedding, config.horizon, shapes.action_dim, config.head)
        self.keyframe = nn.Linear(config.encoder.embedding, shapes.keyframe_dim)

    def embed(self, observation: Observation) -> Tensor:
        """(B, E)."""
        return self.encoder(observation.tokens, observation.text, observation.state, observation.past)

    def loss(self, observation: Observation, actions: Tensor, valid: Tensor) -> Tensor:
        """Imitation loss per sample (B,) towards normalised chunks (B, H, A)."""
        return self.head.loss(self.embed(observation), actions, valid)

    def losses(
        self, observation: Observation, actions: Tensor, valid: Tensor, keyframe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Imitation loss and error of the predicted keyframe (B, keyframe_dim), both per sample (B,).

        The keyframe is the state when the gripper command changes next: every frame of an approach then teaches
        where the object is, not only the frames near it. Nothing at run time depends on it.
        """
        embedding = self.embed(observation)
        error = nn.functional.smooth_l1_loss(self.keyframe(embedding), keyframe, reduction="none").mean(-1)
        return self.head.loss(embedding, actions, valid), error

    def sample(self, observation: Observation, samples: int = 1, generator: torch.Generator | None = None,
               plan: Tensor | None = None, frozen: int = 0, noise_scale: float = 1.0) -> Tensor:
        """Normalised chunks (B, samples, H, A); ``plan`` (B, H, A), ``frozen``, ``noise_scale``: see the heads."""
        return self.head.sample(self.embed(observation), samples, generator, plan, frozen, noise_scale)


class Critic(nn.Module):
    """Observation encoder of its own and the prefix critic expert."""

    def __init__(self, shapes: Shapes, config: PolicyConfig) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(
            shapes.cameras, shapes.vision_shape, shapes.text_dim, shapes.state_dim, config.encoder, config.history
        )
        self.values = make_critic(config.encoder.embedding, config.horizon, shapes.action_dim, config.critic)

    def embed(self, observation: Observation) -> Tensor:
        """(B, E)."""
        return self.encoder(observation.tokens, observation.text, observation.state, observation.past)

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        """Prefix values (ensemble, B, n, P) of n chunks (B, n, H, A) per embedded observation (B, E)."""
        return self.values(embedding, actions)
