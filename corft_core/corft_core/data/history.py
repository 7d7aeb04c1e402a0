"""Which earlier observations belong to one: the same rule for a data set's rows and for the live stream.

An observation at time t looks back at t − stride, t − 2 stride, …: at each of these times the newest sample that is
not newer counts, as everywhere in this package. Before the episode's first sample that one stands in and is marked
as not seen. On a data set's grid the spacing is exact; live it is as near as the samples that were taken allow.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from corft_core.data.chunks import episode_bounds

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Spacing:
    """`steps` k ≥ 1 observations, the current one included, `stride` apart: rows of a data set, or ns of a stream."""

    steps: int = 1
    stride: int = 1

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(k,) how far back each lies, the oldest first."""
        return self.stride * np.arange(self.steps - 1, -1, -1, dtype=np.int64)

    @property
    def span(self) -> int:
        """How far back the oldest lies."""
        return self.stride * (self.steps - 1)

    def pick(self, stamps: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Of samples with ascending `stamps` (n,), n > 0, those that observations at `times` (m,) consist of.

        Returns places (m, k), the oldest first, and whether they were seen (m, k): False where the first stands in.
        """
        place = np.searchsorted(stamps, times[:, None] - self.offsets, side="right") - 1
        return np.maximum(place, 0), place >= 0

    def serves(self, ahead: int, every: int) -> bool:
        """Whether a sample taken `ahead` before the next prediction will be looked back at, by that or a later one.

        Predictions are `every` apart.
        """
        return any(back > 0 and back % self.stride == 0 for back in range(ahead, self.span + 1, every))


def past_rows(episode: NDArray[np.integer], spacing: Spacing) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each of N rows, sorted by `episode` (N,), the rows (N, k) it looks back at and whether they were seen (N, k).

    Never a row of another episode.
    """
    rows, seen = [], []
    for start, end in episode_bounds(episode):
        clock = np.arange(end - start)
        place, known = spacing.pick(clock, clock)
        rows.append(start + place)
        seen.append(known)
    return np.concatenate(rows), np.concatenate(seen)


class History(Generic[Sample]):
    """What one run has seen lately: samples by time, as far back as `spacing` [ns] reaches. Not thread-safe.

    Whoever owns the run owns its history. It empties itself when the instruction changes or time goes back.
    """

    def __init__(self, spacing: Spacing) -> None:
        self.spacing = spacing
        self.instruction: str | None = None
        self._stamps_ns: list[int] = []
        self._samples: list[Sample] = []
        self._asked_ns: int | None = None

    def __len__(self) -> int:
        return len(self._stamps_ns)

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self._stamps_ns, self._samples, self._asked_ns = [], [], None

    def add(self, stamp_ns: int, instruction: str, sample: Sample) -> None:
        """Keep a sample, in any order of time; one of the same time is replaced."""
        if instruction != self.instruction:
            self.reset()
            self.instruction = instruction
        place = bisect.bisect_left(self._stamps_ns, stamp_ns)
        if place < len(self) and self._stamps_ns[place] == stamp_ns:
            self._samples[place] = sample
        else:
            self._stamps_ns.insert(place, stamp_ns)
            self._samples.insert(place, sample)

    def lacking(self, tick_ns: int) -> list[int]:
        """Times since the first sample that `look_back(tick_ns)` asks for and at which no sample was taken."""
        times = (tick_ns - self.spacing.offsets[:-1]).tolist()
        taken = self._stamps_ns
        return [time for time in times if taken and taken[0] < time and time not in taken]

    def look_back(self, tick_ns: int, instruction: str, sample: Sample) -> tuple[list[Sample], NDArray[np.bool_]]:
        """Add the sample of `tick_ns`; returns the k samples that make up the observation, the oldest first, and
        whether they were seen (k,)."""
        if self._asked_ns is not None and tick_ns < self._asked_ns:
            self.reset()
        self.add(tick_ns, instruction, sample)
        self._asked_ns = tick_ns
        self._forget(tick_ns - self.spacing.span)
        places, seen = self.spacing.pick(np.array(self._stamps_ns), np.array([tick_ns]))
        return [self._samples[place] for place in places[0]], seen[0]

    def _forget(self, before_ns: int) -> None:
        """Drop what is older than the newest sample at or before `before_ns`."""
        keep = max(0, bisect.bisect_right(self._stamps_ns, before_ns) - 1)
        del self._stamps_ns[:keep], self._samples[:keep]
