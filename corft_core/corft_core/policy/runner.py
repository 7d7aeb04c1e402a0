"""The networks of a policy on their device: pictures and instructions → observation, observation → chunk.

On a GPU both are replayed as CUDA graphs for one observation (a robot's), with shapes that never change; pictures and
results pass through pinned memory, and the host waits once, for the chunk. Token decoders decide by what they computed
and are no graph as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corft_core.policy.actor import Observation
from corft_core.policy.checkpoint import Bundle
from corft_core.policy.config import SelectionConfig
from corft_core.policy.graphs import Graphed
from corft_core.policy.memory import Past
from corft_core.policy.selection import choose_chunk

MOST_TEXTS = 1000


class Runner:
    """Use it under ``torch.inference_mode()``."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._bundle, self._device = bundle, device
        self._on_gpu = device.type == "cuda"
        self._noise = torch.Generator(device)
        self._texts: dict[str, Tensor] = {}
        self._see, self._choose = Graphed(self._seen, device), Graphed(self._chosen, device, self._noise)

    def see(self, cameras: Sequence[NDArray[np.uint8]], instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Pictures (B, H, W, 3) of every camera and B instructions → tokens (B, cameras, N, C), text (B, L).

        The cameras are encoded as one batch; what an instruction alone decides is kept for the next time.
        """
        backbone = self._bundle.backbone
        images = self._stack(cameras, len(instructions))
        graph = self._on_gpu and len(instructions) == 1 and len(cameras) > 0
        run = self._see if graph else self._seen
        if backbone.separable:
            tokens, = run(images)
            return tokens.clone() if graph else tokens, self._text(instructions)
        tokens, text = run(images, *backbone.prompts(instructions))  # type: ignore[operator]
        return (tokens.clone(), text.clone()) if graph else (tokens, text)

    def choose(self, observation: Observation, plan: Tensor | None, frozen: int, selection: SelectionConfig,
               generator: torch.Generator | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Normalised chunks (B, H, A), their values (B,) and steps to execute (B,), see :class:`.selection.Choice`."""
        past = observation.past
        inputs = (observation.tokens, observation.text, observation.state, plan,
                  None if past is None else past.frame, None if past is None else past.seen)
        if not self._on_gpu:
            return self._download(self._chosen(*inputs, selection=selection, frozen=frozen, generator=generator))
        # A generator of the processor gives the GPU's its seed.
        self._noise.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        batch = len(observation.state) if past is None else len(past.seen)
        graph = batch == 1 and self._bundle.config.head.kind != "tokens"
        if graph:
            return self._download(self._choose(*inputs, selection=selection, frozen=frozen))
        return self._download(self._chosen(*inputs, selection=selection, frozen=frozen))

    def upload(self, values: NDArray[Any]) -> Tensor:
        """An array on the device, without waiting for it."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else tensor

    def _seen(self, images: Tensor, *prompts: Tensor) -> tuple[Tensor, ...]:
        images = images.to(self._device, non_blocking=True)
        if self._bundle.backbone.separable:
            return (self._bundle.backbone.encode_images(images),)
        return self._bundle.backbone(images, *prompts)

    def _chosen(self, tokens: Tensor, text: Tensor, state: Tensor, plan: Tensor | None, frame: Tensor | None,
                seen: Tensor | None, selection: SelectionConfig, frozen: int,
                generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        past = None if frame is None or seen is None else Past(frame, seen)
        observation = Observation(tokens, text, state, past)
        choice = choose_chunk(self._bundle.actor, self._bundle.critic, observation, selection,
                              self._noise if self._on_gpu else generator, plan, frozen)
        return choice.chunk, choice.value, choice.steps

    def _text(self, instructions: Sequence[str]) -> Tensor:
        unseen = sorted(set(instructions) - set(self._texts))
        if len(self._texts) + len(unseen) > MOST_TEXTS:
            self._texts.clear()
            unseen = sorted(set(instructions))
        if unseen:
            self._texts |= dict(zip(unseen, self._bundle.backbone.encode_text(unseen), strict=True))
        return torch.stack([self._texts[text] for text in instructions])

    def _stack(self, cameras: Sequence[NDArray[np.uint8]], batch: int) -> Tensor:
        """(B, cameras, H, W, 3), in pinned memory where there is a GPU."""
        if not cameras:
            return torch.zeros((batch, 0, 0, 0, 3), dtype=torch.uint8, device=self._device)
        shape = (batch, len(cameras), *cameras[0].shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._on_gpu)
        np.stack(cameras, 1, out=images.numpy())
        return images

    def _download(self, values: tuple[Tensor, ...]) -> Any:
        if not self._on_gpu:
            return tuple(value.numpy() for value in values)
        pinned = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in values]
        for place, value in zip(pinned, values, strict=True):
            place.copy_(value, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return tuple(place.numpy() for place in pinned)
