"""The backbone inside an exported policy: its tensors are written down, and compared before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .base import BackboneError


def tensors_of(folder: Path) -> dict[str, str]:
    """Type and shape of every tensor in the folder's *.safetensors, such as {"lm_head.weight": "F32 [64, 32]"}.

    Only headers are read. Raises BackboneError when there is none, or one is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BackboneError(f"Expected the weights of a backbone at {folder}, found no *.safetensors. Copy the whole "
                            "policy again.")
    found = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  it is no mapping
                    part = file.get_slice(name)
                    found[name] = f"{part.get_dtype()} {part.get_shape()}"
        except (SafetensorError, OSError) as error:
            raise BackboneError(f"{path} is damaged ({error}); copy the policy again.") from error
    return dict(sorted(found.items()))


def exported_folder(config: Mapping[str, Any], policy: Path) -> Path:
    """The backbone's folder inside the exported `policy` that `config` was stored with.

    Raises BackboneError naming tensors that are missing, extra or of another type or shape.
    """
    folder, expected = policy / config["folder"], config["tensors"]
    found = tensors_of(folder)
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [f"{name} {found[name]} (expected {expected[name]})" for name in sorted(expected.keys() & found.keys())
             if found[name] != expected[name]]
    if missing or extra or other:
        raise BackboneError(
            f"{folder} is not the backbone that was exported with this policy: missing {missing[:3]}, extra "
            f"{extra[:3]}, other {other[:3]}. Export or copy the policy again."
        )
    return folder
