"""Any transformers image-text model as a backbone: pictures and instruction are encoded together.

Weights come from a folder written by `save_pretrained` (or downloaded), or from the hub, see hf_loading.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, BackboneError
from .exported import tensors_of
from .hf_family import Family, Pixels, Work
from .hf_loading import is_folder, licence_of, load
from .hf_pictures import Pictures
from .hf_training import (
    choose_trained,
    compile_layers,
    lora_rank,
    merge_adapters,
    plain_model,
    recompute_activations,
    set_precision,
)
from .shards import divide


class Prompts(NamedTuple):
    """Token ids and attention mask (S, T); rows of the flat hidden states (S · T, C) at the pictures' places, and of
    the last token of every prompt."""

    ids: Tensor
    mask: Tensor
    places: Tensor
    last: Tensor


class HFBackbone(Backbone):
    """Hidden states at the pictures' places, pooled to at most `tokens` per camera, and of the last text token.

    Args:
        source: folder, or id on the hub.
        trainable: "none", "all" (everything the hidden states depend on), "last:n" (language model layers), "lora" or
            "lora:r" (adapters of rank r on attention and MLP of the language model).
        tokens: most vision tokens per camera; a larger grid is averaged down to a square of this many.
        dtype: "float32", "bfloat16" or "float16" (frozen only), in which the model computes and what is not trained is
            kept; what is trained is kept in float32, and results are always float32.
        revision: commit or tag on the hub; without meaning for a folder.
        lora_vision: adapters in the vision tower too.
        attn_implementation: "sdpa", "eager" or another one that transformers knows; None: its own choice, mostly SDPA.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        compile: compile the layers with torch.compile; the first batches of every new length then take long.
        weights: False lays the model out without them (torch's meta device), to plan memory.

    Where a family takes one picture per prompt, every camera has its own prompt and the text vectors are averaged.
    """

    separable = False

    def __init__(
        self,
        source: str,
        cameras: int = 2,
        image_size: Sequence[int] = (128, 128),
        trainable: str = "none",
        tokens: int = 64,
        dtype: str = "float32",
        revision: str | None = None,
        lora_vision: bool = False,
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        weights: bool = True,
    ) -> None:
        super().__init__(cameras, image_size, trainable)
        if tokens < 1:
            raise BackboneError(f"tokens={tokens}: at least one vision token per camera is needed.")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise BackboneError(f"dtype={dtype!r} is not one of 'float32', 'bfloat16', 'float16'.")
        if dtype == "float16" and not self.frozen:
            raise BackboneError("dtype='float16' cannot be trained, its gradients vanish: choose dtype='bfloat16'.")
        if is_folder(source):  # a checkpoint is used from anywhere
            source = str(Path(source).expanduser().resolve())
        self.name, self.source = f"hf:{source}", source
        family_class, self.model, tokenizer, image_processor = load(
            source, getattr(torch, dtype), revision, attn_implementation, weights
        )
        self.tokens, self.dtype = tokens, dtype
        # A hub id is pinned to the commit that was loaded, so that a checkpoint is rebuilt with the same weights.
        self.revision = getattr(self.model.config, "_commit_hash", None) or revision
        self.family: Family = family_class(self.model, tokenizer, image_processor)
        self.lora_vision, self.attn_implementation = lora_vision, attn_implementation
        self.gradient_checkpointing, self.compiled = gradient_checkpointing, compile
        self.model.eval()

        self._pictures = Pictures(self.family, self.cameras, self.image_size)
        self._pooled = _pooled_grid(self._pictures.sample.grid, tokens)
        self._prompts: dict[tuple[str, ...], Prompts] = {}
        width = int(self.model.config.get_text_config().hidden_size)
        self.vision_shape = (self._pooled[0] * self._pooled[1], width)
        self.text_dim = width

        choose_trained(self.family, trainable, lora_vision)
        set_precision(self.model, torch.float32 if trainable == "all" else getattr(torch, dtype))
        self._mixed = dtype != "float32" and not self.frozen
        layers = [*self.family.layers(), *self.family.vision_layers()]
        if compile:
            compile_layers(layers)
        if gradient_checkpointing:
            recompute_activations(layers)
        self.train()

    def encode(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """images uint8 (B, cams, H, W, 3) and B instructions → vision (B, cams, N, C), text (B, C)."""
        self.check_images(images)
        if len(texts) != len(images):
            raise BackboneError(f"{len(images)} observations, {len(texts)} instructions: give one each.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self(images, *self.prompts(texts))

    def prompts(self, texts: Sequence[str]) -> Prompts:
        """What the instructions alone decide of the model's inputs, kept for the next time."""
        device, key = self._pictures.get_buffer("index").device, tuple(texts)
        found = self._prompts.get(key)
        if found is None or found.ids.device != device:
            if len(self._prompts) > 1000:
                self._prompts.clear()
            found = self._prompts[key] = self._new_prompts(texts, device)
        return found

    def forward(self, images: Tensor, *prompts: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode`, of images on the model's device and the fields of `Prompts`; nothing here waits for it."""
        return self.features(self.pixels(images), Prompts(*prompts))

    def pixels(self, images: Tensor) -> Pixels:
        """What the model sees of images uint8 (B, cams, H, W, 3) on its device."""
        pixels, device = self._pictures(images), self._pictures.get_buffer("index").device
        for name, value in pixels.inputs.items():
            pixels.inputs[name] = value.to(device, self.model.dtype if value.is_floating_point() else None)
        return pixels

    def features(self, pixels: Pixels, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """The model itself, see `encode`."""
        family = self.family
        batch = len(prompts.places) // (self.cameras * pixels.tokens)
        with torch.autocast(prompts.ids.device.type, getattr(torch, self.dtype), enabled=self._mixed):
            hidden = family.hidden(prompts.ids, prompts.mask, pixels).flatten(0, 1)  # (prompts · T, C)
        vision = hidden[prompts.places].view(batch * self.cameras, pixels.tokens, -1)[:, pixels.extra :]
        vision = _pool(vision.float(), pixels.grid, self._pooled)
        text_vectors = hidden[prompts.last].float().reshape(batch, -1, self.text_dim).mean(1)
        vision = vision.reshape(batch, self.cameras, *self.vision_shape)
        # A divided model is gathered again by a hook on its results, which a view could lose.
        return vision.clone() if torch.is_grad_enabled() else vision, text_vectors

    def _new_prompts(self, texts: Sequence[str], device: torch.device) -> Prompts:
        family, tokens = self.family, self._pictures.sample.tokens
        per_prompt = self.cameras if family.several_images else 1
        prompts = []
        for text in texts:
            words = family.words(text)
            if family.image_id in words:
                raise BackboneError(f"The instruction {text!r} contains the model's picture token; leave it out.")
            prompts += [family.prompt(tokens, per_prompt, words)] * (self.cameras // per_prompt)
        ids, mask = _padded(prompts, family.tokenizer.pad_token_id or 0)
        places = ((ids == family.image_id) & mask.bool()).flatten().nonzero()[:, 0]
        last = torch.arange(len(ids)) * ids.shape[1] + mask.sum(1) - 1
        return Prompts(ids.to(device), mask.to(device), places.to(device), last.to(device))

    def encode_images(self, images: Tensor) -> Tensor:
        raise BackboneError(f"Backbone {self.name!r} encodes pictures and text together: call encode().")

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        raise BackboneError(f"Backbone {self.name!r} encodes pictures and text together: call encode().")

    def options(self) -> dict[str, Any]:
        return {
            "trainable": self.trainable,
            "tokens": self.tokens,
            "dtype": self.dtype,
            "revision": self.revision,
            "lora_vision": self.lora_vision,
            "attn_implementation": self.attn_implementation,
            "gradient_checkpointing": self.gradient_checkpointing,
            "compile": self.compiled,
        }

    def prepare_to_act(self) -> None:
        """Merge adapters into the weights and keep all of them in `dtype`: no more casts and side paths."""
        merge_adapters(self.model)
        set_precision(self.model, getattr(torch, self.dtype), getattr(torch, self.dtype))
        self._mixed = False

    def work(self, instruction: str) -> Work:
        """What the model does for one observation with this instruction."""
        per_prompt = self.cameras if self.family.several_images else 1
        prompt = self.family.prompt(self._pictures.sample.tokens, per_prompt, self.family.words(instruction))
        return Work(self.cameras // per_prompt, len(prompt), self.cameras, self._pictures.sample.patches)

    def divide(self, device: torch.device) -> None:
        if self.frozen or lora_rank(self.trainable):
            raise BackboneError(f"sft.shard divides the weights that are trained, trainable={self.trainable!r} trains "
                                "few or none: leave it out, or choose trainable='all' or 'last:n'.")
        layers = [*self.family.layers(), *self.family.vision_layers()]
        divide(self, layers, device, getattr(torch, self.dtype))

    def vision_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.family.vision_tower().parameters() if p.requires_grad]

    def provenance(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "model_type": self.model.config.model_type,
            "revision": self.revision,
            "license": self._license,
        }

    @cached_property
    def _license(self) -> str | None:
        return licence_of(self.source, self.revision)

    def export(self, folder: Path) -> dict[str, Any]:
        """Write model, tokenizer and image processor to `folder`, which transformers reads by itself.

        Before, this backbone becomes the frozen, plain model: adapters are merged, all weights are in `dtype`. A model
        card and licence texts go along.
        """
        self.prepare_to_act()
        plain_model(self.model).save_pretrained(folder)
        self.requires_grad_(False)
        self.trainable, self.lora_vision, self.gradient_checkpointing = "none", False, False
        self.family.tokenizer.save_pretrained(folder)
        self.family.image_processor.save_pretrained(folder)
        source, local = Path(self.source), is_folder(self.source)
        for pattern in ("README.md", "LICENSE*", "NOTICE*"):
            for text in source.glob(pattern) if local else ():
                shutil.copyfile(text, folder / text.name)
        origin = self.origin or self.provenance() | ({"source": source.name} if local else {})
        return {
            **self.config(),
            "name": f"hf:{origin['source']}",
            "provenance": origin,
            "folder": folder.name,
            "tensors": tensors_of(folder),
        }

    def train(self, mode: bool = True) -> HFBackbone:
        """Dropout stays off, so that critic targets and actions are repeatable."""
        super().train(mode)
        self.model.eval()
        return self


def _pooled_grid(grid: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The grid itself when it has at most `tokens` cells, else a smaller one of about the same shape."""
    height, width = grid
    if height * width <= tokens:
        return grid
    if height == 1:
        return 1, tokens
    scale = (tokens / (height * width)) ** 0.5
    rows = max(1, int(height * scale))
    return rows, max(1, min(width, tokens // rows))


def _pool(vision: Tensor, grid: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """(S, h·w, C) → (S, h'·w', C) by averaging cells."""
    if grid == pooled:
        return vision
    cells = vision.transpose(1, 2).reshape(len(vision), -1, *grid)
    return F.adaptive_avg_pool2d(cells, pooled).flatten(2).transpose(1, 2)


def _padded(prompts: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (S, T), padded at the end."""
    length = max(map(len, prompts))
    ids = torch.tensor([[*ids, *[pad_id] * (length - len(ids))] for ids in prompts])
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in prompts])
    return ids, mask
