"""Models, tokenizers and image processors of `hf:` backbones, from a folder or the hub.

Only safetensors are read, code from the hub is never run, and a folder never causes a request to the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from .base import BackboneError
from .hf_families import family_of
from .hf_family import Family


def load(
    source: str, dtype: torch.dtype, revision: str | None, attn_implementation: str | None = None, weights: bool = True
) -> tuple[type[Family], Any, Any, Any]:
    """Adapter class, model, tokenizer and image processor of `source`."""
    folder = Path(source).expanduser()
    local = is_folder(source)
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
        if not weights:
            with torch.device("meta"):
                model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
            return family, model, tokenizer, image_processor
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
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
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if local:
            advice = (
                "Expected a folder of one image-text model, as save_pretrained or `hf download` writes it: "
                "config.json, tokenizer, preprocessor_config.json and *.safetensors."
            )
        else:
            advice = (
                "Its authors give access on request: accept the licence on the model's page, then `hf auth login` "
                "with a token that may read it. "
                if "gated" in str(error).lower()
                else "The hub id may be misspelt, not an image-text model, or there is no network. "
            ) + f"Elsewhere: `hf download {source} --local-dir FOLDER`, then use hf:FOLDER here."
        raise BackboneError(f"Cannot load {source}: {reason} {advice}") from error


def licence_of(source: str, revision: str | None) -> str | None:
    """`license:` of the model card beside the weights or on the hub, when there is one."""
    card = Path(source) / "README.md"
    if not is_folder(source):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            card = Path(hf_hub_download(source, "README.md", revision=revision))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
            return None
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    return None


def is_folder(source: str) -> bool:
    """Whether a source means a folder, there or not; else it is a hub id."""
    return Path(source).expanduser().exists() or source.startswith((".", "/", "~"))
