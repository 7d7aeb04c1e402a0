"""Streams of chunks and the ways of sending them that bench_execute compares; each yields what a controller does."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution import Chunk, ChunkExecutor, Command, ExecutorOptions, Measured
from corft_core.planning import Box, MotionPlanner, SceneObject
from corft_core.trajectory import JointPath

sys.path.append(str(Path(__file__).resolve().parents[1]))
from faults.setpoint import Motion, Setpoint

Array = NDArray[np.float64]
CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTROL_S = 0.005  # of the controller
START_S = 1.0
DIRECTION = np.array([1.0, 0.3, -0.5, 0.4, 0.6, 0.5, -1.0])


@dataclass(frozen=True)
class Stream:
    """A policy that predicts a smooth motion with noise: a chunk every ``period_s``, ``age_s`` old when it comes.

    Every chunk also errs as a whole by ``bias_rad`` (the policy changes its mind), the cause of jerk at seams.
    """

    period_s: float = 0.2
    age_s: float = 0.05
    steps: int = 16
    step_s: float = 0.1
    noise_rad: float = 0.004
    bias_rad: float = 0.01
    chunks: int = 120

    def wanted(self, times_s: Array, home: Array) -> Array:
        """The motion (N, J) that the policy means."""
        return home + 0.3 * (1 - np.cos(np.asarray(times_s) - START_S))[:, None] * DIRECTION

    def chunk(self, k: int, contract: Contract) -> tuple[float, Chunk]:
        """When chunk ``k`` comes, and the chunk."""
        rng = np.random.default_rng(k)
        stamp_s = START_S + k * self.period_s
        times = stamp_s + self.step_s * np.arange(1, self.steps + 1)
        targets = (self.wanted(times, np.array(contract.robot.home_rad)) + rng.normal(size=7) * self.bias_rad
                   + rng.normal(size=(self.steps, 7)) * self.noise_rad)
        return stamp_s + self.age_s, Chunk(round(stamp_s * 1e9), contract.robot.joints, targets, np.ones(self.steps),
                                           self.step_s, k)


@dataclass(frozen=True)
class Driven:
    """The controller's setpoint every CONTROL_S, and when another chunk took over."""

    motion: Motion
    seams_s: list[float]

    def jerk_at_seams(self, within_s: float = 0.1) -> float:
        """RMS jerk [rad/s³] of the setpoint, by differences at the controller's rate, near the seams."""
        jerk = np.diff(self.motion.positions, 3, axis=0) / CONTROL_S**3
        times = self.motion.times_s[2:-1]
        near = np.min(np.abs(times[:, None] - np.array(self.seams_s)), axis=1) < within_s
        return float(np.sqrt(np.mean(jerk[near] ** 2)))

    def error_rad(self, wanted: Array) -> tuple[float, float]:
        """RMS and largest distance of a joint from the motion meant."""
        away = np.abs(self.motion.positions - wanted)
        return float(np.sqrt(np.mean(away**2))), float(away.max())


def five_boxes() -> list[SceneObject]:
    """A table, two walls, a post and a shelf around the arm."""
    boxes = (("table", (0.8, 1.2, 0.1), (0.5, 0.0, -0.05)), ("left", (0.3, 0.05, 0.3), (0.5, 0.6, 0.15)),
             ("right", (0.3, 0.05, 0.3), (0.5, -0.6, 0.15)), ("post", (0.08, 0.08, 0.3), (0.8, 0.3, 0.15)),
             ("shelf", (0.3, 0.5, 0.02), (0.65, 0.0, 0.9)))
    objects = []
    for name, size_m, at_m in boxes:
        pose = np.eye(4)
        pose[:3, 3] = at_m
        objects.append(SceneObject(name, Box(size_m), pose))
    return objects


class Sender(Protocol):
    """Turns chunks into commands of a controller, whose setpoint is judged."""

    def chunk(self, now_s: float, chunk: Chunk, setpoint: Setpoint) -> float | None:
        """A chunk comes; when it takes over, None when it does not."""

    def tick(self, now_s: float, setpoint: Setpoint) -> None:
        """Called every CONTROL_S."""


def drive(stream: Stream, contract: Contract, sender: Sender) -> Driven:
    """What the controller does with the stream."""
    setpoint = Setpoint(contract, CONTROL_S)
    seams = []
    k = 0
    due_s, chunk = stream.chunk(k, contract)
    for time_s in np.arange(START_S, START_S + (stream.chunks - 1) * stream.period_s, CONTROL_S).tolist():
        setpoint.advance(time_s)
        if time_s >= due_s:
            seam_s = sender.chunk(time_s, chunk, setpoint)
            if seam_s is not None:
                seams.append(seam_s)
            k += 1
            due_s, chunk = stream.chunk(k, contract)
        sender.tick(time_s, setpoint)
    assert setpoint.rejected == 0, "the controller refused a command"
    return Driven(setpoint.take(), seams)


class ByExecutor:
    """Chunks through ChunkExecutor, as executor_node sends them."""

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions) -> None:
        self.executor = ChunkExecutor(contract, planner, options)
        self._home = np.array(contract.robot.home_rad)

    def chunk(self, now_s: float, chunk: Chunk, setpoint: Setpoint) -> float | None:
        now_ns = round(now_s * 1e9)
        command = self.executor.accept(chunk, now_ns, Measured(now_ns, self._home, np.zeros(len(self._home))))
        if not isinstance(command, Command):
            return None
        setpoint.command(command.sent, command.start_ns * 1e-9, now_s)
        return command.handoff_ns * 1e-9

    def tick(self, now_s: float, setpoint: Setpoint) -> None:
        pass


class Naive:
    """Every chunk as it is replaces the last: positions at their times, of which the elapsed ones are skipped."""

    def chunk(self, now_s: float, chunk: Chunk, setpoint: Setpoint) -> float:
        setpoint.command(JointPath(chunk.names, chunk.dt_s * np.arange(1, len(chunk.positions) + 1), chunk.positions),
                         chunk.stamp_ns * 1e-9, now_s)
        return now_s

    def tick(self, now_s: float, setpoint: Setpoint) -> None:
        pass


class OnePointPerAction:
    """Every step a trajectory of one point, the newest chunk's action for then, to be reached a step later."""

    def __init__(self) -> None:
        self._chunk: Chunk | None = None
        self._next_s = 0.0

    def chunk(self, now_s: float, chunk: Chunk, setpoint: Setpoint) -> float:
        self._chunk = chunk
        return now_s

    def tick(self, now_s: float, setpoint: Setpoint) -> None:
        if self._chunk is None or now_s < self._next_s - 1e-9:
            return
        chunk = self._chunk
        self._next_s = now_s + chunk.dt_s
        row = min(int((now_s - chunk.stamp_ns * 1e-9) / chunk.dt_s), len(chunk.positions) - 1)
        setpoint.command(JointPath(chunk.names, np.array([chunk.dt_s]), chunk.positions[row:row + 1]), None, now_s)
