"""Timing of one RunPolicy goal: which tick is next, and when the goal must end. No ROS in here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class PolicyRun:
    """Ticks lie on the grid `start_ns` + k · `step_ns`. Times are ROS time in ns, `*_s` steady time in s."""

    instruction: str
    start_ns: int
    deadline_ns: int | None
    step_ns: int
    replan_steps: int
    on_end: Callable[[int, str], None]
    chunks: int = 0
    next_tick_ns: int = 0
    blind_since_ns: int | None = None
    begun_s: float = 0.0
    _last_now_ns: int = 0
    _progress_s: float = 0.0
    _blind_since_s: float = 0.0
    _unanswered_since_s: float | None = None
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.next_tick_ns = self.start_ns
        self._last_now_ns = self.start_ns
        self.begun_s = self._progress_s = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether an outcome has been set."""
        return self._ended

    def end(self, outcome: int, reason: str) -> bool:
        """Set the outcome; the first call counts. True when this call was the first."""
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        self.on_end(outcome, reason)
        return True

    def due_tick(self, now_ns: int) -> int | None:
        """The tick to predict from now, or None when it is too early.

        When inference was late the newest tick of the grid is taken, not the one that was missed.
        """
        if now_ns < self.next_tick_ns:
            return None
        late_steps = (now_ns - self.next_tick_ns) // self.step_ns
        return self.next_tick_ns + late_steps * self.step_ns

    def predicted(self, tick_ns: int) -> None:
        """The chunk of `tick_ns` is out: plan the next tick."""
        self.chunks += 1
        self.blind_since_ns = self._unanswered_since_s = None
        self.next_tick_ns = tick_ns + self.replan_steps * self.step_ns

    def skipped(self, tick_ns: int) -> None:
        """No usable observation at `tick_ns`: try again one step later."""
        self.next_tick_ns = tick_ns + self.step_ns
        if self.blind_since_ns is None:
            self.blind_since_ns, self._blind_since_s = tick_ns, time.monotonic()

    def unanswered(self, tick_ns: int, asked_s: float) -> float:
        """No chunk came for the observation of `tick_ns`, asked for at steady `asked_s`: try again one step later.

        Returns steady seconds since the first question without an answer was asked.
        """
        self.blind_since_ns = None
        self.next_tick_ns = tick_ns + self.step_ns
        if self._unanswered_since_s is None:
            self._unanswered_since_s = asked_s
        return time.monotonic() - self._unanswered_since_s

    def timed_out(self, now_ns: int) -> bool:
        """Whether the goal's time is over."""
        return self.deadline_ns is not None and now_ns >= self.deadline_ns

    def blind_s(self, now_ns: int) -> float:
        """Since when there has been no usable observation: ROS time or steady time, whichever is less.

        A fast simulation on a busy machine must not run out of patience before anybody could have published.
        """
        if self.blind_since_ns is None:
            return 0.0
        return min((now_ns - self.blind_since_ns) * 1e-9, time.monotonic() - self._blind_since_s)

    def standing_s(self, now_ns: int) -> float:
        """Steady seconds since ROS time last advanced."""
        if now_ns != self._last_now_ns:
            self._last_now_ns = now_ns
            self._progress_s = time.monotonic()
        return time.monotonic() - self._progress_s
