"""Closed-loop trials of a policy in the simulated cell, several cells at a time, without ROS.

The policy sees what it would see through the graph: camera images and joint positions at the contract's rate. It
replans every ``replan_steps`` steps of its chunk (receding horizon); the cell's own trajectory controller follows.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.evaluation.results import EpisodeResult
from corft_core.trajectory import JointPath

if TYPE_CHECKING:
    from corft_core.cell import Cell, Scene
    from corft_core.policy import Policy

CELLS_AT_ONCE = 8
SCENES_PER_TASK = 10


@dataclass
class _Trial:
    """A running trial and what is known of it so far."""

    cell: Cell
    scene: Scene
    target_xy_m: tuple[float, float]
    chunks: int = 0
    success: bool = False
    time_s: float = 0.0


def run_trials(policy: Policy, scene_ids: Sequence[str], horizon_s: float, *, replan_steps: int = 5, seed: int = 0,
               on_step: Callable[[Cell], None] = lambda cell: None) -> Iterator[EpisodeResult]:
    """Yield a result for each scene, in the order of ``scene_ids``' groups of ``CELLS_AT_ONCE``.

    ``on_step(cell)`` is called after every step of a running trial. The same arguments give the same results.
    """
    import torch

    from corft_core.cell import Cell

    generator = torch.Generator().manual_seed(seed)
    contract = policy.contract
    cells = [Cell(image_size=contract.cameras[0].size) for _ in range(min(CELLS_AT_ONCE, len(scene_ids)))]
    try:
        for start in range(0, len(scene_ids), len(cells)):
            group = scene_ids[start:start + len(cells)]
            trials = [_begin(cell, scene_id) for cell, scene_id in zip(cells, group, strict=False)]
            _run_group(policy, trials, horizon_s, replan_steps, generator, on_step)
            for trial in trials:
                yield EpisodeResult(trial.scene.scene_id, trial.success, trial.time_s, trial.target_xy_m, trial.chunks)
    finally:
        for cell in cells:
            cell.close()


def _begin(cell: Cell, scene_id: str) -> _Trial:
    from corft_core.cell import make_scene

    scene = make_scene(scene_id)
    cell.reset(scene)
    position, _ = cell.objects()[scene.target]
    return _Trial(cell, scene, (round(float(position[0]), 4), round(float(position[1]), 4)))


def _run_group(policy: Policy, trials: list[_Trial], horizon_s: float, replan_steps: int, generator: Any,
               on_step: Callable[[Cell], None]) -> None:
    contract = policy.contract
    step_s = 1.0 / contract.rate_hz
    steps = round(horizon_s * contract.rate_hz)
    running = list(trials)
    actions: dict[int, NDArray[np.float64]] = {}
    for step in range(steps):
        if step % replan_steps == 0:
            images = {camera.name: np.stack([trial.cell.render(camera.name) for trial in running])
                      for camera in contract.cameras}
            state = np.stack([_state(trial.cell, contract) for trial in running])
            chunk = policy.act(images, state, [trial.scene.instruction for trial in running], generator).actions
            for trial, action in zip(running, chunk, strict=True):
                times: NDArray[np.float64] = step_s * np.arange(1, len(action) + 1, dtype=np.float64)
                trial.cell.command_trajectory(JointPath(contract.robot.joints, times, action[:, :-1]))
                trial.chunks += 1
                actions[id(trial)] = action
        for trial in running:
            trial.cell.command_gripper(contract.gripper.to_position_m(actions[id(trial)][step % replan_steps, -1]))
            trial.cell.step(step_s)
            trial.time_s = (step + 1) * step_s
            trial.success = bool(trial.cell.success)
            on_step(trial.cell)
        running = [trial for trial in running if not trial.success]
        if not running:
            return


def _state(cell: Cell, contract: Contract) -> NDArray[np.float32]:
    opening = contract.gripper.to_opening(cell.finger_position_m)
    return np.append(cell.joint_positions, opening).astype(np.float32)


def _task(checkpoint: str, scenes: list[str], horizon_s: float, replan_steps: int, seed: int) -> list[EpisodeResult]:
    """A worker's share: runs in a process of its own."""
    import torch

    from corft_core.policy import Policy

    torch.set_num_threads(1)
    return list(run_trials(Policy.load(checkpoint), scenes, horizon_s, replan_steps=replan_steps, seed=seed))


def evaluate(checkpoints: dict[str, Path], scenes: Sequence[str], horizon_s: float, *, replan_steps: int = 5,
             seed: int = 0, processes: int = 2, progress: Callable[[int], None] = lambda done: None,
             ) -> dict[str, list[EpisodeResult]]:
    """Trials of every checkpoint on the same scenes, spread over processes.

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
