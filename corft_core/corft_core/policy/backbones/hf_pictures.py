"""An image processor's work on pictures of one size, done on the model's device.

The ready-made processors take milliseconds a picture in NumPy and PIL. What they do to a picture of a given size is
a chain of linear resizings followed by putting every value, scaled and shifted, at its place. Both are found here by
feeding the processor (and PIL) known pictures once, and checked with a random one. A processor that does something
else is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .hf_family import Family, Pixels

LEVELS = 2.5
"""Largest difference from the processor's own result, in steps of the 8-bit scale: both round after each resizing of
rows and columns, not always alike."""
MEAN_LEVELS = 0.05


class Pictures(nn.Module):
    """Pictures uint8 (S, H, W, 3) of all prompts → the model's pixel inputs on the device of this module.

    cameras, size: pictures of an observation and their (H, W). `known` is false where the processor itself is used.
    `sample`: what the processor makes of one observation.
    """

    def __init__(self, family: Family, cameras: int, size: tuple[int, int]) -> None:
        super().__init__()
        self._family, self._cameras = family, cameras
        generator = np.random.default_rng(0)
        noise = generator.integers(0, 256, (cameras, *size, 3), dtype=np.uint8)
        self.sample = sample = family.pixels(self._prompts(noise))
        self._shape = tuple(sample.inputs["pixel_values"].shape)
        self._others = [name for name in sample.inputs if name != "pixel_values"]
        for name in self._others:
            self.register_buffer(f"other_{name}", sample.inputs[name], persistent=False)
        self.known = False
        target = self._target(sample)
        index, scale, offset = self._places(target)
        for name, value in (("index", index), ("scale", scale), ("offset", offset)):
            self.register_buffer(name, value, persistent=False)
        if cameras * len(index) != sample.inputs["pixel_values"].numel():
            return  # a picture of the target's size is resized again
        for chain in self._chains(size, target):
            self._set_chain(size, chain)
            found = self._values(torch.from_numpy(noise)).reshape(self._shape)
            levels = (found - sample.inputs["pixel_values"]).abs() / scale.abs().max().clamp_min(1e-12)
            if float(levels.max()) <= LEVELS and float(levels.mean()) <= MEAN_LEVELS:
                self.known = True
                return

    def forward(self, images: Tensor) -> Pixels:
        """images uint8 (B, cameras, H, W, 3) → inputs of B observations."""
        batch = len(images)
        if not self.known:
            return self._family.pixels(self._prompts(images.flatten(0, 1).cpu().numpy()))
        values = self._values(images.flatten(0, 1)).reshape(batch * self._shape[0], *self._shape[1:])
        inputs = {"pixel_values": values}
        for name in self._others:
            other = self.get_buffer(f"other_{name}")
            inputs[name] = other.repeat(batch, *[1] * (other.dim() - 1))
        return replace(self.sample, inputs=inputs)

    def _values(self, pictures: Tensor) -> Tensor:
        """uint8 (S, H, W, 3) → values in the processor's order (S, n)."""
        x = pictures.permute(0, 3, 1, 2).float()
        for number in range(self._resizings):
            # PIL resizes rows first and keeps 8 bits in between.
            x = (x @ self.get_buffer(f"columns_{number}")).round().clamp(0, 255)
            x = (self.get_buffer(f"rows_{number}") @ x).round().clamp(0, 255)
        return x.flatten(1)[:, self.get_buffer("index")] * self.get_buffer("scale") + self.get_buffer("offset")

    def _set_chain(self, size: tuple[int, int], chain: Sequence[tuple[int, int]]) -> None:
        self._resizings = len(chain)
        for number, following in enumerate(chain):
            self.register_buffer(f"rows_{number}", self._resizing(size[0], following[0]).T.contiguous(),
                                 persistent=False)
            self.register_buffer(f"columns_{number}", self._resizing(size[1], following[1]), persistent=False)
            size = following

    def _resizing(self, length: int, following: int) -> Tensor:
        """(length, following): what PIL's filter of the processor does to a line of `length` values."""
        from PIL import Image

        lines = Image.fromarray(np.eye(length, dtype=np.float32))
        resample: Any = self._family.image_processor.resample
        return torch.from_numpy(np.array(lines.resize((following, length), resample)))

    def _chains(self, size: tuple[int, int], target: tuple[int, int]) -> list[list[tuple[int, int]]]:
        """Resizings to try: none, straight to the target, or by way of the processor's longest edge."""
        chains: list[list[tuple[int, int]]] = [[target]] if size != target else [[]]
        allowed = self._family.image_processor.size
        longest = allowed.get("longest_edge") if hasattr(allowed, "get") else getattr(allowed, "longest_edge", None)
        if longest and longest < 10_000:
            factor = longest / max(size)
            chains.append([(round(size[0] * factor), round(size[1] * factor)), target])
        return chains

    def _places(self, target: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of every value the processor makes of a picture of the target's size: which value of the flat (3, h, w)
        picture it is, and by what it is scaled and shifted."""
        count = 3 * target[0] * target[1]
        planes = np.arange(count).reshape(3, *target).transpose(1, 2, 0)

        def seen(picture: np.ndarray) -> Tensor:
            return self._family.pixels([[picture.astype(np.uint8)]]).inputs["pixel_values"].double().flatten()

        offset = seen(np.zeros_like(planes))
        scale = (seen(np.full_like(planes, 255)) - offset) / 255
        index = torch.zeros(len(offset), dtype=torch.long)
        safe = torch.where(scale == 0, torch.ones_like(scale), scale)
        for digit in range(3):
            value = (seen(planes >> (8 * digit) & 255) - offset) / safe
            index += value.round().long().clamp(0, 255) << (8 * digit)
        return index.clamp(0, count - 1), scale.float(), offset.float()

    def _target(self, sample: Pixels) -> tuple[int, int]:
        """(h, w) that the processor has resized a picture to."""
        patches = sample.inputs.get("image_grid_thw")
        if patches is None:
            height, width = sample.inputs["pixel_values"].shape[-2:]
        else:
            height, width = (patches[0, 1:] * self._family.config.vision_config.patch_size).tolist()
        return int(height), int(width)

    def _prompts(self, pictures: np.ndarray) -> list[list[np.ndarray]]:
        """Pictures (S, H, W, 3), row after row of cameras → those of each prompt."""
        each = self._cameras if self._family.several_images else 1
        return [list(pictures[start : start + each]) for start in range(0, len(pictures), each)]
