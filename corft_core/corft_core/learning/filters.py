"""Data arms of imitation: steps and episodes that stage 1 leaves out. The critic always sees everything.

"no_ops" drops steps at which nothing is commanded (OpenVLA's data preparation drops them too) and closes the gap:
a chunk goes on with the action after the pause. "fastest" keeps the shortest successful episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.data.chunks import ChunkTable, episode_bounds
from corft_core.features import StateFeatures
from corft_core.learning.config import SFTConfig


@dataclass(frozen=True)
class Imitation:
    """What stage 1 learns from, in the order of the chunk table's N rows."""

    rows: NDArray[np.bool_]
    """(N,) the steps it draws."""
    succeeded: NDArray[np.bool_]
    """(N,) the steps of successful episodes."""
    action: NDArray[np.float32]
    """(N, H, A) chunks to imitate."""
    valid: NDArray[np.bool_]
    """(N, H)."""
    removed_share: float
    """Share of the otherwise imitated steps that the filter removed, 0…1."""


def imitation_data(dataset: Any, table: ChunkTable, trained: NDArray[np.bool_], config: SFTConfig) -> Imitation:
    """Apply `config.filter` to the rows `trained` (N,) of a data set and its chunk table."""
    action, valid, kept = table.action, table.valid, np.ones(len(table), bool)
    succeeded = _of_successes(table, np.asarray(dataset.done, bool))
    eligible = trained & succeeded if config.successes_only else trained
    if config.filter == "no_ops":
        kept = ~no_ops(dataset, config.no_op_motion, config.no_op_opening)
        action, valid = skipping_chunks(table, kept)
    elif config.filter == "fastest":
        kept = _fastest(dataset, table, trained & succeeded, config.keep_share)
    rows = eligible & kept
    return Imitation(rows, succeeded, action, valid, 1.0 - rows.sum() / max(1, eligible.sum()))


def no_ops(dataset: Any, motion: float, opening: float) -> NDArray[np.bool_]:
    """Steps (N,) that command nothing, an episode's first and last step never among them.

    No joint's command moves by more than `motion` [rad; m for tool poses; twists and the displacements of a state
    benchmark count themselves, in their units] since the step before, and neither the gripper's command nor its
    measured opening by more than `opening` [0…1]: a closing gripper is waited for.
    """
    features, action = dataset.contract, np.asarray(dataset.action, np.float64)
    commanded, measured = features.action_gripper, features.state_gripper
    change = np.abs(np.diff(action, axis=0, prepend=action[:1]))
    speeds = isinstance(features, StateFeatures) or features.action_space == "tool_twist"
    arm = (np.abs(action) if speeds else change)[:, np.arange(action.shape[1]) != commanded]
    idle = arm.max(1) <= motion
    if commanded is not None and measured is not None:
        opened = np.asarray(dataset.state[:, measured], np.float64)
        idle &= np.maximum(change[:, commanded], np.abs(np.diff(opened, append=opened[-1:]))) <= opening
    for start, end in episode_bounds(dataset.episode_index):
        idle[[start, end - 1]] = False
    return idle


def skipping_chunks(table: ChunkTable, kept: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Chunks made of the kept steps (N,) alone: row t holds the H first kept actions from t on → (N, H, A), (N, H).

    The last step of every episode must be kept. Steps past it repeat it and are not valid.
    """
    action, valid = np.empty_like(table.action), np.empty_like(table.valid)
    for start, end in episode_bounds(table.episode):
        places = np.flatnonzero(kept[start:end])
        picked = np.searchsorted(places, np.arange(end - start))[:, None] + np.arange(table.horizon)
        valid[start:end] = picked < len(places)
        action[start:end] = table.action[start + places[np.minimum(picked, len(places) - 1)], 0]
    return action, valid


def _fastest(
    dataset: Any, table: ChunkTable, rows: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Rows (N,) of the shortest `share` of each instruction's episodes among `rows`, at least one of each."""
    lengths: dict[str, list[tuple[int, int]]] = {}
    texts = dataset.instructions
    for start, end in episode_bounds(table.episode):
        if rows[start]:
            episode = int(table.episode[start])
            lengths.setdefault(texts[episode], []).append((end - start, episode))
    chosen = [episode for found in lengths.values()
              for _, episode in sorted(found)[: max(1, math.ceil(share * len(found) - 1e-9))]]
    return np.isin(table.episode, chosen)


def _of_successes(table: ChunkTable, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.isin(table.episode, table.episode[done])
