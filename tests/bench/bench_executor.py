"""executor: processor time of one chunk, and motion at chunk borders with and without splicing.

A policy that predicts a smooth motion with noise, a new chunk of 10 actions every 0.2 s, 50 ms old when it arrives.
``raw`` sends every chunk as it is (positions only, the controller interpolates linearly), as many VLA stacks do.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.contract import Contract
from corft_core.execution import Chunk, ChunkExecutor, Command, Measured
from corft_core.planning import make_planner
from corft_core.trajectory import JointPath

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
PERIOD_S, AGE_S, NOISE_RAD, CHUNKS = 0.2, 0.05, 0.004, 150
DIRECTION = np.array([1.0, 0.3, -0.5, 0.4, 0.6, 0.5, -1.0])


def measure() -> dict[str, Any]:
    """One run; times in ms of processor time, velocity steps in rad/s, deviation in rad."""
    contract = Contract.load(CELL / "contract.yaml")
    planner = make_planner("embedded", contract, CELL / "scene.yaml")
    home = np.array(contract.robot.home_rad)
    rng = np.random.default_rng(0)

    def wanted(time_s: float) -> np.ndarray:
        return np.asarray(home + 0.3 * (1 - np.cos(time_s)) * DIRECTION)

    executor = ChunkExecutor(contract, planner)
    raw: list[tuple[float, JointPath]] = []
    spliced: list[Command] = []
    took_ms, check_ms = [], []
    for k in range(CHUNKS):
        stamp_s = 1.0 + k * PERIOD_S
        now_s = stamp_s + AGE_S
        targets = np.stack([wanted(stamp_s + 0.1 * (j + 1)) for j in range(10)]) + rng.normal(size=(10, 7)) * NOISE_RAD
        chunk = Chunk(round(stamp_s * 1e9), contract.robot.joints, targets, np.ones(10), 0.1, k)
        now_ns = round(now_s * 1e9)
        begin = time.process_time()
        command = executor.accept(chunk, now_ns, Measured(now_ns, wanted(1.0), np.zeros(7)))
        took_ms.append((time.process_time() - begin) * 1e3)
        assert isinstance(command, Command), command
        begin = time.process_time()
        planner.first_collision(command.path.positions)
        check_ms.append((time.process_time() - begin) * 1e3)
        spliced.append(command)
        raw.append((now_s, JointPath(contract.robot.joints, np.arange(1, 11) * 0.1 - AGE_S, targets)))
    times = np.arange(3.0, 1.0 + (CHUNKS - 1) * PERIOD_S, 0.01)
    by_raw = np.stack([_latest_raw(raw, t) for t in times])
    by_splice = np.stack([spliced[min(int((t - 1.0 - AGE_S) / PERIOD_S), CHUNKS - 1)].state(round(t * 1e9)).position
                          for t in times])
    truth = np.stack([wanted(t) for t in times])
    return {"chunks": CHUNKS, "chunk_ms_p50": float(np.median(took_ms)),
            "chunk_ms_p95": float(np.percentile(took_ms, 95)),
            "share_of_collision_check": float(np.median(check_ms) / np.median(took_ms)),
            "velocity_step_raw_rad_s": _velocity_step(by_raw), "velocity_step_spliced_rad_s": _velocity_step(by_splice),
            "jerk_ratio_raw_to_spliced": _jerk(by_raw) / _jerk(by_splice),
            "deviation_raw_rad": float(np.abs(by_raw - truth).max()),
            "deviation_spliced_rad": float(np.abs(by_splice - truth).max())}


def _latest_raw(chunks: list[tuple[float, JointPath]], time_s: float) -> np.ndarray:
    start_s, path = next(item for item in reversed(chunks) if item[0] <= time_s)
    return path.sample(time_s - start_s)[0]


def _velocity_step(positions: np.ndarray) -> float:
    return float(np.abs(np.diff(positions, 2, axis=0)).max() / 0.01)


def _jerk(positions: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.diff(positions, 3, axis=0) / 1e-6) ** 2)))
