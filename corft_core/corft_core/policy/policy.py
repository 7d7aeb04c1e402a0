"""The policy as a robot or a simulator uses it: camera images, state, instruction → chunk of absolute actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corft_core.contract import Contract
from corft_core.data.history import History, Spacing
from corft_core.errors import CorftError
from corft_core.features import Features
from corft_core.policy.actor import Observation
from corft_core.policy.checkpoint import Bundle, load_checkpoint, move
from corft_core.policy.hub import policy_folder
from corft_core.policy.memory import Past
from corft_core.policy.runner import Runner
from corft_core.prediction import ChunkPrediction


class Policy:
    """A loaded checkpoint. Not thread-safe; use one per thread."""

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = move(bundle, device)
        self.device = torch.device(device)
        self.samples = bundle.config.selection.samples
        self._runner = Runner(self.bundle, self.device)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", robot: Features | None = None) -> Policy:
        """Read a checkpoint folder; `robot` (optional) must equal the contract it was trained with."""
        bundle = load_checkpoint(folder, robot)
        bundle.backbone.prepare_to_act()
        return cls(bundle, device)

    @classmethod
    def from_pretrained(cls, name: Path | str, device: str = "cpu", revision: str | None = None) -> Policy:
        """Read a checkpoint or exported policy from a folder, or from the hub by its id at `revision`."""
        return cls.load(policy_folder(name, revision), device)

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

    @property
    def spacing(self) -> Spacing:
        """How many observations a chunk depends on, the current one included, and their distance [ns]."""
        history = self.bundle.config.history
        return Spacing(history.steps, history.stride * round(1e9 / self.rate_hz))

    @property
    def remembers(self) -> bool:
        """Whether chunks depend on earlier observations, so that `act` needs a history."""
        return self.spacing.steps > 1

    def new_history(self) -> History:
        """The memory of a run that begins; the caller keeps it and gives it to every `act` of this run."""
        return History(self.spacing)

    @torch.inference_mode()
    def act(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        state: NDArray[np.floating],
        instructions: Sequence[str],
        generator: torch.Generator | None = None,
        plan: NDArray[np.floating] | None = None,
        frozen: int = 0,
        histories: Sequence[History] | None = None,
        stamps_ns: Sequence[int] | None = None,
    ) -> ChunkPrediction:
        """Predict a chunk for each of B observations.

        Args: images per camera of the features (none: {}), uint8 (B, H, W, 3); state (B, S) in the order of
        `features.state_names`; B instructions; generator (CPU) for the stochastic head's noise, None for torch's
        global one; plan (B, H, A), the absolute actions expected for the chunk's steps, of which the first `frozen`
        are executed whatever is predicted (real-time chunking); histories and stamps_ns, the runs' memories and the
        times of the observations: a policy that remembers needs both, any other ignores them.
        Raises CorftError when a camera or a history is missing or a shape differs.
        """
        state = np.asarray(state, np.float64)
        observation = self.observation(images, state, instructions, histories, stamps_ns)
        selection = replace(self.bundle.config.selection, samples=self.samples)
        chunk, value, steps = self._runner.choose(
            observation, self._encoded_plan(plan, state), frozen, selection, generator)
        actions = self.bundle.statistics.decode_actions(chunk, state)
        value, steps = value.astype(np.float64), steps.astype(np.float64)
        decoded = self.bundle.actor.head.decoded
        if decoded is None:
            return ChunkPrediction(actions, value, steps)
        return ChunkPrediction(actions, value, steps, decoded.forwards, float(decoded.kept.mean()),
                               float(decoded.fixed.mean()))

    @torch.inference_mode()
    def remember(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray[np.floating], instructions: Sequence[str],
        histories: Sequence[History], stamps_ns: Sequence[int],
    ) -> None:
        """Put B observations into their histories without asking for a chunk: those that later ones look back at."""
        if self.remembers:
            frames = self._frames(images, np.asarray(state, np.float64), instructions)
            for row, history in enumerate(histories):
                history.add(stamps_ns[row], instructions[row], _row(frames, row))

    def observation(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray[np.floating], instructions: Sequence[str],
        histories: Sequence[History] | None = None, stamps_ns: Sequence[int] | None = None,
    ) -> Observation:
        """What the experts see of B observations, see :meth:`act`. Their images are encoded, remembered ones are not
        encoded again."""
        frames = self._frames(images, state, instructions)
        if not self.remembers:
            return frames
        if histories is None or stamps_ns is None:
            raise CorftError(
                f"policy {self.policy_id} looks back at {self.spacing.steps} observations: give `act` a history per "
                "observation (policy.new_history() at the start of a run) and its time in stamps_ns."
            )
        rows: list[Observation] = []
        seen = np.empty((len(state), self.spacing.steps), bool)
        for row, history in enumerate(histories):
            found, seen[row] = history.look_back(stamps_ns[row], instructions[row], _row(frames, row))
            rows += found
        place = torch.arange(seen.size, device=self.device).view(seen.shape)
        return Observation(
            torch.cat([frame.tokens for frame in rows]), torch.cat([frame.text for frame in rows]),
            torch.cat([frame.state for frame in rows]), Past(place, self._runner.upload(seen)),
        )

    def _frames(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray[np.floating], instructions: Sequence[str]
    ) -> Observation:
        """The B observations alone, without what was before."""
        tokens, text = self._runner.see(self._checked(images, state, instructions), instructions)
        return Observation(tokens, text, self._runner.upload(self.bundle.statistics.encode_state(state)))

    def _encoded_plan(self, plan: NDArray[np.floating] | None, state: NDArray) -> Tensor | None:
        if plan is None:
            return None
        expected = (len(state), self.horizon, len(self.features.action_names))
        if plan.shape != expected:
            raise CorftError(f"the plan must be {expected}: one row a step of the chunk, got {plan.shape}.")
        return self._runner.upload(self.bundle.statistics.encode_actions(plan, state))

    def _checked(
        self, images: Mapping[str, NDArray[np.uint8]], state: NDArray, instructions: Sequence[str]
    ) -> list[NDArray[np.uint8]]:
        """The pictures in the order of the cameras. Raises CorftError when one is missing or a shape differs."""
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
        return [images[name] for name in names]


def _row(frames: Observation, row: int) -> Observation:
    return Observation(frames.tokens[row : row + 1], frames.text[row : row + 1], frames.state[row : row + 1])
