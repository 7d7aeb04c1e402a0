"""From pushed samples to one episode on the fixed grid: which ticks, which values, what was idle or stale."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation, Aligner
from corft_core.data.commands import command_moves
from corft_core.data.episode import Episode
from corft_core.data.episodes import EpisodeSpan

PREFETCH_STEPS = 4
"""Images are decoded on the pool's threads this many ticks before they are used."""

FrameSink = Callable[[dict[str, NDArray[np.uint8]]], None]


@dataclass
class SamplingCounts:
    """What became of an episode's ticks."""

    waiting: int = 0
    """Before all streams were present."""
    idle: int = 0
    """Leading ticks on which the command stood still, not kept."""
    stale: int = 0
    """Kept ticks on which a sample was older than its max_age_s; the last sample stands in."""
    kept: int = 0


class EpisodeSampler:
    """Samples one running episode. Call ``advance`` with how far the recording is known, then ``episode``.

    Tick k lies at the START event plus k steps. The observation is as of the tick, the action is the command in force
    one step later. Ticks before all streams are present, and leading ones whose command stands still (unless
    ``keep_idle``), are left out. Each kept tick's frames go to ``sink`` at once; only numbers are kept here.
    """

    def __init__(self, contract: Contract, aligner: Aligner, span: EpisodeSpan, sink: FrameSink, *,
                 pool: Executor | None = None, keep_idle: bool = False) -> None:
        self.span = span
        self.counts = SamplingCounts()
        self.awaited: list[str] = []
        self._contract, self._aligner, self._sink, self._pool = contract, aligner, sink, pool
        self._keep_idle, self._step_ns = keep_idle, contract.step_ns
        self._next_ns = self._prefetched_ns = span.start_ns
        self._held: NDArray[np.float64] | None = None  # the first command, which an idle operator holds
        self._last_values: dict[str, Any] = {}
        self._last_stamps_ns: dict[str, int] = {}
        self._integers: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self._reals: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def advance(self, known_ns: int) -> None:
        """Take all ticks whose action lies at or before ``known_ns`` and that lie before the episode's end.

        The newest ``PREFETCH_STEPS`` of them are only prepared, unless the episode's end is among them.
        """
        step_ns, end_ns = self._step_ns, self.span.end_ns
        if end_ns is None and self._prefetched_ns + step_ns > known_ns:
            return  # nothing new: so after most messages
        while self._prefetched_ns + step_ns <= known_ns and (end_ns is None or self._prefetched_ns < end_ns):
            if self._pool is not None:
                self._aligner.prefetch(self._prefetched_ns, self._pool)
            self._prefetched_ns += step_ns
        ended = end_ns is not None and self._prefetched_ns >= end_ns
        until_ns = self._prefetched_ns - (0 if ended or self._pool is None else PREFETCH_STEPS * step_ns)
        while self._next_ns < until_ns:
            self._tick(self._next_ns, step_ns)
            self._next_ns += step_ns

    @property
    def complete(self) -> bool:
        """True when every tick up to the episode's end has been taken."""
        return self.span.end_ns is not None and self._next_ns >= self.span.end_ns

    def _tick(self, tick_ns: int, step_ns: int) -> None:
        observation = self._aligner.observation(tick_ns)
        action = self._aligner.action(tick_ns + step_ns)
        if not self._last_values and observation.missing:
            self.counts.waiting += 1
            self.awaited = [self._described(name, observation) for name in observation.missing]
            return
        values = self._last_values = self._last_values | observation.values
        self._last_stamps_ns |= observation.stamps_ns
        if not self.counts.kept:
            if self._held is None:
                self._held = self._aligner.action(tick_ns)
                if self._held is None and self._contract.action_space == "joint":
                    self._held = values["joint_state"]
            if action is None or not (self._keep_idle or command_moves(self._contract, action, self._held)):
                self.counts.idle += 1
                return
        assert action is not None, "commands hold until cleared"
        self.counts.stale += bool(observation.missing)
        self.counts.kept += 1
        self._record(tick_ns, self._aligner.state(values), action)
        self._sink({camera.name: values[camera.name] for camera in self._contract.cameras})

    def _described(self, name: str, observation: AlignedObservation) -> str:
        lacking = [joint for joint in self._contract.joint_names if joint not in observation.joint_ages_s]
        if name == "joint_state" and 0 < len(lacking) < len(self._contract.joint_names):
            return f"joint_state, which lacks {', '.join(lacking)}"
        return name

    def _record(self, tick_ns: int, state: NDArray[np.float64], action: NDArray[np.float64]) -> None:
        self._integers["source.tick_ns"].append(tick_ns)
        for name in self._aligner.observation_streams:
            self._integers[f"source.{name}.stamp_ns"].append(self._last_stamps_ns[name])
            self._reals[f"source.{name}.age_s"].append((tick_ns - self._last_stamps_ns[name]) * 1e-9)
        self._reals["state"].extend(state)
        self._reals["action"].extend(action)

    def episode(self, instruction: str, origin: dict[str, object]) -> Episode:
        """The kept ticks as an Episode whose images went to the sink; at least one must have been kept."""
        columns: dict[str, NDArray[np.generic]] = {"source.tick_ns": np.array(self._integers["source.tick_ns"])}
        for name in self._aligner.observation_streams:
            columns[f"source.{name}.stamp_ns"] = np.array(self._integers[f"source.{name}.stamp_ns"])
            columns[f"source.{name}.age_s"] = np.array(self._reals[f"source.{name}.age_s"], np.float32)
        return Episode(
            images={}, state=self._vectors("state"), action=self._vectors("action"),
            instruction=instruction, success=self.span.outcome == "success", scene_id=self.span.scene_id,
            columns=columns, origin=origin)

    def _vectors(self, name: str) -> NDArray[np.float32]:
        return np.array(self._reals[name], np.float32).reshape(self.counts.kept, -1)
