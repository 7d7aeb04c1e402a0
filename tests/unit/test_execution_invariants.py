"""Whatever chunks go in, what comes out of the executor is a motion the robot can make."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corft_core.contract import Contract
from corft_core.execution import Chunk, ChunkExecutor, Command, ExecutorOptions, Measured
from corft_core.execution.splice import CHUNK_MODES
from corft_core.planning import Box, SceneObject, make_planner

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
NAMES = CONTRACT.robot.joints
HOME = np.array(CONTRACT.robot.home_rad)
WILD = [0.0, 0.0, 0.003, 0.01, 0.03, 0.1, 0.5, 3.0, 1e3, 1e300]


@functools.cache
def planner():
    table = np.eye(4)
    table[:3, 3] = (0.5, 0.0, -0.05)
    return make_planner("embedded", CONTRACT, [SceneObject("table", Box((0.8, 1.2, 0.1)), table)])


def dense_states(command: Command, step_s: float = 0.004) -> tuple[np.ndarray, ...]:
    """Times [ns] and states sampled by JointPath, independently of the executor's own check."""
    times = np.arange(0.0, command.path.duration_s + step_s, step_s)
    samples = [command.path.sample(float(t)) for t in times]
    return times, *(np.stack([sample[i] for sample in samples]) for i in range(3))


def assert_is_a_motion(command: Command, before: Command | None, executor: ChunkExecutor) -> None:
    limits = executor.limits
    _, position, velocity, acceleration = dense_states(command)
    for values in (position, velocity, acceleration):
        assert np.all(np.isfinite(values))
    assert np.all(position >= limits.low - 2e-3) and np.all(position <= limits.high + 2e-3)
    assert np.all(np.abs(velocity) <= limits.velocity * 1.005)
    assert np.all(np.abs(acceleration) <= limits.acceleration * 1.02)
    assert np.max(np.abs(command.path.velocities[-1])) < 1e-9
    assert np.max(np.abs(command.path.accelerations[-1])) < 1e-9
    if before is None:
        return
    # Until the hand-off old and new agree, so that the controller may switch at any moment in between.
    for time_ns in np.linspace(command.start_ns, command.handoff_ns, 7).astype(int):
        old, new = before.state(int(time_ns)), command.state(int(time_ns))
        np.testing.assert_allclose(new.position, old.position, atol=2e-5)
        np.testing.assert_allclose(new.velocity, old.velocity, atol=2e-3)
        assert np.all(np.abs(new.acceleration - old.acceleration) <= 0.02 * limits.acceleration)


def chunk_near(position: np.ndarray, velocity: np.ndarray, rng: np.random.Generator, horizon: int, drift: float,
               noise: float, stamp_ns: int, number: int) -> Chunk:
    steps = velocity * 0.1 + rng.normal(size=7) * drift + rng.normal(size=(horizon, 7)) * noise
    with np.errstate(over="ignore", invalid="ignore"):
        targets = position + np.cumsum(steps, axis=0)
    if rng.random() < 0.7:
        targets = np.clip(np.nan_to_num(targets), *planner().position_limits)
    if rng.random() < 0.05:
        targets[rng.integers(horizon), rng.integers(7)] = rng.choice([np.nan, np.inf, -np.inf])
    return Chunk(stamp_ns, NAMES, targets, rng.random(horizon), 0.1, number)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(CHUNK_MODES), speed=st.sampled_from([1.0, 1.0, 0.5]))
def test_every_command_is_a_motion_within_limits_that_continues_the_last(seed, mode, speed):
    rng = np.random.default_rng(seed)
    executor = ChunkExecutor(CONTRACT, planner(), ExecutorOptions(mode=mode, speed_scale=speed))
    now_ns = 10**12
    for number in range(8):
        state = executor.commanded_state(now_ns)
        position = HOME if state is None else state.position
        velocity = np.zeros(7) if state is None else state.velocity
        before = executor.running
        measured = Measured(now_ns, position, velocity)
        if rng.random() < 0.15:
            outcome = executor.hold(now_ns)
        else:
            chunk = chunk_near(position, velocity, rng, int(rng.integers(1, 14)), float(rng.choice(WILD)),
                               float(rng.choice(WILD)), now_ns - int(rng.integers(-200, 1200)) * 1_000_000, number)
            outcome = executor.accept(chunk, now_ns, measured)
        if isinstance(outcome, Command):
            assert_is_a_motion(outcome, before, executor)
            if outcome.kind == "chunk":
                assert planner().first_collision(outcome.path.positions) is None
        elif outcome is not None:
            assert executor.running is before
        now_ns += int(rng.integers(5, 900)) * 1_000_000


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
