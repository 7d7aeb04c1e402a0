"""What every vision-language backbone offers to the policy.

Shapes: B batch, cams cameras, H W image size, N vision tokens per camera (row-major over a square or
rectangular grid), C channels per vision token, L text dimension.
Guarantees, pinned by tests/unit/test_backbones.py: an answer does not depend on the rest of the batch,
a frozen backbone changes no parameter, and `trainable` selects exactly the parameters that move.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corft_core.errors import CorftError
from corft_core.policy.backbones.shards import as_divided, whole


class BackboneError(CorftError):
    """A backbone that cannot be built, was given something unusable, or does not fit a checkpoint."""


def trainable_blocks(trainable: str, available: int, others: str = "") -> int | None:
    """Number of last blocks to train: 0 for "none", None for "all", n for "last:n" (1 ≤ n ≤ available).

    `others`: what else this backbone knows, for the message.
    """
    if trainable == "none":
        return 0
    if trainable == "all":
        return None
    match = re.fullmatch(r"last:(\d+)", trainable)
    if match and 1 <= int(match.group(1)) <= available:
        return int(match.group(1))
    raise BackboneError(
        f"trainable={trainable!r} is not understood. Expected 'none' (frozen), 'all' (every parameter), {others}or "
        f"'last:n' with n from 1 to {available} (the last n blocks of this backbone)."
    )


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        flat = value.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)].to(device="cpu", dtype=torch.float32)
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:32]


class Backbone(nn.Module, ABC):
    """Images and an instruction in, vision tokens per camera and a text vector out.

    Attributes set by subclasses:
        name: what `make_backbone` was called with, for example "effnet" or "hf:<folder>".
        cameras, image_size: number of cameras and (height, width) in pixels of every image.
        trainable: "none", "all", "last:n", or a mode of the backbone's own.
        vision_shape: (N, C).
        text_dim: L.
        origin: `provenance` of the weights where this is an exported copy of them, else None.
        separable: whether images and text are encoded apart, so that each can be cached alone.
            A backbone that is not separable but frozen may still be cached per (frame, instruction).
    """

    name: str
    vision_shape: tuple[int, int]
    text_dim: int
    origin: dict[str, Any] | None = None
    separable: bool = True
    min_cameras: int = 1

    def __init__(self, cameras: int, image_size: Sequence[int], trainable: str) -> None:
        super().__init__()
        if cameras < self.min_cameras:
            raise BackboneError(
                f"cameras={cameras}: this backbone needs at least one camera. For a task that is seen through its "
                "state alone: --set policy.backbone=none"
            )
        height, width = (int(size) for size in image_size)
        self.cameras = int(cameras)
        self.image_size = (height, width)
        self.trainable = trainable

    @property
    def frozen(self) -> bool:
        """True when no parameter of the backbone is trained."""
        return self.trainable == "none"

    def encode(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """images uint8 (B, cams, H, W, 3) and B instructions → vision (B, cams, N, C), text (B, L).

        Raises BackboneError when shape or type of the images differ from what the backbone was built for.
        """
        if len(texts) != images.shape[0]:
            raise BackboneError(f"{images.shape[0]} observations, {len(texts)} instructions: give one each.")
        return self.encode_images(images), self.encode_text(texts)

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """images uint8 (B, cams, H, W, 3) → (B, cams, N, C) float32. Only where `separable`."""

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B instructions → (B, L) float32. Only where `separable`."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Keyword arguments beyond cameras and image_size that rebuild this backbone (JSON types)."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from: at least `source` and `license` (None when unknown)."""

    def prepare_to_act(self) -> None:
        """Make the forward pass as cheap as it can be, once nothing is trained any more."""

    def divide(self, device: torch.device) -> None:
        """Divide what is trained among all processes, see :mod:`.shards`. BackboneError where that can't be."""
        raise BackboneError(f"backbone {self.name!r} is small and every process holds all of it: sft.shard is for hf: "
                            "backbones.")

    def vision_parameters(self) -> list[nn.Parameter]:
        """Those of the trained parameters that belong to the vision part, for a learning rate of their own."""
        return []

    def check_images(self, images: Tensor) -> None:
        """Refuse images that are not uint8 (B, cams, H, W, 3) of the size the backbone was built for."""
        expected = (self.cameras, *self.image_size, 3)
        if images.dtype != torch.uint8 or images.dim() != 5 or tuple(images.shape[1:]) != expected:
            raise BackboneError(
                f"Backbone {self.name!r} expects uint8 images of shape (B, {', '.join(map(str, expected))}) "
                f"(batch, camera, height, width, rgb), got {images.dtype} {tuple(images.shape)}. "
                "Build the backbone with the cameras and the image size of the robot's contract."
            )

    def config(self) -> dict[str, Any]:
        """JSON-ready description that `backbone_from_config` turns into the same backbone again."""
        return {
            "name": self.name,
            "cameras": self.cameras,
            "image_size": list(self.image_size),
            "options": self.options(),
            "provenance": self.origin or self.provenance(),
            "fingerprint": self.fingerprint_elsewhere(),
        }

    def export(self, folder: Path) -> dict[str, Any]:
        """Write what only the place of the weights has to `folder`, and return the `config` of the copy.

        A backbone whose weights come with the installation, or lie in the checkpoint, writes nothing. One that writes
        returns a frozen copy's config, which names the folder (`folder`) and its tensors (`tensors`).
        """
        return self.config()

    def describe(self) -> dict[str, Any]:
        """Identity, licence, shapes and parameter counts, for run reports."""
        counts = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return {
            "id": self.name,
            **(self.origin or self.provenance()),
            "trainable": self.trainable,
            "separable": self.separable,
            "vision_shape": list(self.vision_shape),
            "text_dim": self.text_dim,
            "parameters": sum(n for n, _ in counts),
            "trained_parameters": sum(n for n, trained in counts if trained),
        }

    def fingerprint(self) -> str:
        """Hash over names, shapes and a sample of the values of all weights: cheap, and other weights differ."""
        return _fingerprint(self.state_dict())

    def fingerprint_elsewhere(self) -> str | None:
        """The same of the weights that no checkpoint holds, because they come from the installation, a folder or the
        hub; None when there are none."""
        held = {id(parameter) for parameter in self.saved_parameters().values()}
        rest = {name: value for name, value in self.state_dict(keep_vars=True).items() if id(value) not in held}
        return _fingerprint(rest) if rest else None

    def saved_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters a checkpoint must hold: those that training moves. None of frozen published weights."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def saved_state(self) -> dict[str, Tensor]:
        """Values of `saved_parameters`, by name; see :func:`.shards.whole` of a backbone that is divided."""
        return {name: whole(p.detach()) for name, p in self.saved_parameters().items()}

    def load_saved_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `saved_state`. Raises BackboneError on missing, extra or wrongly shaped entries."""
        own = self.saved_parameters()
        missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        shapes = sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
        if missing or extra or shapes:
            raise BackboneError(
                f"The checkpoint does not fit backbone {self.name!r} (trainable={self.trainable!r}): "
                f"missing {missing[:3]}, not known here {extra[:3]}, other shape {shapes[:3]}. "
                "Rebuild the backbone from the checkpoint's own config.json."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(as_divided(state[name], parameter))

    def train(self, mode: bool = True) -> Backbone:
        """Frozen backbones stay in evaluation mode."""
        super().train(mode and not self.frozen)
        return self
