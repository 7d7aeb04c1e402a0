"""A relayed topic, and what can go wrong with it."""

from __future__ import annotations

import copy
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable
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

    def send(self, delay_s: float, publish: Callable[[Any], None], message: Any) -> None:
        """Call ``publish(message)`` in ``delay_s`` seconds."""
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + delay_s, next(self._count), publish, message))
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
    """Passes messages on to ``publish`` through ``fault``."""

    def __init__(self, publish: Callable[[Any], None], post: Post) -> None:
        self.fault: Fault = faithful
        self.publish = publish
        self._post = post

    def feed(self, message: Any) -> None:
        """Pass one message on."""
        for delay_s, arrival in self.fault(message):
            if delay_s <= 0:
                self.publish(arrival)
            else:
                self._post.send(delay_s, self.publish, arrival)


def dropped(share: float, rng: random.Random) -> Fault:
    """Each message is lost with probability ``share``."""
    return lambda message: [] if rng.random() < share else [(0.0, message)]


def delayed(shortest_s: float, longest_s: float, rng: random.Random) -> Fault:
    """Each message arrives later by a time of its own; with different times they also change their order."""
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
