"""A trained policy as one plain folder that needs nothing else: weights, configuration, processor, contract, card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from corft_core.errors import CorftError
from corft_core.files import atomic_folder, write_text
from corft_core.learning.model_card import model_card
from corft_core.learning.run_folder import RunFolder
from corft_core.policy.checkpoint import load_checkpoint, write_bundle

STAGES = ("co_rft", "sft")
"""Stages of a run; the first one that is there is exported."""


def export_policy(source: Path | str, out: Path | str, overwrite: bool = False) -> Path:
    """Write the policy of a run's last stage, or of one checkpoint, to the new folder `out`.

    The folder is a checkpoint (`load_checkpoint`, `Policy.load` and policy_node read it) that also holds the backbone
    where its weights come from a folder or the hub, with what fine-tuning made of them; and README.md, a model card.
    Raises CorftError when there is no finished checkpoint, or `out` exists and `overwrite` is false.
    """
    checkpoint, out = _checkpoint(Path(source)), Path(out)
    if out.exists() and not overwrite:
        raise CorftError(f"{out} exists. Name a new folder, or give --overwrite to replace it.")
    if out.resolve() == checkpoint.resolve():
        raise CorftError(f"{out} is the checkpoint itself: name another folder.")
    bundle = load_checkpoint(checkpoint)
    with atomic_folder(out, overwrite) as temporary:
        description = bundle.backbone.export(temporary / "backbone")
        if "folder" in description:
            named = {"backbone": description["name"], "backbone_options": description["options"]}
            bundle = replace(bundle, config=replace(bundle.config, **named))
        # An exported backbone is frozen: nothing of it is left to store here.
        write_bundle(temporary, bundle, description, bundle.backbone.saved_state())
        write_text(temporary / "README.md", model_card(bundle, description, _of_run(checkpoint)))
    return out


def _checkpoint(source: Path) -> Path:
    """The checkpoint meant by a run's folder or a checkpoint's."""
    found = [source / "checkpoints" / stage for stage in STAGES if (source / "checkpoints" / stage).is_dir()]
    if found:
        return found[0]
    if (source / "checkpoints").exists() or not (source / "model.safetensors").is_file():
        raise CorftError(
            f"Expected a run with a finished stage, or a checkpoint like RUN/checkpoints/co_rft, at {source}, found "
            "neither. Train first: ros2 run corft trainer DATASET RUN")
    return source


def _of_run(checkpoint: Path) -> dict[str, Any]:
    """What the run around a checkpoint knows: `data_digest`, `train` settings, `check` of this stage; or nothing."""
    run = RunFolder(checkpoint.parent.parent)
    if checkpoint.parent.name != "checkpoints" or not (run.folder / "config.json").is_file():
        return {}
    header = json.loads((run.folder / "config.json").read_text())
    report = json.loads(run.check_path.read_text()) if run.check_path.exists() else {"checkpoints": {}}
    found = report["checkpoints"].get(checkpoint.name)
    return {
        "data_digest": header["data_digest"], "train": header["train"],
        "check": None if found is None else report | {"checkpoints": {checkpoint.name: found}},
    }
