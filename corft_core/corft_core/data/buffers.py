"""Samples of one stream by time."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class SampleBuffer:
    """Samples of one stream in stamp order, bounded to ``history_ns`` before the newest.

    A stamp further back than the history means that the clock was reset (simulation restarted): the buffer then
    starts anew. A repeated stamp replaces its sample.
    """

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._stamps: list[int] = []
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def push(self, stamp_ns: int, value: Any) -> None:
        """Add a sample; late ones are sorted in."""
        if self._stamps and stamp_ns < self._stamps[-1] - self._history_ns:
            logger.warning("time jumped back by %.1f s, earlier samples are dropped",
                           (self._stamps[-1] - stamp_ns) * 1e-9)
            self.clear()
        index = bisect_right(self._stamps, stamp_ns)
        if index and self._stamps[index - 1] == stamp_ns:
            self._values[index - 1] = value
        else:
            self._stamps.insert(index, stamp_ns)
            self._values.insert(index, value)
        keep = max(0, bisect_right(self._stamps, self._stamps[-1] - self._history_ns) - 1)
        del self._stamps[:keep], self._values[:keep]

    def latest(self, tick_ns: int) -> tuple[int, int] | None:
        """(index, stamp_ns) of the newest sample with stamp ≤ ``tick_ns``, or None."""
        index = bisect_right(self._stamps, tick_ns) - 1
        return None if index < 0 else (index, self._stamps[index])

    def value(self, index: int, convert: Callable[[Any], Any]) -> Any:
        """The sample's value; messages are converted on first use, unless `prepare` did, and the result kept."""
        value = self._values[index]
        if isinstance(value, Future):
            value = self._values[index] = value.result()
        elif not isinstance(value, np.ndarray):
            value = self._values[index] = convert(value)
        return value

    def prepare(self, index: int, convert: Callable[[Any], Any], pool: Executor) -> None:
        """Let ``pool`` convert the sample, if that is still to be done."""
        if not isinstance(self._values[index], (np.ndarray, Future)):
            self._values[index] = pool.submit(convert, self._values[index])

    def drop(self, index: int) -> None:
        """Forget one sample."""
        del self._stamps[index], self._values[index]

    def clear(self) -> None:
        """Forget all samples."""
        self._stamps.clear()
        self._values.clear()


class JointBuffer:
    """Joint states of n joints that may come from several publishers, each telling of some of the joints.

    Messages with the same joints form one part; as of a tick every joint has the value and the stamp of the newest
    sample that carries it.
    """

    def __init__(self, history_ns: int, joints: int) -> None:
        self._history_ns, self._joints = history_ns, joints
        self._parts: dict[bytes, tuple[NDArray[np.bool_], SampleBuffer]] = {}

    def push(self, stamp_ns: int, values: NDArray[np.float64]) -> None:
        """Add values (n,), NaN for joints that the sample does not carry."""
        carried = ~np.isnan(values)
        key = carried.tobytes()
        if key not in self._parts:
            self._parts[key] = carried, SampleBuffer(self._history_ns)
        self._parts[key][1].push(stamp_ns, values)

    def latest(self, tick_ns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values (n,), NaN where a joint has none, and their stamps (n,), −1 then; nothing newer than ``tick_ns``."""
        if len(self._parts) == 1:
            ((carried, buffer),) = self._parts.values()
            found = buffer.latest(tick_ns)
            if found is not None and carried.all():  # one publisher tells of all joints: the usual case, and faster
                return self._value(buffer, found[0]).copy(), np.full(self._joints, found[1], np.int64)
        values, stamps = np.full(self._joints, np.nan), np.full(self._joints, -1, np.int64)
        for carried, buffer in self._parts.values():
            found = buffer.latest(tick_ns)
            if found is None:
                continue
            index, stamp_ns = found
            newer = carried & (stamps <= stamp_ns)
            values[newer], stamps[newer] = self._value(buffer, index)[newer], stamp_ns
        return values, stamps

    @staticmethod
    def _value(buffer: SampleBuffer, index: int) -> NDArray[np.float64]:
        return np.asarray(buffer.value(index, np.asarray))

    def clear(self) -> None:
        """Forget all samples."""
        self._parts.clear()
