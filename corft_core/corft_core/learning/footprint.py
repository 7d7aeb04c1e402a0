"""Memory and arithmetic of training an `hf:` backbone, by formula, before anything is loaded.

Bytes of a step, with s = 2 or 4 by the backbone's `dtype`:

    weights      4 · trained + s · frozen
    gradients    4 · trained
    optimiser    8 · trained             (AdamW: two averages)
    average      4 · trained             (only with sft.ema)
    casts        s · trained             (16-bit copies of float32 weights, kept for the backward pass)
    activations  s · samples · Σ rows · (in + out)      over the matrices that a gradient passes

Of a backbone divided among n processes (sft.shard) the first four count `trained / n`, there are no casts, and what is
gathered for a while comes on top: 2 · s · (2 layers and everything outside of layers), weights and gradients.

`rows` of a matrix are the tokens of all prompts of a sample (language model) or the patches of all its pictures (vision
tower). With gradient checkpointing a layer keeps only its input, rows · width, and one layer at a time is whole.
The experts over the backbone are small beside it and left out. Floating point operations: 2 · rows · in · out for a
matrix, forward; the same again for the gradient that passes it, for the gradient of trained weights, and for computing
activations again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from corft_core.policy.backbones.hf_family import Family, Work
from corft_core.policy.backbones.hf_training import adapted, last_layers, lora_rank

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Mode:
    """How a backbone is trained: the options of the same names, and samples in one forward pass."""

    trainable: str
    dtype: str = "float32"
    lora_vision: bool = False
    gradient_checkpointing: bool = False
    samples: int = 1
    average: bool = True
    shards: int = 1
    """Processes among which the trained weights are divided."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training step and its floating point operations for one sample."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    casts: float
    gathered: float
    activations: float
    flops: float

    @property
    def total(self) -> float:
        """Bytes together."""
        return (self.weights + self.gradients + self.optimizer + self.average + self.casts + self.gathered
                + self.activations)


@dataclass(frozen=True)
class _Layer:
    rows: int
    width: int
    """Numbers of a row that the layer takes."""
    kept: int
    """Numbers of a row that its matrices take and give."""
    weights: int
    """Numbers in its matrices."""
    trained: bool
    passed: bool
    """Whether a gradient passes."""


def footprint(family: Family, mode: Mode, work: Work) -> Footprint:
    """Memory and arithmetic of training `family`'s model (on any device, also without weights) in this mode."""
    size = BYTES[mode.dtype]
    trained = trained_numbers(family, mode.trainable, mode.lora_vision)
    frozen = _numbers(family.model.parameters()) - (0 if lora_rank(mode.trainable) else trained)
    size_frozen = 4 if mode.trainable == "all" else size
    layers = _layers(family, mode, work)
    passed = [layer for layer in layers if layer.passed]
    kept = [layer.rows * layer.kept for layer in passed]
    if mode.gradient_checkpointing:
        kept = [layer.rows * layer.width for layer in passed] + [max(kept, default=0)]
    passing = max((layer.rows * layer.kept for layer in layers if not layer.passed), default=0)
    mixed = mode.dtype != "float32" and trained > 0 and not mode.gradient_checkpointing and mode.shards == 1
    passes = 2 if mode.gradient_checkpointing else 1
    own = trained / mode.shards
    moved = [layer.weights for layer in layers if layer.trained]
    whole = trained - sum(moved) + 2 * max(moved, default=0)
    return Footprint(
        weights=4 * own + size_frozen * frozen,
        gradients=4 * own,
        optimizer=8 * own,
        average=4 * own if mode.average else 0,
        casts=size * trained if mixed else 0,
        gathered=2 * size * whole if mode.shards > 1 else 0,
        activations=size * mode.samples * max(sum(kept), passing),
        flops=sum(2 * layer.rows * layer.weights * (1 + passes * layer.passed + layer.trained) for layer in layers),
    )


def trained_numbers(family: Family, trainable: str, lora_vision: bool = False) -> int:
    """How many numbers a mode trains."""
    rank = lora_rank(trainable)
    if rank:
        return sum(rank * (m.in_features + m.out_features) for m in adapted(family, lora_vision).values())
    last = last_layers(family, trainable)
    if last is not None:
        return _numbers(p for layer in list(family.layers())[len(family.layers()) - last :] for p in layer.parameters())
    unused = {id(p) for part in family.unused() for p in part.parameters()}
    return _numbers(p for p in family.model.parameters() if id(p) not in unused)


def _numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum({id(p): p.numel() for p in parameters}.values())


def _layers(family: Family, mode: Mode, work: Work) -> list[_Layer]:
    full, rank = mode.trainable == "all", lora_rank(mode.trainable)
    language = list(family.layers())
    last = 0 if full or rank else last_layers(family, mode.trainable) or 0
    rows = work.prompts * work.tokens
    found = [
        _layer(layer, rows, full or i >= len(language) - last, bool(full or rank or i >= len(language) - last))
        for i, layer in enumerate(language)
    ]
    for layer, patches in family.vision_rows(work.patches):
        found.append(_layer(layer, work.pictures * patches, full, bool(full or (rank and mode.lora_vision))))
    return found


def _layer(layer: nn.Module, rows: int, trained: bool, passed: bool) -> _Layer:
    matrices = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    return _Layer(
        rows, matrices[0].in_features, sum(m.in_features + m.out_features for m in matrices),
        sum(m.in_features * m.out_features for m in matrices), trained, passed,
    )
