"""docs/backbones.md from what `make bench NAME=backbones` found."""

from __future__ import annotations

from typing import Any

HEAD = """# Backbones

<!-- Written by `make bench NAME=backbones`; edit tests/bench/backbones_page.py instead. -->

`--backbone hf:<folder or hub id>` takes any transformers model of the families Kosmos-2, Idefics3/SmolVLM, PaliGemma,
LLaVA, Qwen2-VL to Qwen3-VL and Florence-2. `policy.backbone_options` say how:

| option | values | meaning |
|---|---|---|
| `trainable` | `none`, `all`, `last:n`, `lora`, `lora:r` | frozen; everything; the last n layers of the language model; adapters of rank r (16) on all attention and MLP matrices of the language model |
| `lora_vision` | `false` | adapters in the vision tower too |
| `dtype` | `float32`, `bfloat16`, `float16` (frozen only) | in which the model computes; what is trained is kept in float32 |
| `gradient_checkpointing` | `false` | compute activations again in the backward pass |
| `attn_implementation` | transformers' choice | `sdpa`, `eager`, … |
| `compile` | `false` | torch.compile, layer by layer |
| `tokens` | 64 | most vision tokens per camera that the experts see |
| `revision` | newest | commit or tag on the hub; checkpoints name the commit |

```
ros2 run corft trainer data run --backbone hf:models/smolvlm2 \\
    --set "policy.backbone_options={trainable: lora, dtype: bfloat16, gradient_checkpointing: true}" \\
    --set sft.accumulate=8
```

The action expert learns at `sft.lr`, the language model at `sft.backbone_lr`, the vision tower at `sft.vision_lr`
(0: as the language model); norms and biases of the backbone do not decay. `sft.accumulate` passes a batch through the
networks in so many parts. A checkpoint holds what was trained: with adapters, these alone, beside the backbone's id,
revision, licence and a fingerprint of the weights below them. A policy loaded for use has them merged into the weights.

Several GPUs: `torchrun --nproc-per-node 4 -m corft.trainer data run …`. Every process holds the whole model and
works on its share of each batch, or, with `--set sft.shard=true`, keeps a part of every trained weight, of its gradient
and of the optimiser's state (FSDP2): a layer is gathered when it is computed. What is learned is the same either way.

## Memory

A training is refused before it starts when it needs more than the device has free, with the modes that fit. The
formula, in bytes, with s = 2 or 4 by `dtype`:

```
weights      4 · trained + s · frozen
gradients    4 · trained
optimiser    8 · trained             AdamW's two averages
average      4 · trained             with sft.ema
casts        s · trained             16-bit copies for the backward pass, without recomputation
gathered     2 · s · (2 layers + all outside of layers)      with sft.shard; the first four are then divided by the
                                     number of processes, and there are no casts
activations  s · samples · Σ rows · (in + out)     over the matrices that a gradient passes
```

Rows are the prompt's tokens for the language model and the pictures' patches for the vision tower. With
`gradient_checkpointing` a layer keeps rows · width, and one layer at a time is whole. In full training s is 4 for what
the model has and the policy does not use (a decoder, an output head).
"""  # noqa: E501


def text(result: dict[str, Any]) -> str:
    """The page."""
    modes, card = list(result["rows"][0]["modes"]), result["device"]
    lines = [
        HEAD, f"GiB for {result['samples']} samples at a time in {result['dtype']}, two cameras of 128 × 128 pixels "
        "and a short instruction, by the formula"
        + (f"; in brackets as measured on {card}:" if card else "; no GPU was there to measure on:"), "",
        "| backbone | parameters | " + " | ".join(modes) + " |", "|---|---|" + "---|" * len(modes),
    ]
    for row in result["rows"]:
        cells = [_cell(f"{mode['gib']:.1f}", mode["gpu"], "gib") for mode in row["modes"].values()]
        lines.append(f"| {row['name']} | {_count(row['parameters'])} | " + " | ".join(cells) + " |")
    lines += [
        "", "Pictures are not cut into tiles. Qwen's grow with the camera's, the others' have one size.", "",
        _checked(result["kept_over_formula"]), "", "## Speed", "",
        "10¹² floating point operations a sample, counted over the same matrices (attention's own products are left "
        "out); frozen: one forward pass, which training makes once for every frame. Divided by what a card reaches, "
        "that is the least time" + ("; in brackets samples/s as measured:" if card else ":"), "",
        "| backbone | tokens | patches | " + " | ".join(modes) + " |", "|---|---|---|" + "---|" * len(modes),
    ]
    for row in result["rows"]:
        cells = [_cell(f"{mode['teraflop_per_sample']:.2f}", mode["gpu"], "samples_per_s")
                 for mode in row["modes"].values()]
        lines.append(f"| {row['name']} | {row['tokens']} | {row['patches']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(computed: str, measured: dict[str, float] | None, key: str) -> str:
    return computed if measured is None else f"{computed} ({measured[key]:.1f})"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} · 10⁹"


def _checked(ratios: dict[str, dict[str, float]]) -> str:
    found = [f"{name} {row['all']:.2f} in full and {row['lora']:.2f} with adapters" for name, row in ratios.items()]
    return ("Activations that the backward pass really keeps over the formula's, on a CPU in float32, two layers of "
            "each part, adapters in both: " + "; ".join(found) + ".")
