"""Checkpoint folder: model.safetensors, config.json, contract.json, statistics.json. Written atomically, read strictly.

Weights of the backbone that training did not move and that come from elsewhere are not stored: config.json carries
their source, revision, licence and fingerprint. An exported policy is a checkpoint that holds the backbone too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from corft_core.contract import load_features
from corft_core.data.statistics import Statistics
from corft_core.errors import CorftError
from corft_core.features import Features, differences
from corft_core.files import atomic_folder, write_json
from corft_core.policy.actor import Actor, Critic, Shapes
from corft_core.policy.backbones import Backbone, backbone_from_config
from corft_core.policy.config import PolicyConfig
from corft_core.policy.options import parse

FORMAT_VERSION = 2
FILES = ("model.safetensors", "config.json", "contract.json", "statistics.json")


class CheckpointError(CorftError):
    """A checkpoint that is missing, damaged, of another format or of another robot."""


@dataclass
class Bundle:
    """A policy's networks with everything needed to use them."""

    config: PolicyConfig
    contract: Features
    statistics: Statistics
    backbone: Backbone
    actor: Actor
    critic: Critic | None
    policy_id: str
    stage: str
    instructions: tuple[str, ...]


def network_shapes(backbone: Backbone, contract: Features) -> Shapes:
    """Sizes of the experts for this backbone and robot."""
    return Shapes(
        cameras=len(contract.cameras),
        vision_shape=backbone.vision_shape,
        text_dim=backbone.text_dim,
        state_dim=len(contract.state_names),
        action_dim=len(contract.action_names),
        gripper=contract.state_gripper is not None,
    )


def save_checkpoint(folder: Path | str, bundle: Bundle, backbone_weights: dict[str, Tensor] | None = None) -> None:
    """Write the bundle; an existing checkpoint is replaced in one step. backbone_weights: its `saved_state`, where that
    was asked for before."""
    weights = bundle.backbone.saved_state() if backbone_weights is None else backbone_weights
    with atomic_folder(folder, overwrite=True) as temporary:
        write_bundle(temporary, bundle, bundle.backbone.config(), weights)


def write_bundle(folder: Path, bundle: Bundle, backbone: dict[str, Any], backbone_weights: dict[str, Tensor]) -> None:
    """Write the bundle's files into an existing folder, with this description and these weights of the backbone."""
    weights: dict[str, Tensor] = {}
    for prefix, module in (("actor", bundle.actor), ("critic", bundle.critic)):
        if module is not None:
            weights |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    weights |= {f"backbone.{name}": value for name, value in backbone_weights.items()}
    stored = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    save_file(stored, folder / "model.safetensors")
    write_json(folder / "config.json", {
        "format_version": FORMAT_VERSION,
        "policy_id": bundle.policy_id,
        "stage": bundle.stage,
        "critic": bundle.critic is not None,
        "instructions": list(bundle.instructions),
        "policy": asdict(bundle.config),
        "backbone": backbone,
    })
    write_json(folder / "contract.json", bundle.contract.to_dict())
    write_json(folder / "statistics.json", bundle.statistics.to_dict())


def load_checkpoint(folder: Path | str, robot: Features | None = None) -> Bundle:
    """Read what `save_checkpoint` or `export_policy` wrote.

    `robot`: when given, a checkpoint trained for another contract raises CheckpointError listing the differences.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} is no checkpoint: {', '.join(missing)} missing. Give a folder like RUN/checkpoints/co_rft."
        )
    header = _read_json(folder / "config.json")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint format {version!r}, this corft reads {FORMAT_VERSION}: train again or use the "
            "corft version that wrote it."
        )
    contract = load_features(folder / "contract.json")
    check_robot(contract, robot, folder)
    statistics = Statistics.from_dict(_read_json(folder / "statistics.json"))
    config = parse(PolicyConfig, header["policy"])
    if statistics.horizon != config.horizon:
        raise CheckpointError(f"{folder}: statistics for {statistics.horizon} steps, policy of {config.horizon}.")
    backbone = backbone_from_config(header["backbone"], policy=folder)
    shapes = network_shapes(backbone, contract)
    actor = Actor(shapes, config)
    critic = Critic(shapes, config) if header["critic"] else None
    try:
        weights = load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}/model.safetensors is damaged ({error}); copy the checkpoint again.") from error
    _load(actor, _part(weights, "actor"), folder)
    if critic is not None:
        _load(critic, _part(weights, "critic"), folder)
    backbone.load_saved_state(_part(weights, "backbone"))
    unknown = [k for k in weights if k.split(".")[0] not in ("actor", "critic", "backbone")]
    if unknown or (critic is None and _part(weights, "critic")):
        raise CheckpointError(f"{folder}/model.safetensors holds weights nobody asked for: {unknown or 'critic'}.")
    return Bundle(
        config=config, contract=contract, statistics=statistics, backbone=backbone, actor=actor, critic=critic,
        policy_id=header["policy_id"], stage=header["stage"], instructions=tuple(header["instructions"]),
    )


def check_robot(trained: Features, robot: Features | None, folder: Path | str) -> None:
    """Raise CheckpointError with the differences when `robot` is not what the checkpoint was trained for."""
    different = differences(trained, robot) if robot is not None else []
    if different:
        raise CheckpointError(
            f"checkpoint {folder} was trained for another robot (checkpoint != given contract):\n  "
            + "\n  ".join(different) + "\nUse a checkpoint trained with this contract."
        )


def with_selection(config: PolicyConfig, samples: int) -> PolicyConfig:
    """The same policy drawing another number of chunks at run time."""
    return replace(config, selection=replace(config.selection, samples=samples))


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}."): value for key, value in weights.items() if key.startswith(f"{prefix}.")}


def _load(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}/model.safetensors does not fit its config.json: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; copy the checkpoint again.") from error


def move(bundle: Bundle, device: torch.device | str) -> Bundle:
    """Put all networks on a device, in evaluation mode."""
    for module in (bundle.backbone, bundle.actor, bundle.critic):
        if module is not None:
            module.to(device).eval()
    return bundle
