"""Random and adversarial chunks through the executor's core, judged by the setpoint that a controller would follow."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from corft_core.contract import Contract
from corft_core.execution import CHUNK_MODES, Chunk, ChunkExecutor, Command, ExecutorOptions, Measured
from corft_core.planning.interface import MotionPlanner
from faults.setpoint import TOLERANCE, Setpoint

Array = NDArray[np.float64]
CHUNKS_A_RUN = 50
AMPLITUDES = (0.0, 0.003, 0.01, 0.03, 0.06, 0.1, 0.5, 3.0, 1e3, 1e300)


def random_chunks(contract: Contract, planner: MotionPlanner, count: int, seed: int, budget_s: float) -> dict[str, Any]:
    """``count`` chunks in runs of CHUNKS_A_RUN, each run with a chunk mode and a speed of its own."""
    rng = np.random.default_rng(seed)
    reasons: Counter[str] = Counter()
    shares = {"velocity_share": 0.0, "acceleration_share": 0.0, "jerk_share": 0.0}
    done = violations = collisions = 0
    until_s = time.monotonic() + budget_s
    with tqdm(total=count, desc="chunks", disable=None) as bar:
        while done < count:
            if time.monotonic() > until_s:
                print(f"the time is over after {done} chunks", file=sys.stderr)
                break
            options = ExecutorOptions(mode=CHUNK_MODES[done // CHUNKS_A_RUN % len(CHUNK_MODES)],
                                      speed_scale=float(rng.choice([1.0, 0.5])))
            motion, outcomes = _run(contract, planner, options, min(CHUNKS_A_RUN, count - done), rng)
            reasons.update(outcomes)
            found = motion.shares(contract)
            violations += max(found.values()) > TOLERANCE
            collisions += motion.collisions(planner) > 0
            shares = {key: max(shares[key], found[key]) for key in shares}
            done += sum(outcomes.values())
            bar.update(sum(outcomes.values()))
    return {"chunks": done, "limit_violations": violations, "collisions": collisions, "largest_shares": shares,
            "outcomes": dict(reasons.most_common())}


def _run(contract: Contract, planner: MotionPlanner, options: ExecutorOptions, count: int,
         rng: np.random.Generator) -> tuple[Any, Counter[str]]:
    executor = ChunkExecutor(contract, planner, options)
    setpoint = Setpoint(contract)
    home = np.array(contract.robot.home_rad)
    outcomes: Counter[str] = Counter()
    now_ns = 10**12
    for number in range(count):
        state = executor.commanded_state(now_ns)
        position = home if state is None else state.position
        velocity = np.zeros_like(home) if state is None else state.velocity
        chunk = _chunk(contract, planner, position, velocity, now_ns, number, rng)
        outcome = executor.hold(now_ns) if rng.random() < 0.05 else executor.accept(
            chunk, now_ns, Measured(now_ns, position, velocity))
        if isinstance(outcome, Command):
            setpoint.command(outcome.sent, outcome.start_ns * 1e-9, now_ns * 1e-9)
            outcomes[outcome.kind if outcome.truncated is None else f"cut: {outcome.truncated.reason}"] += 1
        else:
            outcomes["nothing to hold" if outcome is None else outcome.reason.value] += 1
        now_ns += int(rng.integers(5, 700)) * 1_000_000
        setpoint.advance(now_ns * 1e-9)
    setpoint.advance((now_ns + 4_000_000_000) * 1e-9)
    assert setpoint.rejected == 0, "the controller refused a command"
    return setpoint.take(), outcomes


def _chunk(contract: Contract, planner: MotionPlanner, position: Array, velocity: Array, now_ns: int, number: int,
           rng: np.random.Generator) -> Chunk:
    """Half of them are what a policy might say, the others are wrong in one of many ways."""
    joints, horizon = len(position), int(rng.integers(1, 25))
    names = contract.robot.joints
    amplitude = float(rng.choice(AMPLITUDES[:5])) if rng.random() < 0.6 else float(rng.choice(AMPLITUDES))
    with np.errstate(over="ignore", invalid="ignore"):
        steps = 0.1 * velocity + amplitude * (rng.normal(size=joints) + 0.3 * rng.normal(size=(horizon, joints)))
        targets = position + np.cumsum(steps, axis=0)
    gripper = rng.random(horizon)
    age_ms = int(rng.integers(0, 150))
    trouble = rng.random()
    if trouble < 0.04:
        targets[rng.integers(horizon), rng.integers(joints)] = rng.choice([np.nan, np.inf, -np.inf])
    elif trouble < 0.08:
        age_ms = int(rng.choice([-60_000, -500, 800, 3_000, 60_000]))
    elif trouble < 0.10:
        names = names[::-1]
    elif trouble < 0.12:
        names = (*names[:-1], names[0])
    elif trouble < 0.14:
        gripper = gripper[:-1] if rng.random() < 0.5 else np.full(horizon, np.nan)
    elif trouble < 0.18:
        targets = targets + 0.3 * np.where(np.arange(horizon) % 2, 1, -1)[:, None]
    elif trouble < 0.22:
        targets = np.tile(planner.position_limits[int(rng.integers(2))], (horizon, 1))
    elif trouble < 0.28:
        lean = np.zeros(joints)
        lean[1] = 0.12
        targets = position + np.arange(1, horizon + 1)[:, None] * lean
    elif trouble < 0.32:
        targets = targets[:, :-1]
    return Chunk(now_ns - age_ms * 1_000_000, names, targets, gripper, float(rng.choice([0.1, 0.1, 0.02, 0.5])), number)
