"""RUN/offline_check.json: what can be said of a checkpoint before a robot moves. None of it is a success rate.

Action error against recorded chunks, and the critic's value at recorded starts. Both go through `Policy.act`, as on
the robot. A policy may err little and fail, or differ from a demonstration and do better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.chunks import ChunkTable, build_chunks, episode_bounds
from corft_core.data.history import Spacing, past_rows
from corft_core.features import Features
from corft_core.learning.config import TrainConfig
from corft_core.learning.prepared import check_data
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.training_data import TrainingData
from corft_core.policy.policy import Policy

NO_SUCCESS_RATE = "offline figures on recorded data; no success rate: only trials on the robot or in the cell give one"
BATCH = 32


def check_policy(
    policy: Policy, dataset: TrainingData, table: ChunkTable, rows: NDArray[np.bool_], frames: int
) -> dict[str, Any]:
    """Compare a policy with the recorded chunks at about `frames` of `rows` (N,), and at the starts of their episodes.

    Keys: unit; action_error [H], mean absolute error of the arm's commands at each step of the chunk; gripper_agreement
    [H], share of steps whose gripper is commanded to the same side of half open (null without gripper); frames;
    starts, one entry an episode with the critic's value (null without a critic) and the discounted return that
    followed.
    """
    some = np.flatnonzero(rows)
    some = some[:: max(1, len(some) // max(1, frames))]
    first = np.array([start for start, _ in episode_bounds(table.episode) if rows[start]])
    chunks, _ = _act(policy, dataset, table, some)
    _, value = _act(policy, dataset, table, first)
    error = np.abs(chunks - table.action[some])
    valid = table.valid[some]
    count = np.maximum(valid.sum(0), 1)
    gripper = dataset.contract.action_gripper
    arm = np.arange(error.shape[-1]) != gripper
    agrees = None if gripper is None else (chunks[..., gripper] > 0.5) == (table.action[some][..., gripper] > 0.5)
    succeeded = set(table.episode[np.asarray(dataset.done, bool)].tolist())
    return {
        "unit": _unit(dataset.contract),
        "action_error": _rounded((error[..., arm].mean(-1) * valid).sum(0) / count),
        "gripper_agreement": None if agrees is None else _rounded((agrees & valid).sum(0) / count),
        "frames": len(some),
        "starts": [
            {"episode": int(table.episode[row]), "value": None if np.isnan(v) else round(float(v), 4),
             "return": round(float(table.mc_return[row]), 4), "success": int(table.episode[row]) in succeeded}
            for row, v in zip(first, value, strict=True)
        ],
    }


def measured_on(held_out: int, episodes: int) -> str:
    """Says which episodes a run's own check looks at."""
    if held_out:
        return f"the last {held_out} of {episodes} episodes, held out of training"
    return f"the {episodes} training episodes (held_out = 0): how well the data is fitted, not how it generalises"


def check_run(folder: Path | str, dataset: TrainingData, config: TrainConfig, device: str, own: bool) -> dict[str, Any]:
    """Check every checkpoint of a run; `own`: the data set is the one it was trained on, so held-out episodes count."""
    check_data(dataset, config)
    table = build_chunks(
        dataset.episode_index, dataset.action, dataset.reward, dataset.done, config.policy.horizon,
        config.co_rft.gamma, config.co_rft.reward_copies,
    )
    held_out = config.held_out if own else 0
    rows = table.episode >= table.episode.max() + 1 - held_out if held_out else np.ones(len(table), bool)
    where = measured_on(held_out, dataset.num_episodes) if own else f"all {dataset.num_episodes} episodes given"
    run = RunFolder(folder)
    found = {stage: run.checkpoint(stage) for stage in ("sft", "co_rft") if run.checkpoint(stage).exists()}
    checked = {}
    for stage, path in found.items():
        policy = Policy.load(path, device, dataset.contract)
        checked[stage] = check_policy(policy, dataset, table, rows, config.check_frames or 256)
    return {"note": NO_SUCCESS_RATE, "measured_on": where, "checkpoints": checked}


def lines(report: dict[str, Any]) -> list[str]:
    """The report in words, one line a checkpoint."""
    text = [f"offline check on {report['measured_on']}; no success rate:"]
    for stage, found in report["checkpoints"].items():
        error, unit = found["action_error"], found["unit"]
        line = (f"  {stage}: action error {error[0]:.3g} {unit} at the chunk's first step, {error[-1]:.3g} at its "
                "last")
        if found["gripper_agreement"] is not None:
            line += f"; gripper agrees {np.mean(found['gripper_agreement']):.0%}"
        if found["starts"] and found["starts"][0]["value"] is not None:
            value, realised = (float(np.mean([start[key] for start in found["starts"]])) for key in ("value", "return"))
            line += f"; value at the starts {value:.3f}, realised return {realised:.3f}"
        text.append(line)
    return text


def _act(
    policy: Policy, dataset: TrainingData, table: ChunkTable, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    images, texts = dataset.images(), dataset.instructions
    generator = torch.Generator().manual_seed(0)
    spacing, step_ns = policy.spacing, round(1e9 / policy.rate_hz)
    before, _ = past_rows(table.episode, Spacing(spacing.steps, spacing.stride // step_ns))
    chunks, values = [], []

    def seen(part: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.uint8]], NDArray, list[str]]:
        return ({name: np.asarray(pictures[part]) for name, pictures in images.items()}, dataset.state[part],
                [texts[episode] for episode in table.episode[part]])

    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        histories = [policy.new_history() for _ in part]
        for earlier in before[part, :-1].T:
            policy.remember(*seen(earlier), histories, (earlier * step_ns).tolist())
        prediction = policy.act(*seen(part), generator, histories=histories, stamps_ns=(part * step_ns).tolist())
        chunks.append(prediction.actions)
        values.append(prediction.value)
    return np.concatenate(chunks), np.concatenate(values)


def _unit(features: Features) -> str:
    units = {"joint": "rad", "tool_pose": "m and entries of the rotation", "tool_twist": "m/s and rad/s"}
    return units[features.action_space] if isinstance(features, Contract) else "unit of the action"


def _rounded(values: NDArray) -> list[float]:
    return [round(float(value), 5) for value in values]
