"""Success and cycle time of one fixed policy in the cell, for each chunk mode and an injected latency of 0 to 300 ms.

A chunk comes ``latency`` after its observation and goes through ChunkExecutor to the cell's controller, as in the
graph; ``naive`` sends chunks as they are, from their first action on when they come. A new chunk is asked for every
ExecutorOptions.execute_steps, whatever the latency.

Protocol: trial k is scene FIRST_SCENE + k of the split ``ind`` with the policy's noise seeded by k, the same in every
row; it succeeds when the cell says so within SECONDS. The executor was worked on with scenes below FIRST_SCENE only.
The ratio of 200 ms to no latency is that of the successes in the same scenes, with the 95 % interval of a bootstrap
over scenes. Every trial is written down as it ends, so that a study which is cut short is still paired.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from corft_core.cell.suite import CellEnvironment, CellSuite
from corft_core.contract import Contract
from corft_core.execution import (
    CHUNK_MODES,
    Chunk,
    ChunkExecutor,
    Command,
    ExecutorOptions,
    GripperSchedule,
    Measured,
    Reason,
    Refusal,
)
from corft_core.planning import make_planner
from corft_core.policy import Policy
from corft_core.trajectory import JointPath

LATENCIES_S = (0.0, 0.1, 0.2, 0.3)
DRIVE_S = 0.02
SECONDS = 10.0
FIRST_SCENE = 2000
RESAMPLES = 10_000


class Trial:
    """One scene, one way of sending chunks, one latency."""

    def __init__(self, policy: Policy, environment: CellEnvironment, planner: Any, mode: str, latency_s: float) -> None:
        self._policy, self._environment, self._planner = policy, environment, planner
        self._contract, self._mode, self._latency_s = policy.contract, mode, latency_s
        self._step_s = 1.0 / policy.rate_hz
        self._options = ExecutorOptions() if mode == "naive" else ExecutorOptions(mode=mode)  # type: ignore[arg-type]

    def run(self, scene_id: str, seed: int) -> dict[str, Any]:
        """Success, time, chunks and refusals of a trial."""
        environment, cell = self._environment, self._environment.cell
        environment.reset(scene_id)
        self._executor = ChunkExecutor(self._contract, self._planner, self._options)
        self._gripper = GripperSchedule()
        self._looked_s = -np.inf
        generator = torch.Generator().manual_seed(seed)
        row: dict[str, Any] = {"scene_id": scene_id, "chunks": 0, "refused": {}}
        seen: tuple[float, Any] | None = None
        while cell.time_s < SECONDS and not environment.success:
            if seen is None and self._wants_chunk(cell.time_s):
                seen = cell.time_s, (*environment.observe(), self._committed(cell.time_s))
            if seen is not None and cell.time_s >= seen[0] + self._latency_s - 1e-6:
                answer = self._act(seen, generator, row["chunks"])
                row["chunks"] += 1
                if isinstance(answer, Refusal):
                    row["refused"][str(answer.reason)] = row["refused"].get(str(answer.reason), 0) + 1
                seen = None
            opening = self._gripper.take_due(round(cell.time_s * 1e9))
            if opening is not None:
                cell.command_gripper(self._contract.gripper.to_position(opening))
            cell.step(DRIVE_S)
        return {**row, "success": bool(environment.success), "time_s": round(cell.time_s, 2)}

    def _wants_chunk(self, now_s: float) -> bool:
        """Whether to look now: every execute_steps, or so that an open loop's next chunk comes when this one ends."""
        running = self._executor.running if self._mode != "naive" else None
        if self._mode == "open_loop" and running is not None and running.kind == "chunk":
            ends_s = running.content_end_ns * 1e-9 - self._options.handoff_s - self._step_s
            return now_s >= ends_s - self._latency_s
        return now_s >= self._looked_s + self._options.execute_steps * self._step_s - 1e-6

    def _committed(self, now_s: float) -> Any:
        self._looked_s = now_s
        if self._mode != "rtc" or not self._policy.inpaints:
            return None
        return self._executor.committed_actions(round(now_s * 1e9), self._step_s, self._policy.horizon)

    def _act(self, seen: tuple[float, Any], generator: torch.Generator, number: int) -> Command | Refusal | None:
        stamp_s, (images, state, committed) = seen
        plan, frozen = None, 0
        if committed is not None:
            rows = np.column_stack([committed.positions, committed.gripper])
            plan = np.concatenate([rows, np.repeat(rows[-1:], self._policy.horizon - len(rows), axis=0)])[None]
            frozen = min(committed.frozen, len(rows))
        actions = self._policy.act({name: image[None] for name, image in images.items()}, state[None],
                                   [self._environment.instruction], generator, plan=plan, frozen=frozen).actions[0]
        cell = self._environment.cell
        now_ns = round(cell.time_s * 1e9)
        chunk = Chunk(round(stamp_s * 1e9), self._contract.robot.joints, actions[:, :7], actions[:, 7], self._step_s,
                      number)
        if self._mode == "naive":
            times: np.ndarray = self._step_s * np.arange(1, len(actions) + 1)
            cell.command_trajectory(JointPath(chunk.names, times, chunk.positions))
            self._gripper.replace([(now_ns + round(t * 1e9), float(opening))
                                   for t, opening in zip(times, actions[:, 7], strict=True)], now_ns)
            return None
        answer = self._executor.accept(chunk, now_ns, Measured(now_ns, cell.joint_positions, np.zeros(7)))
        if isinstance(answer, Command):
            cell.command_trajectory(answer.sent, answer.start_ns * 1e-9)
            self._gripper.replace(answer.gripper, answer.handoff_ns)
        elif answer.reason is Reason.BUSY:
            self._looked_s = -np.inf  # looks again at once
        return answer


