"""From pushed samples to one episode on the fixed grid: which ticks, which values, what was idle or stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation, Aligner
from corft_core.data.episode import Episode
from corft_core.data.episodes import EpisodeSpan

# The command moves when it leaves its first value by more than this; encoder noise and rounding stay below.
MOVING_RAD = 0.005
MOVING_OPENING = 0.02


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
    one step later. Ticks before all streams are present, and leading ones whose command stands still, are left out.
    """

    def __init__(self, contract: Contract, aligner: Aligner, span: EpisodeSpan) -> None:
        self.span = span
        self.counts = SamplingCounts()
        self.awaited: list[str] = []
        self._contract, self._aligner = contract, aligner
        self._next_ns = span.start_ns
        self._held: NDArray[np.float64] | None = None  # the first command, which an idle operator holds
        self._last_values: dict[str, Any] = {}
        self._observations: list[AlignedObservation] = []
        self._actions: list[NDArray[np.float64]] = []

    def advance(self, known_ns: int) -> None:
        """Take all ticks whose action lies at or before ``known_ns`` and that lie before the episode's end."""
        step_ns = self._contract.step_ns
        while self._next_ns + step_ns <= known_ns and (self.span.end_ns is None or self._next_ns < self.span.end_ns):
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
            self.awaited = observation.missing
            return
        values = self._last_values = self._last_values | observation.values
        if not self._observations:
            if self._held is None:
                self._held = self._aligner.action(tick_ns)
            if action is None or not _moves(action, values["joint_state"] if self._held is None else self._held):
                self.counts.idle += 1
                return
        assert action is not None, "commands hold until cleared"
        self.counts.stale += bool(observation.missing)
        observation.values = values
        self._observations.append(observation)
        self._actions.append(action)
        self.counts.kept += 1

    def episode(self, origin: dict[str, object]) -> Episode:
        """The kept ticks as an Episode; at least one must have been kept."""
        streams = self._aligner.observation_streams
        seen = self._observations
        columns: dict[str, NDArray[np.generic]] = {"source.tick_ns": np.array([o.tick_ns for o in seen], np.int64)}
        for name in streams:
            columns[f"source.{name}.stamp_ns"] = np.array([o.stamps_ns[name] for o in seen], np.int64)
            columns[f"source.{name}.age_s"] = np.array([o.ages_s[name] for o in seen], np.float32)
        return Episode(
            images={c.name: np.stack([o.values[c.name] for o in seen]) for c in self._contract.cameras},
            state=np.stack([o.values["joint_state"] for o in seen]).astype(np.float32),
            action=np.stack(self._actions).astype(np.float32),
            instruction=self.span.instruction, success=self.span.outcome == "success", scene_id=self.span.scene_id,
            columns=columns, origin=origin)


def _moves(action: NDArray[np.float64], held: NDArray[np.float64]) -> bool:
    moved = np.abs(action - held)
    return bool(np.max(moved[:-1]) > MOVING_RAD or moved[-1] > MOVING_OPENING)
