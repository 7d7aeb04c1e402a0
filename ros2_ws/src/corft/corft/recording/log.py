"""When the messages of one topic came: counts, rate, gaps and losses of any stretch of time. No ROS in here.

The live display and the audit of the finished bag both count with this, so that their numbers can be compared.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

# A clock that is set back by less is only being disciplined.
JUMP_NS = 50_000_000
_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}


def header_stamp_ns(data: bytes | memoryview) -> int:
    """Stamp [ns] of a CDR message that begins with a std_msgs/Header; 0 when it is too short to hold one."""
    if len(data) < 12:
        return 0
    seconds, nanoseconds = _STAMP[data[1] & 1].unpack_from(data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


@dataclass(frozen=True)
class Summary:
    """One stretch of a topic. Times in s; ``gap_s`` is the longest time without a message, its ends included.

    ``dropped``: samples missing between source stamps, in periods of the median. ``lost``: messages that were sent but
    never arrived, by the publishers' own numbers. ``latency_s``: median of (reception − source stamp).
    """

    count: int
    duration_s: float
    gap_s: float
    rate_hz: float = float("nan")
    dropped: int = 0
    lost: int = 0
    latency_s: float = float("nan")
    unstamped: int = 0


class TopicLog:
    """Reception and source times of one topic's messages, in the order of reception."""

    def __init__(self, stamped: bool) -> None:
        self.stamped = stamped
        self.jumps_back = 0
        self.bytes = 0
        self._received = array("q")
        self._source = array("q")
        self._losses: list[tuple[int, int]] = []
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._received)

    def add(self, received_ns: int, source_ns: int = 0, size: int = 0) -> None:
        """Take note of a message; ``source_ns`` is its header stamp, 0 for none."""
        if self._received and received_ns < self._received[-1]:
            self.jumps_back += received_ns < self._received[-1] - JUMP_NS
            received_ns = self._received[-1]
        self.bytes += size
        self._received.append(received_ns)
        self._source.append(source_ns)

    def number(self, publisher: bytes, number: int) -> None:
        """Take note of the last message's sequence number; what is missing before it was lost on the way."""
        last = self._numbers.get(publisher)
        if last is not None and number > last + 1:
            self._losses.append((self._received[-1], number - last - 1))
        self._numbers[publisher] = max(number, last or 0)

    def summary(self, start_ns: int, stop_ns: int) -> Summary:
        """What was received from ``start_ns`` to ``stop_ns``, both included."""
        duration_s = (stop_ns - start_ns) * 1e-9
        first, last = bisect_left(self._received, start_ns), bisect_right(self._received, stop_ns)
        lost = sum(count for stamp_ns, count in self._losses if start_ns <= stamp_ns <= stop_ns)
        if first >= last:
            return Summary(0, duration_s, duration_s, lost=lost)
        received = np.frombuffer(self._received, np.int64)[first:last]
        gap_ns = int(np.diff(received, prepend=start_ns, append=stop_ns).max())
        source = np.frombuffer(self._source, np.int64)[first:last]
        stamps = source[source != 0] if self.stamped else received
        intervals_ns = np.diff(np.sort(stamps))
        rate_hz, dropped, latency_s = float("nan"), 0, float("nan")
        if len(intervals_ns) and intervals_ns.sum() > 0:
            rate_hz = len(intervals_ns) / (intervals_ns.sum() * 1e-9)
        if self.stamped:
            period_ns = float(np.median(intervals_ns)) if len(intervals_ns) >= 4 else 0.0
            if period_ns > 0:
                dropped = int(np.maximum(np.rint(intervals_ns / period_ns) - 1, 0).sum())
            if len(stamps):
                latency_s = float(np.median(received[source != 0] - stamps)) * 1e-9
        return Summary(last - first, duration_s, gap_ns * 1e-9, rate_hz, dropped, lost, latency_s,
                       unstamped=int((source == 0).sum()) if self.stamped else 0)
