"""What of an `hf:` model is trained and how: modes, LoRA adapters, precision, recomputed activations, compilation.

Precision: what is trained, adapters too, is kept in float32; everything else in the backbone's `dtype`, in which the
forward pass then computes (autocast). Recomputation and compilation work layer by layer, alike for all families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .base import BackboneError, trainable_blocks
from .hf_family import Family

LORA_RANK = 16
"""Rank of the adapters in the mode "lora"."""
LORA_GAIN = 2
"""LoRA's alpha over its rank: adapters of any rank learn at about the same pace."""


def lora_rank(trainable: str) -> int:
    """Rank of the adapters in the modes "lora" and "lora:r"; 0 in all other modes."""
    match = re.fullmatch(r"lora(?::([1-9]\d{0,3}))?", trainable)
    return int(match.group(1) or LORA_RANK) if match else 0


def last_layers(family: Family, trainable: str) -> int | None:
    """As `trainable_blocks`, of the language model's layers."""
    return trainable_blocks(trainable, len(family.layers()), "'lora' or 'lora:r' (adapters of rank r), ")


def adapted(family: Family, vision: bool) -> dict[str, nn.Linear]:
    """The matrices that get adapters, by name: attention and MLP of the language model, and of the vision tower."""
    parts: list[nn.Module] = [*family.layers(), *(family.vision_layers() if vision else ())]
    wanted = {id(module) for part in parts for module in part.modules() if isinstance(module, nn.Linear)}
    for module in family.model.modules():  # torch's own attention uses its matrices without calling them
        if isinstance(module, nn.MultiheadAttention):
            wanted -= {id(inner) for inner in module.modules()}
    return {name: module for name, module in family.model.named_modules() if id(module) in wanted}


def choose_trained(family: Family, trainable: str, lora_vision: bool = False) -> None:
    """Make exactly the mode's parameters require gradients, adding adapters in the LoRA modes.

    Raises BackboneError for a mode that does not exist, or when `peft` is missing.
    """
    rank = lora_rank(trainable)
    if lora_vision and not rank:
        raise BackboneError(f"lora_vision=True adapts the vision tower, trainable={trainable!r} adapts nothing: "
                            "choose trainable='lora'.")
    if rank:
        _add_adapters(family, rank, lora_vision)
        return
    last = last_layers(family, trainable)
    family.model.requires_grad_(last is None)
    for layer in list(family.layers())[-last:] if last else ():
        layer.requires_grad_(True)
    for part in family.unused():
        part.requires_grad_(False)


def _add_adapters(family: Family, rank: int, vision: bool) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise BackboneError(f"trainable='lora' needs the package peft ({error}): pip install peft") from error
    names = list(adapted(family, vision))
    config = LoraConfig(r=rank, lora_alpha=LORA_GAIN * rank, target_modules=names, lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, family.model)
    for layer in _adapter_layers(family.model):
        layer.cast_input_dtype_enabled = False  # autocast does it, without a float32 copy of every input


def _adapter_layers(model: nn.Module) -> list[Any]:
    """The adapted layers; peft is imported only where there may be some."""
    if not any(name.endswith("lora_A") for name, _ in model.named_modules()):
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters' product to the weights, so that they cost nothing; they stay, for the checkpoint."""
    for layer in _adapter_layers(model):
        if not layer.merged:
            layer.merge()


def plain_model(model: Any) -> Any:
    """The model of its plain architecture, adapters merged and taken out; changes `model` and returns it."""
    merge_adapters(model)
    for name, layer in [(name, m) for name, m in model.named_modules() if m in _adapter_layers(model)]:
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model


@torch.no_grad()
def set_precision(model: nn.Module, dtype: torch.dtype, trained: torch.dtype = torch.float32) -> None:
    """Keep what is trained in `trained` and the rest in `dtype`; buffers keep theirs."""
    for name, parameter in model.named_parameters():
        keep = torch.float32 if ".lora_" in name else trained
        parameter.data = parameter.data.to(keep if parameter.requires_grad else dtype)


def recompute_activations(layers: Iterable[nn.Module]) -> None:
    """Keep only the inputs of these layers for the backward pass and compute the rest again (gradient checkpointing).

    Unlike the models' own switch this one works in evaluation mode, in which backbones stay for want of dropout.
    """
    for layer in layers:
        layer.forward = _recomputed(layer.forward)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run


def compile_layers(layers: Iterable[nn.Module]) -> None:
    """Compile every layer by itself: equal layers share their code, so it takes as long as one does."""
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=None)  # type: ignore[method-assign]