def measure(trials: int, policy: Path, task: str, partial: Path, latencies_s: Sequence[float] = LATENCIES_S,
            modes: Sequence[str] = (*CHUNK_MODES, "naive")) -> dict[str, Any]:
    """Success rate and mean cycle time of each mode and latency, and the ratio of 200 ms to none.

    ``policy``: a checkpoint. ``delay200_success_ratio`` is that of the default mode, splice; ``success_by_scene`` has
    a 1 or 0 a trial. ``partial``: a JSON line a trial is added there.
    """
    torch.set_num_threads(1)
    loaded = Policy.load(policy)
    contract: Contract = loaded.contract
    planner = make_planner("embedded", contract, None)
    environment = CellEnvironment(contract, task)
    scenes = CellSuite(contract).scene_ids(task, "ind", trials, first=FIRST_SCENE)
    kinds = {f"{mode}_{round(latency_s * 1000)}ms": Trial(loaded, environment, planner, mode, latency_s)
             for mode in modes for latency_s in latencies_s}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    with tqdm(total=len(kinds) * trials, desc="trials", disable=None) as bar:
        for seed, scene in enumerate(scenes):
            for name, trial in kinds.items():
                rows[name].append(trial.run(scene, seed))
                with partial.open("a") as file:
                    file.write(json.dumps({"row": name, "policy": loaded.policy_id, **rows[name][-1]}) + "\n")
                bar.update()
    environment.close()
    planner.close()
    by_scene = {name: "".join(str(int(trial["success"])) for trial in row) for name, row in rows.items()}
    return {"delay_trials": trials, "delay_policy": loaded.policy_id, **summary(rows, modes),
            "first_scene": FIRST_SCENE, "task": task, "success_by_scene": by_scene}


def summary(rows: Mapping[str, Sequence[Mapping[str, Any]]], modes: Sequence[str]) -> dict[str, Any]:
    """The study's figures from its rows, trial by trial in the same order."""
    result: dict[str, Any] = {}
    for name, row in rows.items():
        result |= {f"success_{name}": float(np.mean([r["success"] for r in row])),
                   f"cycle_s_{name}": float(np.mean([r["time_s"] for r in row]))}
    for mode in modes:
        base, late = (np.array([r["success"] for r in rows.get(f"{mode}_{ms}ms", ())], float) for ms in (0, 200))
        if len(late) and base.sum():
            drawn = np.random.default_rng(0).integers(len(base), size=(RESAMPLES, len(base)))
            ratios = late[drawn].sum(axis=1) / np.maximum(base[drawn].sum(axis=1), 1)
            low, high = np.percentile(ratios, (2.5, 97.5))
            result |= {f"delay200_success_ratio_{mode}": float(late.sum() / base.sum()),
                       f"delay200_success_ratio_{mode}_low": float(low),
                       f"delay200_success_ratio_{mode}_high": float(high)}
    return {"delay200_success_ratio": result.get("delay200_success_ratio_splice"), **result}
