"""Closed-loop trials of a policy in simulated worlds, several at a time, without ROS.

The policy sees what it would see through the graph: camera images and state at the contract's rate. It replans every
``replan_steps`` steps of its chunk (receding horizon), unless it says itself how much of a chunk to execute.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corft_core.data.history import History
from corft_core.evaluation.environment import Environment
from corft_core.evaluation.results import EpisodeResult

if TYPE_CHECKING:
    from corft_core.policy import Policy

CELLS_AT_ONCE = 8
SCENES_PER_TASK = 10


@dataclass
class _Trial:
    """A running trial and what is known of it so far. ``ahead`` (n, A): actions before the next chunk is due.
    ``history``: the policy's memory of it."""

    environment: Environment
    scene_id: str
    target_xy_m: tuple[float, float]
    history: History
    chunks: int = 0
    success: bool = False
    steps: int = 0
    ahead: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def stamp_ns(self) -> int:
        """Time since the trial began."""
        return self.steps * round(1e9 / self.environment.features.rate_hz)


def run_trials(policy: Policy, environments: Sequence[Any], scene_ids: Sequence[str], horizon_steps: int, *,
               replan_steps: int = 5, seed: int = 0, on_step: Callable[[Any], None] = lambda environment: None,
               ) -> Iterator[EpisodeResult]:
    """Yield a result for each scene, in order.

    ``environments`` (:class:`Environment`) step in lock-step, so that one call of the policy serves all of them.
    ``on_step(environment)`` is called after every step of a running trial. The same arguments give the same results.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(scene_ids), len(environments)):
        group = scene_ids[start:start + len(environments)]
        trials = [_begin(environment, scene_id, policy.new_history())
                  for environment, scene_id in zip(environments, group, strict=False)]
        _run_group(policy, trials, horizon_steps, replan_steps, generator, on_step)
        for trial in trials:
            time_s = trial.steps * (1.0 / trial.environment.features.rate_hz)
            yield EpisodeResult(trial.scene_id, trial.success, time_s, trial.target_xy_m, trial.chunks)


def _begin(environment: Environment, scene_id: str, history: History) -> _Trial:
    environment.reset(scene_id)
    x, y = environment.target_xy_m
    return _Trial(environment, scene_id, (round(float(x), 4), round(float(y), 4)), history)


def _run_group(policy: Policy, trials: list[_Trial], horizon_steps: int, replan_steps: int, generator: Any,
               on_step: Callable[[Any], None]) -> None:
    running = list(trials)
    for _ in range(horizon_steps):
        due = [trial for trial in running if not len(trial.ahead)]
        remembered = [trial for trial in running if len(trial.ahead) and _looked_back_at(trial, policy, replan_steps)]
        _plan(policy, due, replan_steps, generator)
        if remembered:
            policy.remember(*_seen(remembered))
        for trial in running:
            trial.environment.step(trial.ahead[0])
            trial.ahead = trial.ahead[1:]
            trial.steps += 1
            trial.success = bool(trial.environment.success)
            on_step(trial.environment)
        running = [trial for trial in running if not trial.success]
        if not running:
            return


def _plan(policy: Policy, trials: list[_Trial], replan_steps: int, generator: Any) -> None:
    """Give each trial a new chunk, and as much of it to execute as the policy says, or else ``replan_steps``."""
    if not trials:
        return
    images, state, instructions, histories, stamps_ns = _seen(trials)
    prediction = policy.act(images, state, instructions, generator, histories=histories, stamps_ns=stamps_ns)
    for number, (trial, chunk) in enumerate(zip(trials, prediction.actions, strict=True)):
        wanted = math.nan if prediction.steps is None else float(prediction.steps[number])
        trial.environment.start_chunk(chunk)
        trial.ahead = chunk[:replan_steps if math.isnan(wanted) else round(wanted)]
        trial.chunks += 1


def _looked_back_at(trial: _Trial, policy: Policy, replan_steps: int) -> bool:
    """Whether a later chunk of this trial depends on what is to be seen now, between two chunks."""
    step_ns = round(1e9 / policy.rate_hz)
    return policy.spacing.serves(len(trial.ahead) * step_ns, replan_steps * step_ns)


def _seen(trials: list[_Trial]) -> tuple[dict[str, NDArray[np.uint8]], NDArray, list[str], list[History], list[int]]:
    """Images, state, instructions, histories and times, as the policy takes them."""
    seen = [trial.environment.observe() for trial in trials]
    images = {name: np.stack([pictures[name] for pictures, _ in seen]) for name in seen[0][0]}
    return (images, np.stack([vector for _, vector in seen]), [trial.environment.instruction for trial in trials],
            [trial.history for trial in trials], [trial.stamp_ns for trial in trials])


def _task(checkpoint: str, scenes: list[str], horizon_s: float, replan_steps: int, seed: int) -> list[EpisodeResult]:
    """A worker's share: runs in a process of its own."""
    import torch

    from corft_core.cell.suite import CellEnvironment
    from corft_core.policy import Policy

    torch.set_num_threads(1)
    policy = Policy.load(checkpoint)
    environments = [CellEnvironment(policy.contract) for _ in range(min(CELLS_AT_ONCE, len(scenes)))]
    try:
        horizon_steps = round(horizon_s * policy.rate_hz)
        return list(run_trials(policy, environments, scenes, horizon_steps, replan_steps=replan_steps, seed=seed))
    finally:
        for environment in environments:
            environment.close()


def evaluate(checkpoints: dict[str, Path], scenes: Sequence[str], horizon_s: float, *, replan_steps: int = 5,
             seed: int = 0, processes: int = 2, progress: Callable[[int], None] = lambda done: None,
             ) -> dict[str, list[EpisodeResult]]:
    """Trials of every checkpoint on the same scenes of the cell, spread over processes.

    Scenes are dealt out in fixed groups with a seed each, so the number of processes changes no result.
    ``progress(n)`` is called when ``n`` more trials are done. Returns results in the order of ``scenes``.
    """
    groups = [list(scenes[i:i + SCENES_PER_TASK]) for i in range(0, len(scenes), SCENES_PER_TASK)]
    results: dict[str, list[EpisodeResult]] = {name: [] for name in checkpoints}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = {pool.submit(_task, str(folder), group, horizon_s, replan_steps, seed + number): name
                 for number, group in enumerate(groups) for name, folder in checkpoints.items()}
        for task in as_completed(tasks):
            results[tasks[task]].extend(task.result())
            progress(len(task.result()))
    order = {scene: i for i, scene in enumerate(scenes)}
    for rows in results.values():
        rows.sort(key=lambda row: order[row.scene_id])
    return results
