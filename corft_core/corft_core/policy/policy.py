"""The policy as a robot or a simulator uses it: camera images, state, instruction → chunk of absolute actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.features import Features
from corft_core.policy.actor import Observation
from corft_core.policy.checkpoint import Bundle, load_checkpoint, move
from corft_core.policy.selection import choose_chunk


@dataclass(frozen=True)
class ChunkPrediction:
    """What the policy would do from each of B observations.

    `actions` float64 (B, H, A): absolute, as the features' action names say; step j is to be reached (j + 1) / rate_hz
    after the observation. `value` float64 (B,): the critic's value, NaN without a critic. `steps` float64 (B,): how
    many steps of the chunk to execute, None or NaN = the caller's replan interval.
    """

    actions: NDArray[np.float64]
    value: NDArray[np.float64]
    steps: NDArray[np.float64] | None = None


class Policy:
    """A loaded checkpoint. Not thread-safe; use one per thread."""

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = move(bundle, device)
        self.device = torch.device(device)
        self.samples = bundle.config.selection.samples
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", robot: Features | None = None) -> Policy:
        """Read a checkpoint folder; `robot` (optional) must equal the contract it was trained with."""
        return cls(load_checkpoint(folder, robot), device)

    @property
    def features(self) -> Features:
        """What images, states and actions mean."""
        return self.bundle.contract

    @property
    def contract(self) -> Contract:
        """The robot's contract. Raises CorftError when the policy belongs to a benchmark without a robot."""
        if not isinstance(self.bundle.contract, Contract):
            raise CorftError(f"policy {self.policy_id} was trained on a benchmark's states, it drives no robot.")
        return self.bundle.contract

    @property
    def horizon(self) -> int:
        """Steps of a chunk."""
        return self.bundle.config.horizon

    @property
    def inpaints(self) -> bool:
        """Whether the chunk goes on from the frozen steps of a plan."""
        return self.bundle.actor.head.inpaints

    @property
    def rate_hz(self) -> int:
        return self.features.rate_hz

    @property
    def policy_id(self) -> str:
        return self.bundle.policy_id

    @property
    def instructions(self) -> tuple[str, ...]:
        """Instructions the policy was trained with; others are understood as far as the text model carries."""
        return self.bundle.instructions

    @torch.inference_mode()
    def act(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        state: NDArray[np.floating],
        instructions: Sequence[str],
        generator: torch.Generator | None = None,
        plan: NDArray[np.floating] | None = None,
        frozen: int = 0,
    ) -> ChunkPrediction:
        """Predict a chunk for each of B observations.

        Args: images per camera of the features (none: {}), uint8 (B, H, W, 3); state (B, S) in the order of
        `features.state_names`; B instructions; generator (CPU) for the stochastic head's noise, None for torch's
        global one; plan (B, H, A), the absolute actions expected for the chunk's steps, of which the first `frozen`
        are executed whatever is predicted (real-time chunking).
        Raises CorftError when a camera is missing or a shape differs.
        """
        state = np.asarray(state, np.float64)
        observation = self.observation(images, state, instructions)
        if generator is not None and generator.device != self.device:
            generator = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        selection = replace(self.bundle.config.selection, samples=self.samples)
        choice = choose_chunk(
            self.bundle.actor, self.bundle.critic, observation, selection, generator, self._encoded_plan(plan, state),
            frozen,
        )
        actions = self.bundle.statistics.decode_actions(choice.chunk.cpu().numpy(), state)
        return ChunkPrediction(actions, choice.value.double().cpu().numpy(), choice.steps.double().cpu().numpy())

    def observation(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray[np.floating], instructions: Sequence[str]
    ) -> Observation:
        """What the experts see of B observations, see :meth:`act`."""
        tokens, text = self._encode(self._stack(images, state, instructions), list(instructions))
        return Observation(tokens, text, torch.from_numpy(self.bundle.statistics.encode_state(state)).to(self.device))

    def _encoded_plan(self, plan: NDArray[np.floating] | None, state: NDArray) -> Tensor | None:
        if plan is None:
            return None
        expected = (len(state), self.horizon, len(self.features.action_names))
        if plan.shape != expected:
            raise CorftError(f"the plan must be {expected}: one row a step of the chunk, got {plan.shape}.")
        return torch.from_numpy(self.bundle.statistics.encode_actions(plan, state)).to(self.device)

    def _stack(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray, instructions: Sequence[str]
    ) -> Tensor:
        names = [camera.name for camera in self.features.cameras]
        if set(images) != set(names):
            raise CorftError(f"the policy sees the cameras {names}, got {sorted(images)}.")
        count, width = len(instructions), len(self.features.state_names)
        if state.shape != (count, width):
            raise CorftError(f"state must be ({count}, {width}): one row per instruction, got {state.shape}.")
        for camera in self.features.cameras:
            expected = (count, *camera.size, 3)
            if images[camera.name].shape != expected:
                raise CorftError(f"images of {camera.name} must be {expected}, got {images[camera.name].shape}.")
        if not names:
            return torch.zeros((count, 0, 0, 0, 3), dtype=torch.uint8, device=self.device)
        return torch.from_numpy(np.stack([images[name] for name in names], 1)).to(self.device)

    def _encode(self, images: Tensor, instructions: list[str]) -> tuple[Tensor, Tensor]:
        backbone = self.bundle.backbone
        if not backbone.separable:
            return backbone.encode(images, instructions)
        unseen = sorted(set(instructions) - set(self._texts))
        if len(self._texts) + len(unseen) > 1000:
            self._texts.clear()
            unseen = sorted(set(instructions))
        if unseen:
            self._texts |= dict(zip(unseen, backbone.encode_text(unseen), strict=True))
        return backbone.encode_images(images), torch.stack([self._texts[text] for text in instructions])
