"""A small backbone trained from scratch: for tests, and for training runs of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Backbone, BackboneError, trainable_blocks
from .text import HashedWords

_STRIDE = 16


class TinyBackbone(Backbone):
    """Four strided convolutions with coordinate channels, hashed words for the text; 64 tokens at 128×128.

    Image sides must be multiples of 16. `trainable` is "all" unless told otherwise. `seed` fixes the initial
    weights without touching torch's global generator.
    """

    name = "tiny"

    def __init__(
        self,
        cameras: int = 2,
        image_size: Sequence[int] = (128, 128),
        trainable: str = "all",
        channels: int = 64,
        text_dim: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(cameras, image_size, trainable)
        height, width = self.image_size
        if height % _STRIDE or width % _STRIDE or min(height, width) < _STRIDE:
            raise BackboneError(
                f"Backbone 'tiny' needs image sides that are multiples of {_STRIDE} pixels, got "
                f"{height}×{width}. Set the cameras' size in the contract accordingly."
            )
        self.channels, self.text_dim, self.seed = channels, text_dim, seed
        self.vision_shape = (height // _STRIDE * (width // _STRIDE), channels)
        widths = (5, max(channels // 4, 8), max(channels // 2, 8), channels, channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(widths[i], widths[i + 1], 5 if i == 0 else 3, 2, 2 if i == 0 else 1),
                    nn.GroupNorm(4, widths[i + 1]),
                    nn.GELU(),
                )
                for i in range(4)
            )
            self.text = HashedWords(text_dim)
        rows = torch.linspace(-1, 1, height)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width)[None, :].expand(height, width)
        self.register_buffer("grid", torch.stack([rows, columns])[None], persistent=False)
        last = trainable_blocks(trainable, len(self.blocks))
        self.requires_grad_(last is None)
        for block in self.blocks[len(self.blocks) - last :] if last else ():
            block.requires_grad_(True)
        self.train()

    def encode_images(self, images: Tensor) -> Tensor:
        """images uint8 (B, cams, H, W, 3) → (B, cams, H/16·W/16, channels)."""
        self.check_images(images)
        batch = images.shape[0]
        x = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = torch.cat([x, self.get_buffer("grid").expand(len(x), -1, -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2).reshape(batch, self.cameras, *self.vision_shape)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B instructions → (B, text_dim)."""
        return self.text(texts)

    def vision_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.blocks.parameters() if p.requires_grad]

    def options(self) -> dict[str, Any]:
        return {
            "trainable": self.trainable,
            "channels": self.channels,
            "text_dim": self.text_dim,
            "seed": self.seed,
        }

    def provenance(self) -> dict[str, Any]:
        return {"source": "initialised from a seed", "license": "Apache-2.0"}

    def saved_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters, also frozen ones: a checkpoint is the only place to get them from."""
        return dict(self.named_parameters())
