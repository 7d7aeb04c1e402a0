"""Findings in what episodes are called and how they compare: labels, lengths, duplicates, spread, number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from corft_core.data import lerobot_format as fmt
from corft_core.data.findings import Finding
from corft_core.data.lerobot_reader import EpisodeDataset

FEW_EPISODES = 20
GRIPPER_TRAVEL = 0.2
OUTLIER = 3.0
"""An episode this many times longer or shorter than the median."""
DUPLICATE = 2e-3
"""Two episodes that differ by no more than this, in rad and opening, at any of 32 points of their course."""
SAME_START_RAD = 2e-3


def labels(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Success against reward and gripper, and instructions that differ by their writing only."""
    success = dataset.episode_success
    rewarded = np.add.reduceat(np.abs(dataset.reward), dataset.episode_starts[:-1]) > 0
    for episode in np.flatnonzero(success != rewarded):
        yield Finding("error", "label", "success without reward" if success[episode] else "reward without success",
                      "convert the bag again, or delete the episode", int(episode), name=fmt.REWARD)
    if not success.any():
        yield Finding("warning", "no_success", "no episode succeeded: imitation and the critic have no goal",
                      "mark successes with EpisodeEvent SUCCESS while recording")
    contract = dataset.contract
    if contract.action_gripper is not None:
        yield from _gripper(dataset, contract.action_gripper)
    yield from _writing(dataset.instructions)


def _gripper(dataset: EpisodeDataset, column: int) -> Iterator[Finding]:
    opening = np.nan_to_num(dataset.action[:, column])
    starts, ends = dataset.episode_starts[:-1], dataset.episode_starts[1:]
    low, high = np.minimum.reduceat(opening, starts), np.maximum.reduceat(opening, starts)
    worst = int(np.abs(opening - 0.5).argmax())
    if abs(opening[worst] - 0.5) > 0.55:
        episode = int(dataset.episode_index[worst])
        yield Finding("error", "gripper_range", f"the gripper's opening is {opening[worst]:.3g}, it must be 0 (closed) "
                      "to 1 (open)", "check open_position and closed_position in the contract", episode,
                      worst - int(starts[episode]), "gripper", float(opening[worst]))
    if np.all(high - low < GRIPPER_TRAVEL):
        yield Finding("warning", "gripper_still", f"the gripper never moves: opening {low.min():.2f} … "
                      f"{high.max():.2f} in all episodes", "check its topic and end positions in "
                      "the contract; remove it there when the task needs none", name="gripper",
                      amount=float((high - low).max()))
        return
    usual_end = np.median(opening[ends - 1])
    for k in np.flatnonzero(dataset.episode_success & (high - low < GRIPPER_TRAVEL)):
        yield Finding("warning", "label", "marked as success, but the gripper stays at "
                      f"{opening[ends[k] - 1]:.2f} while it moves in other episodes",
                      "look at the episode; delete it when the label is wrong", int(k), name="gripper")
    closed = low > 0.5
    if np.all(closed) and usual_end > 0.5:
        yield Finding("warning", "gripper_never_closes", f"the smallest opening is {low.min():.2f}: it never closes "
                      "half", "open and closed positions may be swapped or wrong in the contract", name="gripper",
                      amount=float(low.min()))


def _writing(instructions: list[str]) -> Iterator[Finding]:
    variants: dict[str, dict[str, int]] = {}
    for instruction in instructions:
        plain = re.sub(r"[\W_]+", " ", instruction).strip().lower()
        seen = variants.setdefault(plain, {})
        seen[instruction] = seen.get(instruction, 0) + 1
        if not plain:
            yield Finding("error", "instruction", "an instruction is empty", "give the task's text while recording")
            return
    for seen in variants.values():
        if len(seen) > 1:
            shown = ", ".join(f"{text!r} ({count})" for text, count in seen.items())
            yield Finding("warning", "instruction", f"written in {len(seen)} ways: {shown}",
                          "they are different tasks to a policy; use one writing", amount=float(len(seen)))


def lengths(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Episodes of unusual length, and too few of them."""
    steps = np.diff(dataset.episode_starts)
    if len(steps) < FEW_EPISODES:
        yield Finding("note", "few_episodes", f"{len(steps)} episodes; chunk policies are usually trained on 30 to 50 "
                      "a task", "record more", amount=float(len(steps)))
    for task in sorted(set(dataset.instructions)):
        members = np.array([k for k, name in enumerate(dataset.instructions) if name == task])
        median = float(np.median(steps[members]))
        for episode in members[(steps[members] > OUTLIER * median) | (steps[members] < median / OUTLIER)]:
            yield Finding("warning", "length", f"{steps[episode]} steps, the median of its task is {median:.0f}",
                          "cut short, or left running? look at it", int(episode),
                          amount=float(abs(np.log(steps[episode] / median))))


def duplicates(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Episodes that are copies of each other; in training and held-out part they would leak."""
    bounds = dataset.episode_starts
    points = np.stack([np.linspace(start, end - 1, 32).round().astype(np.int64)
                       for start, end in pairwise(bounds)])
    course = np.nan_to_num(np.concatenate([dataset.state, dataset.action], axis=1))[points]
    course = course.reshape(len(course), -1)
    steps = np.diff(bounds)
    for episode in range(1, len(course)):
        near = np.abs(course[:episode] - course[episode]).max(axis=1) < DUPLICATE
        near &= np.abs(steps[:episode] - steps[episode]) <= 1
        if near.any():
            yield Finding("warning", "duplicate", f"a copy of episode {int(np.flatnonzero(near)[0])} to within "
                          f"{DUPLICATE} rad", "was a bag converted twice? delete one", episode)


def starts(dataset: EpisodeDataset) -> Iterator[Finding]:
    """How different the first steps are: a policy meets what the demonstrations started from."""
    first = np.nan_to_num(dataset.state[dataset.episode_starts[:-1]])
    spread = float(first.std(axis=0).max())
    scenes = {scene for scene in dataset.scene_ids if scene}
    if len(first) > 1 and spread < SAME_START_RAD:
        yield Finding("note", "same_start", f"all episodes start from the same pose (spread {spread:.4f} rad); a "
                      "policy has not seen how to come back to it", "vary the start pose a little while recording",
                      amount=spread)
    if scenes and len(scenes) < min(5, len(first)):
        yield Finding("note", "few_scenes", f"only {len(scenes)} different scenes in {len(first)} episodes",
                      "vary the objects' places while recording", amount=float(len(scenes)))
