"""Intervals over runs: the hierarchical bootstrap tasks → runs × scenes.

In every draw the tasks are drawn with replacement; in each drawn task its runs (seeds: demonstrations and training
both) and its scenes, each with replacement. All runs of a task meet the same scenes, so runs and scenes are crossed: a
drawn scene brings the trials of all drawn runs and of all compared arms along (Owen, "The pigeonhole bootstrap", 2007).
The figure is computed anew from the drawn data, and the interval holds its middle 95 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Means over runs and trials (draws, tasks, columns) → the figure (draws,)."""

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Block:
    """Trials of one split: ``tasks[t][r]`` is (N, K), a row a scene, a column a quantity. Runs of a task with the same
    N have the same scenes in the same order."""

    tasks: Sequence[Sequence[Array]]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; ``n`` runs behind it. NaN where nothing can be said.

    ``trials_only``: one run a task, so that within a task the interval holds the spread of trials, not that of runs.
    """

    value: float
    low: float
    high: float
    n: int
    trials_only: bool = False


def hierarchical(blocks: Sequence[Block], statistics: Mapping[str, Statistic], *, draws: int = DRAWS, seed: int = 0,
                 tasks_vary: bool = True) -> dict[str, Interval]:
    """Each figure of the data with its interval.

    ``blocks`` describe the same tasks and runs; their columns are joined. ``tasks_vary=False`` keeps the tasks as
    they are, for a claim about these tasks only. Draws in which a figure is undefined (a cycle time without a
    success) are left out of its interval.
    """
    counts = [len(runs) for runs in blocks[0].tasks]
    if not counts or not all(counts):
        return {name: Interval(np.nan, np.nan, np.nan, 0) for name in statistics}
    rng = np.random.default_rng(seed)
    fixed = np.tile(np.arange(len(counts)), (draws, 1))
    picked = rng.integers(0, len(counts), fixed.shape) if tasks_vary else fixed
    means = np.concatenate([_observed(block) for block in blocks], axis=1)[None]
    # Which runs are drawn is shared by the blocks: both splits of a drawn run come along.
    runs = rng.random((draws, len(counts), max(counts)))
    sampled = np.concatenate([_resampled(block, picked, runs, seed + 1 + i) for i, block in enumerate(blocks)], axis=2)
    return {name: _interval(statistic, means, sampled, counts) for name, statistic in statistics.items()}


def _interval(statistic: Statistic, means: Array, sampled: Array, counts: Sequence[int]) -> Interval:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        value, values = float(statistic(means)[0]), statistic(sampled)
    values = values[~np.isnan(values)]
    tail = (1 - CONFIDENCE) / 2
    # The nearest draw, since between a number and the infinite ratio to a zero there is nothing to interpolate.
    low, high = np.quantile(values, [tail, 1 - tail], method="nearest") if len(values) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), sum(counts), max(counts) == 1)


def _observed(block: Block) -> Array:
    """Means (T, K) over runs of their means over trials."""
    return np.stack([np.mean([run.mean(0) for run in runs], axis=0) for runs in block.tasks])


def _resampled(block: Block, picked: NDArray[np.int64], runs: Array, seed: int) -> Array:
    """The same (draws, T, K) of resampled data."""
    columns = block.tasks[0][0].shape[1]
    result = np.empty((*picked.shape, columns))
    for task, data in enumerate(block.tasks):
        draw, slot = np.nonzero(picked == task)
        chosen = (runs[draw, slot, :len(data)] * len(data)).astype(np.int64)  # (M, R)
        sums = np.zeros((len(draw), columns))
        for place in range(len(data)):
            for number, trials in enumerate(data):
                rows = np.flatnonzero(chosen[:, place] == number)
                often = _scene_counts(*picked.shape, len(trials), seed)[draw[rows], slot[rows]]
                sums[rows] += often @ trials / len(trials)
        result[draw, slot] = sums / len(data)
    return result


@lru_cache(maxsize=16)
def _scene_counts(draws: int, tasks: int, scenes: int, seed: int) -> NDArray[np.float32]:
    """How often each scene is drawn in each drawn task of each draw, (draws, tasks, scenes)."""
    places = draws * tasks
    picked = np.random.default_rng(seed).integers(0, scenes, (places, scenes))
    picked += scenes * np.arange(places)[:, None]
    counts = np.bincount(picked.ravel(), minlength=places * scenes)
    return counts.astype(np.float32).reshape(draws, tasks, scenes)
