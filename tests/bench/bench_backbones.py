"""backbones: memory and speed of each `hf:` backbone in each training mode; writes docs/backbones.md too.

Memory and arithmetic of the published sizes come from the formula in corft_core/learning/footprint.py. With a GPU a
step of every mode that should fit is measured there, with random weights. Without one, activations are compared with
what the backward pass really keeps, for models of full width that are cut to two layers.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent))
import backbones_page
from backbone_sizes import SIZES, Size, built, laid_out, made_up

from corft_core import files
from corft_core.learning.footprint import GIB, Mode, footprint
from corft_core.policy.backbones.hf_family import Family
from corft_core.policy.backbones.hf_training import choose_trained, recompute_activations, set_precision

SAMPLES, STEPS = 8, 10
DTYPE = "bfloat16"
CHECKED = ("SmolVLM2-256M", "SmolVLM2-500M")
MODES = {
    "full": {"trainable": "all"},
    "full, recomputed": {"trainable": "all", "gradient_checkpointing": True},
    "full, recomputed, 4 cards": {"trainable": "all", "gradient_checkpointing": True, "shards": 4},
    "LoRA": {"trainable": "lora"},
    "LoRA, recomputed": {"trainable": "lora", "gradient_checkpointing": True},
    "last 2": {"trainable": "last:2"},
    "frozen": {"trainable": "none"},
}


def measure() -> dict[str, Any]:
    """One run; see the module's docstring."""
    rows = []
    for size in SIZES:
        family = laid_out(size.config())
        work = size.work(family.several_images)
        modes = {}
        for name, options in MODES.items():
            mode = Mode(**options, dtype=DTYPE, samples=SAMPLES)
            needed = footprint(family, mode, work)
            modes[name] = {
                "gib": needed.total / GIB, "teraflop_per_sample": needed.flops / 1e12,
                "gpu": _on_gpu(size, mode, needed.total) if torch.cuda.is_available() and mode.shards == 1 else None,
            }
        rows.append({"name": size.name, "parameters": sum(p.numel() for p in family.model.parameters()),
                     "tokens": work.prompts * work.tokens, "patches": work.pictures * work.patches, "modes": modes})
    result = {
        "samples": SAMPLES, "dtype": DTYPE, "rows": rows,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "kept_over_formula": {size.name: _kept(size) for size in SIZES if size.name in CHECKED},
    }
    files.write_text(Path(__file__).parents[2] / "docs" / "backbones.md", backbones_page.text(result))
    return result


def _prepared(family: Family, mode: Mode) -> None:
    choose_trained(family, mode.trainable, mode.lora_vision)
    set_precision(family.model, torch.float32 if mode.trainable == "all" else getattr(torch, mode.dtype))
    if mode.gradient_checkpointing:
        recompute_activations([*family.layers(), *family.vision_layers()])


def _on_gpu(size: Size, mode: Mode, needed: float) -> dict[str, Any] | None:
    """Samples/s and peak GiB of training steps, of forward passes where frozen; None where it would not fit."""
    if needed > 0.9 * torch.cuda.mem_get_info()[0]:
        return None
    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        family = built(size.config(), getattr(torch, mode.dtype))
    _prepared(family, mode)
    moved = [p for p in family.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved, 1e-6, fused=True) if moved else None
    average = [p.detach().clone() for p in moved]
    inputs = made_up(family, size, mode.samples, "cuda", next(family.model.parameters()).dtype)

    def step() -> None:
        with torch.set_grad_enabled(bool(moved)), torch.autocast("cuda", getattr(torch, mode.dtype), bool(moved)):
            hidden = family.hidden(inputs[0], inputs[1], copy.deepcopy(inputs[2]))
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            hidden.float().square().mean().backward()
            optimizer.step()
            torch._foreach_lerp_(average, [p.detach() for p in moved], 0.01)

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return {"samples_per_s": STEPS * mode.samples / seconds, "gib": torch.cuda.max_memory_allocated() / GIB}


def _kept(size: Size) -> dict[str, float]:
    """What one sample's backward pass keeps over what the formula says, in float32, for two layers of the model."""
    family, found = built(_two_layers(size.config())), {}
    for trainable in ("all", "lora"):
        mode = Mode(trainable, lora_vision=trainable == "lora")
        expected = footprint(family, mode, size.work(family.several_images)).activations
        _prepared(family, mode)
        own = {p.untyped_storage().data_ptr() for p in family.model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor, own: set[int] = own, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            family.hidden(*made_up(family, size, 1, "cpu", torch.float32))
        found[trainable] = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / expected
    return found


def _two_layers(config: Any) -> Any:
    """The same widths with two layers in each part; for the models in CHECKED."""
    config.get_text_config().num_hidden_layers = config.vision_config.num_hidden_layers = 2
    return config
