"""execute: time of a chunk's way to a trajectory, motion at the seams of chunks, success with a late policy.

Time: processor time of ChunkExecutor.accept, 7 joints, 16 actions, five boxes; with the planner in a process of its
own, as MoveIt always is, the time that passes: of the embedded planner, to show what the process costs, and of MoveIt
where it is installed. Seams: the setpoint of a controller with joint_trajectory_controller's rules, driven by the same
stream of noisy chunks through every chunk mode, beside naive replacement and a publisher of one point an action; at 10,
20 and 30 chunks a second for the default mode. Live latency: see execute_live.py. The ratio of success with a late
policy is that of `make bench NAME=delay`.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import execute_live
import numpy as np
from chunk_streams import CELL, ByExecutor, Driven, Naive, OnePointPerAction, Sender, Stream, drive, five_boxes

from corft_core.contract import Contract
from corft_core.execution import CHUNK_MODES, Command, ExecutorOptions, Measured
from corft_core.planning import MotionPlanner, make_planner
from corft_core.planning.process import ProcessPlanner

WARM_UP = 10
DELAY = Path(__file__).parents[2] / "results/bench/delay.json"


def measure() -> dict[str, Any]:
    """One run; times in ms, jerk in rad/s³, errors in rad."""
    contract = Contract.load(CELL / "contract.yaml")
    planner = make_planner("embedded", contract, five_boxes())
    result: dict[str, Any] = {}
    for mode in CHUNK_MODES:
        result |= _percentiles(mode, _times_ms(contract, planner, ExecutorOptions(mode=mode), time.process_time))
    for name, other in _in_processes(contract):
        result |= _percentiles(name, _times_ms(contract, other, ExecutorOptions(), time.perf_counter))
        other.close()
    stream = Stream()
    senders: dict[str, Sender] = {mode: ByExecutor(contract, planner, ExecutorOptions(mode=mode))
                                  for mode in CHUNK_MODES}
    senders |= {"naive": Naive(), "one_point": OnePointPerAction()}
    for name, sender in senders.items():
        result |= _seams(name, stream, contract, drive(stream, contract, sender))
    for rate_hz in (10, 20, 30):
        fast = Stream(period_s=1 / rate_hz, chunks=8 * rate_hz)
        for name, sender in (("splice", ByExecutor(contract, planner, ExecutorOptions())), ("naive", Naive())):
            result |= _seams(f"{name}_{rate_hz}hz", fast, contract, drive(fast, contract, sender))
    planner.close()
    result |= execute_live.measure()
    if DELAY.exists():
        study = json.loads(DELAY.read_text())
        result |= {"delay200_success_ratio": study["delay200_success_ratio"], "delay_trials": study["delay_trials"],
                   "delay_commit": study["commit"]}
    return {"chunk_p95_ms": result["chunk_p95_ms_splice"],
            "seam_jerk_ratio": result["seam_jerk_splice"] / result["seam_jerk_naive"], **result}


def _percentiles(name: str, times_ms: list[float]) -> dict[str, float]:
    return {f"chunk_p50_ms_{name}": float(np.percentile(times_ms, 50)),
            f"chunk_p95_ms_{name}": float(np.percentile(times_ms, 95))}


def _in_processes(contract: Contract) -> Iterator[tuple[str, MotionPlanner]]:
    yield "embedded_in_a_process", ProcessPlanner("embedded", contract, five_boxes())
    if importlib.util.find_spec("moveit") is not None:
        yield "moveit", make_planner("moveit", contract, five_boxes(), config=CELL / "moveit")


def _times_ms(contract: Contract, planner: MotionPlanner, options: ExecutorOptions,
              clock_s: Callable[[], float]) -> list[float]:
    stream, sender = Stream(chunks=150), ByExecutor(contract, planner, options)
    home = np.array(contract.robot.home_rad)
    times = []
    for k in range(stream.chunks):
        now_s, chunk = stream.chunk(k, contract)
        now_ns = round(now_s * 1e9)
        begin = clock_s()
        answer = sender.executor.accept(chunk, now_ns, Measured(now_ns, home, np.zeros(len(home))))
        if isinstance(answer, Command) and k >= WARM_UP:
            times.append((clock_s() - begin) * 1e3)
    return times


def _seams(name: str, stream: Stream, contract: Contract, driven: Driven) -> dict[str, float]:
    rms, largest = driven.error_rad(stream.wanted(driven.motion.times_s, np.array(contract.robot.home_rad)))
    return {f"seam_jerk_{name}": driven.jerk_at_seams(), f"error_rms_{name}": rms, f"error_max_{name}": largest}
