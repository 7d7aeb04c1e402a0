"""What the executor reports: counted for the diagnostics, logged without repeating itself. No ROS in here."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable

from corft_core.execution import Refusal

REPEAT_S = 2.0
STOP, SAME_STOP_S = "braking", 0.2


class Events:
    """``counts``: events since :meth:`clear` by what happened and why, without numbers: `chunk refused: STALE`.

    ``log`` gets a line for every stop; of what may repeat with every message, one line each REPEAT_S. A robot whose
    every message is a reason to stop stops once each SAME_STOP_S.
    ``steady_s``: a clock that never jumps.
    """

    def __init__(self, log: Callable[[str], object], steady_s: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._log, self._steady_s = log, steady_s
        self._logged_s: dict[str, float] = {}

    def clear(self) -> None:
        """Count from 0."""
        self.counts.clear()

    def report(self, what: str, event: Refusal) -> None:
        """Count and log an event of the supervisor."""
        kind = f"{re.sub(r' [0-9]+', '', what)}: {event.reason}"
        self.counts[kind] += 1
        line = f"{what}: {event.reason}: {event.message}"
        self.log(kind, line, SAME_STOP_S if what == STOP else REPEAT_S)

    def log(self, kind: str, text: str, repeat_s: float = REPEAT_S) -> None:
        """Log ``text``, unless something of this ``kind`` was logged in the last ``repeat_s``."""
        now_s = self._steady_s()
        if now_s - self._logged_s.get(kind, -math.inf) >= repeat_s:
            self._logged_s[kind] = now_s
            self._log(text)
