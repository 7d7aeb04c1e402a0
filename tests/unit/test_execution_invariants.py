"""Whatever chunks go in, what comes out of the executor is a motion the robot can make.

``stream`` draws chunks of every kind, plain and adversarial, feeds them to an executor at random times between stops,
and counts what :func:`check_command` finds wrong with the commands that come out.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corft_core.contract import Contract
from corft_core.execution import (
    CHUNK_MODES,
    ON_COLLISION,
    Chunk,
    ChunkExecutor,
    Command,
    ExecutorOptions,
    Measured,
    Refusal,
    check_command,
)
from corft_core.execution.limits import RISE_S
from corft_core.planning import Box, SceneObject, make_planner

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
NAMES = CONTRACT.robot.joints
HOME = np.array(CONTRACT.robot.home_rad)
WILD = [0.0, 0.0, 0.003, 0.01, 0.03, 0.1, 0.5, 3.0, 1e3, 1e300]
KINDS = ("near", "near", "near", "smooth", "smooth", "wild", "not_finite", "names", "length", "past", "future", "huge",
         "alternating", "limits", "into_table", "poses", "twists")
MILLISECOND = 1_000_000


@functools.cache
def planner():
    def box(name: str, size_m: tuple[float, float, float], at_m: tuple[float, float, float]) -> SceneObject:
        pose = np.eye(4)
        pose[:3, 3] = at_m
        return SceneObject(name, Box(size_m), pose)

    return make_planner("embedded", CONTRACT, [
        box("table", (0.8, 1.2, 0.1), (0.5, 0.0, -0.05)), box("left", (0.3, 0.05, 0.3), (0.5, 0.35, 0.15)),
        box("right", (0.3, 0.05, 0.3), (0.5, -0.35, 0.15)), box("post", (0.08, 0.08, 0.5), (0.75, 0.0, 0.25)),
        box("shelf", (0.3, 0.5, 0.02), (0.65, 0.0, 0.7))])


def draw(kind: str, rng: np.random.Generator, position: np.ndarray, velocity: np.ndarray, now_ns: int) -> Chunk:
    """A chunk of a kind, for an arm commanded to be at ``position`` and to move at ``velocity``."""
    horizon = int(rng.integers(2, 17))
    low, high = planner().position_limits
    stamp_ns = now_ns - int(rng.integers(0, 150)) * MILLISECOND
    names: tuple[str, ...] = NAMES
    gripper = rng.random(horizon)
    steps = velocity * 0.1 + rng.normal(size=7) * 0.02 + rng.normal(size=(horizon, 7)) * 0.005
    targets = position + np.cumsum(steps, axis=0)
    ramp = np.arange(1, horizon + 1)[:, None]
    poses = twists = None
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "smooth":
            targets = position + 0.1 * ramp * rng.uniform(-1, 1, 7) * rng.choice([0.2, 0.6, 1.2])
        elif kind == "wild":
            targets = position + np.cumsum(rng.normal(size=7) * rng.choice(WILD)
                                           + rng.normal(size=(horizon, 7)) * rng.choice(WILD), axis=0)
            stamp_ns = now_ns - int(rng.integers(-200, 1200)) * MILLISECOND
        elif kind == "not_finite":
            targets[rng.integers(horizon), rng.integers(7)] = rng.choice([np.nan, np.inf, -np.inf])
        elif kind == "names":
            names = tuple(rng.permutation([*NAMES[:6], rng.choice(["elbow", NAMES[0], NAMES[6]])]))
        elif kind == "length":
            targets = targets[:, :int(rng.integers(0, 7))] if rng.random() < 0.5 else targets
            gripper = gripper[:int(rng.integers(0, horizon))]
        elif kind in ("past", "future"):
            stamp_ns = now_ns + (-1 if kind == "past" else 1) * int(rng.integers(100, 10_000_000)) * MILLISECOND
        elif kind == "huge":
            targets = position + (targets - position) * 1000
        elif kind == "alternating":
            targets = position + np.where(ramp % 2 == 0, 1, -1) * rng.uniform(0, 0.4) * rng.choice([-1, 0, 1], 7)
        elif kind == "limits":
            edge = np.where(rng.random(7) < 0.5, low, high) + rng.choice([0, 0.01, 0.03]) * rng.choice([-1, 1])
            targets = position + np.clip(edge - position, -0.15 * ramp, 0.15 * ramp)
        elif kind == "into_table":
            targets = position + 0.1 * ramp * rng.uniform(0.3, 1.5) * np.array([0, 1, 0, 0.3, 0, -0.5, 0])
        elif kind == "poses":
            start = planner().forward_kinematics(position)
            poses = np.repeat(start[None], horizon, axis=0)
            poses[:, :3, 3] += ramp * rng.normal(size=3) * rng.choice([0.005, 0.02, 0.3])
        elif kind == "twists":
            twists = np.repeat(rng.normal(size=(1, 6)) * rng.choice([0.05, 0.3, 5.0]), horizon, axis=0)
    if kind in ("near", "smooth"):
        targets = np.clip(targets, low, high)
    if poses is not None or twists is not None:
        names, targets = (), np.zeros((horizon, 0))
    return Chunk(stamp_ns, names, targets, gripper, 0.1, 0, poses, twists)


def wrong_stop(stop: Command, before: Command) -> list[str]:
    """A stop leaves the path it was on, or takes longer than that."""
    times_ns = np.linspace(stop.handoff_ns, before.end_ns, 2000).astype(np.int64)
    curve = before.states(times_ns)
    away = max(np.abs(curve - position).max(axis=1).min()
               for position in stop.states(np.linspace(stop.handoff_ns, stop.end_ns, 60).astype(np.int64)))
    longer_s = (stop.end_ns - max(before.end_ns, stop.handoff_ns)) * 1e-9
    return ([f"leaves its path by {away:.4f} rad"] * bool(away > 4e-3)
            + [f"takes {longer_s:.3f} s longer than the path"] * (longer_s > 0.02))


def too_fast(command: Command, speed_scale: float) -> list[str]:
    """A joint of a chunk is faster than the speed scale allows, and than it was at the hand-off."""
    lead_s = (command.handoff_ns - command.start_ns) * 1e-9
    start = command.state(command.handoff_ns)
    _, velocity, _ = command.path.sample(np.arange(lead_s, command.path.duration_s, 0.005))
    limit = np.array(CONTRACT.limits.velocity_rad_s)
    jerk = np.array(CONTRACT.limits.acceleration_rad_s2) / RISE_S
    coming = start.velocity + start.acceleration * np.abs(start.acceleration) / (2 * 0.95 * jerk)
    already = np.maximum(np.abs(start.velocity), np.abs(coming)) + 0.03 * limit
    share = np.abs(velocity).max(axis=0) / np.maximum(speed_scale * limit, already)
    joint = int(np.argmax(share))
    return [f"{NAMES[joint]} is {share[joint]:.2f} times as fast as the speed scale allows"] * bool(share[joint] > 1)


def stream(seed: int, chunks: int, **options) -> tuple[list[str], Counter[str]]:
    """Violations, and how often each outcome came, of one stream of chunks and stops."""
    rng = np.random.default_rng(seed)
    executor = ChunkExecutor(CONTRACT, planner(), ExecutorOptions(**options))
    now_ns, found, outcomes = 10**12, [], Counter[str]()
    for _ in range(chunks):
        state = executor.commanded_state(now_ns)
        position = HOME if state is None else state.position
        velocity = np.zeros(7) if state is None else state.velocity
        before = executor.running
        kind = str(rng.choice(KINDS))
        stop = rng.random() < 0.1
        outcome = executor.hold(now_ns) if stop else executor.accept(
            draw(kind, rng, position, velocity, now_ns), now_ns, Measured(now_ns, position, velocity))
        if isinstance(outcome, Refusal):
            outcomes[str(outcome.reason)] += 1
            assert executor.running is before
        elif isinstance(outcome, Command):
            outcomes[outcome.kind + (" cut" if outcome.truncated else "")] += 1
            label = f"seed {seed} {options} {'stop' if stop else kind}"
            found += [f"{label}: {violation.quantity}: {violation.message}"
                      for violation in check_command(outcome, before, executor.limits, planner())]
            if outcome.kind == "hold" and before is not None and outcome is not before:
                found += [f"{label}: {trouble}" for trouble in wrong_stop(outcome, before)]
            elif outcome.kind == "chunk":
                found += [f"{label}: {trouble}" for trouble in too_fast(outcome, executor.options.speed_scale)]
        now_ns += int(rng.integers(5, 900)) * MILLISECOND
    return found, outcomes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(CHUNK_MODES), speed=st.sampled_from([1.0, 0.5, 0.2]),
       on_collision=st.sampled_from(ON_COLLISION))
@example(seed=143, mode="receding_horizon", speed=0.2, on_collision="truncate")  # past an edge by less than 0.1 mm
def test_every_command_is_a_motion_within_limits_that_continues_the_last(seed, mode, speed, on_collision):
    found, _ = stream(seed, 8, mode=mode, speed_scale=speed, on_collision=on_collision)
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", CHUNK_MODES)
def test_two_thousand_chunks_break_no_limit_and_touch_nothing(mode):  # ten thousand: make faults
    outcomes, found = Counter[str](), []
    for seed in range(20):
        more, counts = stream(seed, 20, mode=mode, speed_scale=(1.0, 0.5)[seed % 2],
                              on_collision=ON_COLLISION[seed // 2 % 2])
        found += more
        outcomes += counts
    assert outcomes["chunk"] > 20 and outcomes["chunk cut"] > 2 and outcomes["hold"] > 10
    assert found == []


def test_steady_chunks_are_followed_closely_and_accepted():
    executor = ChunkExecutor(CONTRACT, planner())

    def wanted(time_s: float) -> np.ndarray:
        return HOME + 0.3 * (1 - np.cos(time_s)) * np.array([1, 0.3, -0.5, 0.4, 0.6, 0.5, -1])

    errors = []
    for step in range(30):
        stamp_s = 0.2 * step
        now_ns = round((stamp_s + 0.05) * 1e9)
        targets = np.stack([wanted(stamp_s + 0.1 * (j + 1)) for j in range(10)])
        command = executor.accept(Chunk(round(stamp_s * 1e9), NAMES, targets, np.ones(10), 0.1, step), now_ns,
                                  Measured(now_ns, HOME, np.zeros(7)))
        assert isinstance(command, Command), command
        assert command.stretch == pytest.approx(1.0) and command.truncated is None
        if step > 5:
            later_s = stamp_s + 0.2
            errors.append(np.abs(executor.commanded_state(round(later_s * 1e9)).position - wanted(later_s)).max())
    assert max(errors) < 0.005
