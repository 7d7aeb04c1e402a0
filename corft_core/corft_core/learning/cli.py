"""From command-line words to a training run; no ROS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.devices import usable_device
from corft_core.files import write_json
from corft_core.learning.config import TrainConfig
from corft_core.learning.offline_check import check_run, lines
from corft_core.learning.run_folder import FINISHED, RunFolder
from corft_core.learning.trainer import train
from corft_core.policy.options import ConfigError, describe, override


def print_settings() -> None:
    """Every setting of a run with its default, meaning and source."""
    print("\n".join(describe(TrainConfig)))


def read_settings(config: Path | None, assignments: Sequence[str], backbone: str | None) -> TrainConfig:
    """Settings from a YAML file, `key=value` words and the --backbone shortcut, later ones winning."""
    data: Any = {}
    if config is not None:
        try:
            data = yaml.safe_load(config.read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"settings file {config} cannot be read: {error}") from error
    pairs: dict[str, Any] = {}
    for word in assignments:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {word}: expected key=value, for example --set sft.steps=3000.")
        pairs[key] = yaml.safe_load(value)
    if backbone is not None:
        pairs["policy.backbone"] = backbone
    return override(TrainConfig, data, pairs)


def start_run(
    dataset: Path, folder: Path, config: Path | None, assignments: Sequence[str], backbone: str | None, device: str,
    quiet: bool, init: Path | None = None,
) -> Path:
    """Open the data set and train into a new folder, from the finished parts of the run `init` where one is given."""
    settings = read_settings(config, assignments, backbone)
    data = EpisodeDataset.open(dataset)
    device = usable_device(device)
    _announce(data, settings, device)
    return train(data, folder, settings, dataset_path=dataset, init=init, device=device, quiet=quiet)


def resume_run(folder: Path, device: str, quiet: bool) -> Path:
    """Continue a run from its last save, with its own settings and data set."""
    run = RunFolder(folder)
    settings, dataset = run.read()
    saved = run.saved()
    if saved is not None and saved[0] == FINISHED:
        print(f"{folder} is finished; to go on with other settings give --from {folder}", flush=True)
    device = usable_device(device)
    return train(EpisodeDataset.open(dataset), folder, settings, resume=True, device=device, quiet=quiet)


def check_run_offline(folder: Path, dataset: Path | None, device: str) -> Path:
    """Check a run's checkpoints against its own data set or another one; returns the report's path."""
    run = RunFolder(folder)
    settings, own = run.read()
    report = check_run(folder, EpisodeDataset.open(dataset or own), settings, usable_device(device),
                       own=dataset is None)
    path = run.check_path if dataset is None else folder / f"offline_check_{dataset.resolve().name}.json"
    write_json(path, report)
    print("\n".join(lines(report)), flush=True)
    return path


def _announce(data: EpisodeDataset, settings: TrainConfig, device: str) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun one of several talks
        return
    horizon, rate = settings.policy.horizon, data.contract.rate_hz
    print(
        f"{data.num_episodes} episodes, {data.num_frames} steps at {rate} Hz; chunks of {horizon} steps = "
        f"{horizon / rate:.2f} s; backbone {settings.policy.backbone}, head {settings.policy.head.kind}, "
        f"extraction {settings.co_rft.extraction}, device {device}", flush=True,
    )
