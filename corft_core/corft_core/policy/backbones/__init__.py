"""Exchangeable vision-language backbones of the policy: `make_backbone` builds one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .base import Backbone, BackboneError
from .exported import exported_folder

__all__ = ["BACKBONES", "Backbone", "BackboneError", "backbone_from_config", "make_backbone"]

BACKBONES = ("effnet", "tiny", "none", "hf:<folder or hub id>")


def make_backbone(name: str, cameras: int = 2, image_size: Sequence[int] = (128, 128), **options: Any) -> Backbone:
    """Build the backbone called `name` for `cameras` images of `image_size` (height, width) pixels.

    Args:
        name: "effnet" (default of the trainer), "tiny", "none" (tasks without cameras), or "hf:" followed by a folder
            or a hub id of any transformers image-text model that a family in `hf_families.py` covers.
        options: passed to the backbone's class; all of them know `trainable` ("none", "all", "last:n").

    Raises BackboneError for an unknown name or option, missing weights, or an image size that does not fit.
    """
    kind, _, source = name.partition(":")
    if kind == "effnet" and not source:
        from .effnet import EffNetBackbone

        return _build(EffNetBackbone, name, cameras=cameras, image_size=image_size, **options)
    if kind == "tiny" and not source:
        from .tiny import TinyBackbone

        return _build(TinyBackbone, name, cameras=cameras, image_size=image_size, **options)
    if kind == "none" and not source:
        from .none import NoBackbone

        return _build(NoBackbone, name, cameras=cameras, image_size=image_size, **options)
    if kind == "hf" and source:
        from .hf import HFBackbone

        return _build(HFBackbone, name, source=source, cameras=cameras, image_size=image_size, **options)
    raise BackboneError(f"Unknown backbone {name!r}. Expected one of: {', '.join(BACKBONES)}.")


def backbone_from_config(config: Mapping[str, Any], name: str | None = None, policy: Path | None = None) -> Backbone:
    """Rebuild what `Backbone.config()` or `Backbone.export()` described.

    Args:
        name: replaces the stored name, for weights that have moved ("hf:<new folder>").
        policy: folder of the checkpoint or exported policy; an exported backbone lies inside.

    Raises BackboneError when weights that no checkpoint holds are no longer those it was trained with.
    """
    exported = "folder" in config
    if exported and policy is not None:
        name = f"hf:{exported_folder(config, policy)}"
    shape = {"cameras": config["cameras"], "image_size": config["image_size"]}
    backbone = make_backbone(name or config["name"], **shape, **config["options"])
    if exported:
        backbone.origin = config["provenance"]
    expected, found = config.get("fingerprint"), backbone.fingerprint_elsewhere()
    if expected is not None and found != expected:
        raise BackboneError(
            f"The weights of backbone {backbone.name!r} are not the ones this checkpoint was trained with (expected "
            f"fingerprint {expected}, found {found}). Install the same package version or give the same model folder "
            "as in training."
        )
    return backbone


def _build(cls: type[Backbone], name: str, **arguments: Any) -> Backbone:
    import inspect

    fixed = {"cameras", "image_size", "source", "weights"}
    known = [key for key in inspect.signature(cls).parameters if key not in fixed]
    unknown = sorted(arguments.keys() - fixed - set(known))
    if unknown:
        raise BackboneError(f"Backbone {name!r} has no option {unknown[0]!r}. Known: {', '.join(known)}.")
    return cls(**arguments)
