"""Says before a training starts that an `hf:` backbone does not fit the device, and what would."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil
import torch

from corft_core.errors import CorftError
from corft_core.features import Features, image_size
from corft_core.learning import processes
from corft_core.learning.config import TrainConfig
from corft_core.learning.footprint import GIB, Footprint, Mode, footprint
from corft_core.policy.backbones import make_backbone

FROZEN_BATCH = 32
"""Samples in a forward pass where features are computed once."""


class TooLittleMemory(CorftError):
    """The training would not fit the device."""


def check_memory(
    config: TrainConfig, contract: Features, instructions: tuple[str, ...], frames: int, device: torch.device
) -> None:
    """Raise TooLittleMemory when training needs more than is free on `device`, by formula (see footprint.py).

    frames: of the data set; their features are kept where the backbone stays as it is, and for stage 2.
    """
    free = free_bytes(device)
    if free is None or not config.policy.backbone.startswith("hf:"):
        return
    options = config.policy.backbone_options
    kept: dict[str, Any] = {k: options[k] for k in ("tokens", "dtype", "revision") if k in options}
    sketch: Any = make_backbone(
        config.policy.backbone, len(contract.cameras), image_size(contract), **kept, weights=False
    )
    work = sketch.work(max(instructions, key=len))
    frozen = options.get("trainable", "none") == "none"
    looked_back = config.policy.history.steps  # a trained backbone sees every image of each observation
    samples = max(1, config.sft.batch // processes.count() // config.sft.accumulate) * looked_back
    mode = Mode(
        options.get("trainable", "none"), options.get("dtype", "float32"), bool(options.get("lora_vision")),
        bool(options.get("gradient_checkpointing")), FROZEN_BATCH if frozen else samples, bool(config.sft.ema),
        processes.count() if config.sft.shard and not frozen else 1,
    )
    features = 2 * frames * sketch.cameras * math.prod(sketch.vision_shape)
    if not frozen and not config.co_rft.steps:
        features = 0
    needed = footprint(sketch.family, mode, work)
    if needed.total + features <= free:
        return
    fitting = []
    for words, smaller in _smaller(mode, config.sft.batch // processes.count(), looked_back):
        other = footprint(sketch.family, smaller, work)
        if other.total + features <= free:
            fitting.append(f"{words} ({_gib(other.total + features)})")
    advice = f"What fits: {'; or '.join(fitting)}." if fitting else (
        "No smaller mode fits either: choose a smaller model, or a device with more memory."
    )
    raise TooLittleMemory(
        f"Training {config.policy.backbone} with trainable={mode.trainable}, dtype={mode.dtype} needs about "
        f"{_gib(needed.total + features)} ({_parts(needed, features)}; {mode.samples} samples at a time), {device} has "
        f"{_gib(free)} free. {advice}"
    )


def free_bytes(device: torch.device) -> float | None:
    """Memory that this process may still take there; None where it cannot be asked."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        return psutil.virtual_memory().available / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return None


def _smaller(mode: Mode, batch: int, least: int) -> Iterator[tuple[str, Mode]]:
    """Ever smaller modes, with the words that choose them. `least`: samples that cannot be taken apart."""
    words: list[str] = []

    def option(name: str, value: str) -> str:
        return f"policy.backbone_options.{name}={value}"

    def said() -> str:
        return " ".join(f"--set {word}" for word in words)

    if mode.trainable != "none":
        if mode.samples > least:
            words.append(f"sft.accumulate={batch}")
            mode = replace(mode, samples=least)
            yield said(), mode
        if not mode.gradient_checkpointing:
            words.append(option("gradient_checkpointing", "true"))
            mode = replace(mode, gradient_checkpointing=True)
            yield said(), mode
        if processes.count() > mode.shards and not mode.trainable.startswith("lora"):
            yield f"{said()} --set sft.shard=true", replace(mode, shards=processes.count())
    if mode.dtype == "float32":
        words.append(option("dtype", "bfloat16"))
        mode = replace(mode, dtype="bfloat16")
        yield said(), mode
    for trainable in ("lora", "none"):
        if mode.trainable not in (trainable, "none"):
            mode = replace(mode, trainable=trainable, lora_vision=False, shards=1)
            if trainable == "none":
                mode = replace(mode, samples=FROZEN_BATCH, gradient_checkpointing=False)
                words = [word for word in words if "dtype" in word]
            yield " ".join(filter(None, [said(), "--set " + option("trainable", trainable)])), mode


def _parts(needed: Footprint, features: float) -> str:
    named = {"weights": needed.weights, "gradients": needed.gradients, "optimiser": needed.optimizer,
             "averaged weights": needed.average, "activations": needed.activations + needed.casts,
             "gathered": needed.gathered,
             "features of all frames": features}
    return ", ".join(f"{name} {_gib(value)}" for name, value in named.items() if value)


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB" if value >= 0.1 * GIB else f"{value / 2**20:.1f} MiB"
