"""The backbone of tasks without cameras: no image tokens, no text, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Backbone, BackboneError


class NoBackbone(Backbone):
    """Stands where a backbone is expected; the policy then acts on the state alone."""

    name = "none"
    min_cameras = 0
    vision_shape = (0, 0)
    text_dim = 0

    def __init__(self, cameras: int = 0, image_size: Sequence[int] = (0, 0), trainable: str = "none") -> None:
        super().__init__(cameras, image_size, trainable)
        if cameras:
            raise BackboneError(f"Backbone 'none' sees no camera, the data have {cameras}: choose effnet, tiny or hf:.")
        if trainable != "none":
            raise BackboneError(f"Backbone 'none' has nothing to train, got trainable={trainable!r}.")

        self.register_buffer("place", torch.zeros(0), persistent=False)  # knows the device, as no weight does

    def encode_images(self, images: Tensor) -> Tensor:
        """images uint8 (B, 0, 0, 0, 3) → (B, 0, 0, 0)."""
        self.check_images(images)
        return torch.zeros((images.shape[0], 0, *self.vision_shape), device=images.device)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B instructions → (B, 0)."""
        return torch.zeros((len(texts), self.text_dim), device=self.get_buffer("place").device)

    def options(self) -> dict[str, Any]:
        return {"trainable": self.trainable}

    def provenance(self) -> dict[str, Any]:
        return {"source": "no weights", "license": "Apache-2.0"}
