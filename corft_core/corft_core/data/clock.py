"""One time base for all streams of a recording."""

from __future__ import annotations

from collections import deque

# Further apart than any latency: the recorder and the headers use different clocks (wall and simulated time).
_OTHER_CLOCK_NS = 10_000_000_000
_WINDOW = 50


class SourceClock:
    """Maps reception times to the clock of the message headers.

    Streams such as a gripper command carry no header. When a recording was made on the wall clock while headers carry
    simulated time, their reception times are mapped through reference messages that have both (/clock, joint states):
    last reference plus elapsed time at the recent ratio, never past one more reference period. Where both clocks
    agree to within 10 s, reception times are used as they are.
    """

    def __init__(self) -> None:
        self._pairs: deque[tuple[int, int]] = deque(maxlen=_WINDOW)

    @property
    def differs(self) -> bool:
        """True when headers and recorder use different clocks."""
        return bool(self._pairs) and abs(self._pairs[-1][0] - self._pairs[-1][1]) > _OTHER_CLOCK_NS

    def observe(self, receive_ns: int, header_ns: int) -> None:
        """Add a reference: a message received at ``receive_ns`` with header stamp ``header_ns``."""
        if self._pairs and header_ns < self._pairs[-1][1]:
            self._pairs.clear()  # simulation restarted
        if not self._pairs or header_ns > self._pairs[-1][1]:
            self._pairs.append((receive_ns, header_ns))

    def stamp_ns(self, receive_ns: int) -> int | None:
        """Reception time on the header clock; None before the first reference."""
        if not self._pairs:
            return None
        if not self.differs:
            return receive_ns
        (first_r, first_h), (last_r, last_h) = self._pairs[0], self._pairs[-1]
        if last_r <= first_r or receive_ns <= last_r:
            return last_h
        period_ns = (last_h - first_h) // (len(self._pairs) - 1)
        elapsed_ns = int((receive_ns - last_r) * (last_h - first_h) / (last_r - first_r))
        return last_h + min(elapsed_ns, period_ns)
