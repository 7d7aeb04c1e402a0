"""A relayed topic, and what can go wrong with it."""

from __future__ import annotations

import contextlib
import copy
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Arrivals = Iterable[tuple[float, Any]]
"""What becomes of one message: (delay in s, message) for every copy that arrives."""
Fault = Callable[[Any], Arrivals]


def faithful(message: Any) -> Arrivals:
    """Nothing is wrong."""
    return [(0.0, message)]


class Post:
    """Delivers messages later, in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._deliver, daemon=True).start()

    def send(self, due_s: float, publish: Callable[[Any], None], message: Any) -> None:
        """Call ``publish(message)`` at ``due_s`` of steady time."""
        with self._changed:
            heapq.heappush(self._waiting, (due_s, next(self._count), publish, message))
            self._changed.notify()

    def close(self) -> None:
        """Forget what waits."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._waiting or self._waiting[0][0] > time.monotonic()):
                    self._changed.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
                if self._ended:
                    return
                _, _, publish, message = heapq.heappop(self._waiting)
            publish(message)


class Channel:
    """Passes messages on to ``publish`` through ``fault``.

    ``ordered``: as from one publisher of DDS, no message is overtaken by an earlier one, however late that or its
    copies are, and however long this process waits for a core.
    """

    def __init__(self, publish: Callable[[Any], None], post: Post, ordered: bool = False) -> None:
        self.fault: Fault = faithful
        self.publish = publish
        self._post, self._ordered = post, ordered
        self._lock = threading.RLock()
        self._under_way, self._last_s = 0, 0.0
        self._kept: list[Any] | None = None

    def feed(self, message: Any) -> None:
        """Pass one message on."""
        for delay_s, arrival in self.fault(message):
            if self._ordered:
                self._queue(delay_s, arrival)
            elif delay_s <= 0:
                self._hand_over(arrival)
            else:
                self._post.send(time.monotonic() + delay_s, self._hand_over, arrival)

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """What arrives during the block waits for its end."""
        with self._lock:
            self._kept = []
        try:
            yield
        finally:
            with self._lock:
                kept, self._kept = self._kept, None
                for message in kept:
                    self.publish(message)

    def _queue(self, delay_s: float, message: Any) -> None:
        with self._lock:
            if self._under_way == 0 and delay_s <= 0:
                self._hand_over(message)
                return
            self._last_s = max(self._last_s, time.monotonic() + delay_s)
            self._under_way += 1
            self._post.send(self._last_s, self._arrive, message)

    def _arrive(self, message: Any) -> None:
        self._hand_over(message)
        with self._lock:
            self._under_way -= 1

    def _hand_over(self, message: Any) -> None:
        with self._lock:
            if self._kept is not None:
                self._kept.append(message)
                return
        self.publish(message)


def dropped(share: float, rng: random.Random) -> Fault:
    """Each message is lost with probability ``share``."""
    return lambda message: [] if rng.random() < share else [(0.0, message)]


def delayed(shortest_s: float, longest_s: float, rng: random.Random) -> Fault:
    """Each message arrives later by a time of its own; unless the channel is ordered they also change their order."""
    return lambda message: [(rng.uniform(shortest_s, longest_s), message)]


def duplicated(copies: int, apart_s: float) -> Fault:
    """Each message arrives ``copies`` times."""
    return lambda message: [(i * apart_s, copy.deepcopy(message)) for i in range(copies)]


def reordered(rng: random.Random) -> Fault:
    """Pairs of messages arrive in the wrong order."""
    kept: list[Any] = []

    def swap(message: Any) -> Arrivals:
        if not kept and rng.random() < 0.5:
            kept.append(message)
            return []
        return [(0.0, message), *((0.0, kept.pop()) for _ in range(len(kept)))]

    return swap


def changed(change: Callable[[Any], Any]) -> Fault:
    """Each message is replaced by ``change(message)``, which may edit it in place."""
    return lambda message: [(0.0, change(message))]
