"""Any transformers image-text model as a backbone: pictures and instruction are encoded together.

Weights come from a folder written by `save_pretrained` (or downloaded), or from the hub. Only safetensors are
read, code from the hub is never run, and a folder never causes a request to the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Backbone, BackboneError, trainable_blocks
from .hf_families import Family, family_of


class HFBackbone(Backbone):
    """Hidden states at the pictures' places, pooled to at most `tokens` per camera, and of the last text token.

    Args:
        source: folder, or id on the hub.
        trainable: "none", "all" (everything the hidden states depend on), "last:n" (language model layers).
        tokens: most vision tokens per camera; a larger grid is averaged down to a square of this many.
        dtype: "float32", "bfloat16" or "float16" for the model's weights; results are always float32.
        revision: commit or tag on the hub; without meaning for a folder.

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
    ) -> None:
        super().__init__(cameras, image_size, trainable)
        if tokens < 1:
            raise BackboneError(f"tokens={tokens}: at least one vision token per camera is needed.")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise BackboneError(f"dtype={dtype!r} is not one of 'float32', 'bfloat16', 'float16'.")
        self.name, self.source = f"hf:{source}", source
        self.tokens, self.dtype, self.revision = tokens, dtype, revision
        family_class, self.model, tokenizer, image_processor = _load(source, getattr(torch, dtype), revision)
        self._family: Family = family_class(self.model, tokenizer, image_processor)
        self.model.eval()

        blank = torch.zeros(1, cameras, *self.image_size, 3, dtype=torch.uint8)
        grid = self._family.pixels(self._pictures(blank)).grid
        self._pooled = _pooled_grid(grid, tokens)
        width = int(self.model.config.get_text_config().hidden_size)
        self.vision_shape = (self._pooled[0] * self._pooled[1], width)
        self.text_dim = width

        last = trainable_blocks(trainable, len(self._family.layers()))
        self.requires_grad_(last is None)
        for layer in list(self._family.layers())[-last:] if last else ():
            layer.requires_grad_(True)
        for part in self._family.unused():
            part.requires_grad_(False)
        self.train()

    def encode(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """images uint8 (B, cams, H, W, 3) and B instructions → vision (B, cams, N, C), text (B, C)."""
        self.check_images(images)
        if len(texts) != len(images):
            raise BackboneError(f"{len(images)} observations, {len(texts)} instructions: give one each.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._encode(images, texts)

    def _encode(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        family, batch = self._family, len(images)
        device = next(self.model.parameters()).device
        pictures = self._pictures(images)
        per_prompt = len(pictures[0])
        pixels = family.pixels(pictures)
        for name, value in pixels.inputs.items():
            converted = value.to(device, self.model.dtype) if value.is_floating_point() else value.to(device)
            pixels.inputs[name] = converted
        prompts = []
        for text in texts:
            words = family.words(text)
            if family.image_id in words:
                raise BackboneError(f"The instruction {text!r} contains the model's picture token; leave it out.")
            prompts += [family.prompt(pixels.tokens, per_prompt, words)] * (self.cameras // per_prompt)
        ids, mask = _padded(prompts, family.tokenizer.pad_token_id or 0, device)
        hidden = family.hidden(ids, mask, pixels)  # (prompts, T, C)
        places = (ids == family.image_id) & mask.bool()
        vision = hidden[places].reshape(batch * self.cameras, pixels.tokens, -1)[:, pixels.extra :]
        vision = _pool(vision.float(), pixels.grid, self._pooled)
        text_vectors = hidden[torch.arange(len(ids), device=device), mask.sum(1) - 1]
        text_vectors = text_vectors.float().reshape(batch, -1, self.text_dim).mean(1)
        return vision.reshape(batch, self.cameras, *self.vision_shape), text_vectors

    def encode_images(self, images: Tensor) -> Tensor:
        raise BackboneError(f"Backbone {self.name!r} encodes pictures and text together: call encode().")

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        raise BackboneError(f"Backbone {self.name!r} encodes pictures and text together: call encode().")

    def _pictures(self, images: Tensor) -> list[list[Any]]:
        """(B, cams, H, W, 3) → pictures per prompt, as arrays."""
        arrays = images.cpu().numpy()
        if self._family.several_images:
            return [list(row) for row in arrays]
        return [[image] for row in arrays for image in row]

    def options(self) -> dict[str, Any]:
        return {
            "trainable": self.trainable,
            "tokens": self.tokens,
            "dtype": self.dtype,
            "revision": self.revision,
        }

    def provenance(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "model_type": self.model.config.model_type,
            "revision": getattr(self.model.config, "_commit_hash", None) or self.revision,
            "license": _license(Path(self.source)),
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


def _padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (S, T), padded at the end."""
    length = max(map(len, prompts))
    ids = torch.tensor([[*ids, *[pad_id] * (length - len(ids))] for ids in prompts], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in prompts], device=device)
    return ids, mask


def _load(source: str, dtype: torch.dtype, revision: str | None) -> tuple[type[Family], Any, Any, Any]:
    """Adapter class, model, tokenizer and image processor of `source`."""
    folder = Path(source).expanduser()
    local = folder.exists() or source.startswith((".", "/", "~"))
    if local and not (folder / "config.json").is_file():
        raise BackboneError(
            f"Expected a model folder with config.json, tokenizer and *.safetensors at {source}, found "
            f"{'no config.json in it' if folder.is_dir() else 'no such folder'}. Download one with: "
            f"hf download <hub id> --local-dir {source}"
        )
    with _explained(source, local):
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        where: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision}
        place = str(folder) if local else source
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
        family = family_of(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **where)
        image_processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False, **where)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
    model, report = loaded
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise BackboneError(
            f"The weights of {source} are incomplete: {len(lacking)} tensors of its own architecture are missing or "
            f"of another shape, first {lacking[0]}. Download the model again."
        )
    return family, model, tokenizer, image_processor


@contextmanager
def _explained(source: str, local: bool) -> Iterator[None]:
    """Loading errors of transformers and the hub, said in terms of what to do next."""
    try:
        yield
    except ImportError as error:
        raise BackboneError(f"Backbone hf:{source} needs a package that is missing ({error}). Install it.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if local:
            advice = (
                "Expected a folder of one image-text model, as save_pretrained or `hf download` writes it: "
                "config.json, tokenizer, preprocessor_config.json and *.safetensors."
            )
        else:
            advice = (
                "The hub id may be misspelt, gated (accept its licence on its page, then `hf auth login`), not an "
                "image-text model, or there is no network. Elsewhere: `hf download "
                f"{source} --local-dir FOLDER`, then use hf:FOLDER here."
            )
        raise BackboneError(f"Cannot load {source}: {reason} {advice}") from error


def _license(folder: Path) -> str | None:
    """`license:` of the model card beside the weights, when there is one."""
    card = folder.expanduser() / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    return None
