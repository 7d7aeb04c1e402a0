"""Rate, loss, latency and silence of one stream of stamped messages. No ROS in here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

WINDOW = 64
SILENT_S = 2.0
LOST_S = 10.0


def percentile(values: deque[float] | list[float], share: float) -> float:
    """The value that `share` (0 … 1) of `values` do not exceed; NaN for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class StreamHealth:
    """Watches one stream. Losses are gaps between stamps, measured in periods of the stream.

    A gap of SILENT_S and more is an outage, of a camera that went and came back, and no series of losses.

    The period is 1 / `rate_hz`, or the median interval of the last samples when `rate_hz` is 0.
    Stamps that go back (a restarted simulation) start over and are no loss.
    """

    name: str
    rate_hz: float = 0.0
    started_s: float = 0.0
    received: int = 0
    dropped: int = 0
    outages: int = 0
    refused: int = 0
    last_error: str = ""
    _last_stamp_ns: int | None = None
    _last_seen_s: float | None = None
    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def record(self, stamp_ns: int, now_ns: int, steady_s: float) -> None:
        """Take note of a sample: its stamp, the ROS time and the steady time [s] at which it was seen."""
        self.received += 1
        self._last_seen_s = steady_s
        if self._last_stamp_ns is not None and stamp_ns > self._last_stamp_ns:
            interval_s = (stamp_ns - self._last_stamp_ns) * 1e-9
            period_s = self.period_s
            if interval_s >= max(SILENT_S, 2 * period_s):
                self.outages += 1
            else:
                if period_s > 0:
                    self.dropped += max(0, round(interval_s / period_s) - 1)
                self._intervals_s.append(interval_s)
        elif self._last_stamp_ns is not None and stamp_ns < self._last_stamp_ns:
            self._intervals_s.clear()
            self._latencies_s.clear()
        self._last_stamp_ns = stamp_ns
        self._latencies_s.append((now_ns - stamp_ns) * 1e-9)

    def refuse(self, error: str) -> None:
        """Take note of a sample that could not be used, and why."""
        self.refused += 1
        self.last_error = error

    @property
    def period_s(self) -> float:
        """Expected interval between samples; 0 while unknown (fewer than 4 intervals seen)."""
        if self.rate_hz > 0:
            return 1.0 / self.rate_hz
        return median(self._intervals_s) if len(self._intervals_s) >= 4 else 0.0

    @property
    def seen_rate_hz(self) -> float:
        """Samples a second of source time over the last samples, losses included; NaN while unknown."""
        total_s = sum(self._intervals_s)
        return len(self._intervals_s) / total_s if total_s > 0 else float("nan")

    def age_s(self, now_ns: int) -> float:
        """ROS time since the newest sample's stamp; NaN for none."""
        return float("nan") if self._last_stamp_ns is None else (now_ns - self._last_stamp_ns) * 1e-9

    def latency_s(self, share: float) -> float:
        """Percentile of (time seen − stamp) over the last samples; NaN for none."""
        return percentile(self._latencies_s, share)

    def silence_s(self, steady_s: float) -> float:
        """Steady time since the last sample, or since `started_s` when there was none."""
        return steady_s - (self.started_s if self._last_seen_s is None else self._last_seen_s)
