"""What the two kinds of storage file have in common: connections, blocks, and how blocks are put into order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter, le
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from corft_core.errors import CorftError

# A topic's reception times jitter by less than this; further back means that the recorder's clock was set back.
STEP_BACK_NS = 1_000_000_000

Row = tuple[int, int, Any]
"""(reception time [ns], connection id, message as bytes or memoryview)"""
T = TypeVar("T")


class BagError(CorftError):
    """A recording that cannot be used."""


class Note(NamedTuple):
    """Something about a recording that its user should know. ``loss``: messages are missing."""

    text: str
    loss: bool = False


@dataclass(frozen=True)
class Connection:
    """A topic with its type in one storage file. ``definition`` is empty where the file has none."""

    topic: str
    type: str
    serialization: str = "cdr"
    definition: str = ""
    idl: bool = False


@dataclass
class Block:
    """A stretch of a storage file that is read at once: an MCAP chunk, a run of plain records or of rows.

    ``place`` is a byte offset or row id; ``counts`` and ``times_ns`` (first, last) are per connection id.
    """

    place: int
    counts: dict[int, int] = field(default_factory=dict)
    times_ns: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, connection: int, count: int, first_ns: int, last_ns: int) -> None:
        """Note ``count`` messages of ``connection`` received between ``first_ns`` and ``last_ns``."""
        known = self.times_ns.get(connection, (first_ns, last_ns))
        self.counts[connection] = self.counts.get(connection, 0) + count
        self.times_ns[connection] = min(first_ns, known[0]), max(last_ns, known[1])

    @property
    def start_ns(self) -> int:
        """The first reception."""
        return min(first for first, _ in self.times_ns.values())


class Storage(Protocol):
    """An open storage file.

    ``announced`` is the file's own message count per connection id, ``distro`` the ROS release that wrote it, where
    the file tells.
    """

    connections: dict[int, Connection]
    announced: dict[int, int]
    distro: str

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks that hold messages, in the file's order."""
        ...

    def load(self, block: Any, wanted: Collection[int]) -> list[Row]:
        """The block's messages of the ``wanted`` connections, sorted by time; what is damaged is left out and noted."""
        ...

    def notes(self) -> list[Note]:
        """What is damaged, as far as it was read."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass
class Damage:
    """Counts what could not be read of one storage file and tells about it."""

    path: Path
    whole: int = 0
    """Blocks in the file."""
    places: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    """Place → (why, messages lost, None when unknown)."""

    def add(self, place: int, why: str, lost: int | None) -> None:
        """Note a damaged place once, however often it is read."""
        self.places.setdefault(place, (why, lost))

    def notes(self, unit: str, repair: str) -> list[Note]:
        """One sentence for all damaged places, or none."""
        if not self.places:
            return []
        first = min(self.places)
        lost = sum(count or 0 for _, count in self.places.values())
        unknown = any(count is None for _, count in self.places.values())
        told = f"lost at least {lost} messages" if unknown and lost else "lost an unknown number of messages" \
            if unknown else f"lost {lost} messages"
        return [Note(f"{self.path.name}: {len(self.places)} of {self.whole} {unit} could not be read (first at "
                     f"{first}: {self.places[first][0]}), which {told}. {repair}", True)]


def in_order(rows: list[Row]) -> list[Row]:
    """``rows`` of one block by time; as they are where a clock was set back among them."""
    times = [row[0] for row in rows]
    if all(map(le, times, times[1:])):
        return rows
    newest: dict[int, int] = {}
    for time_ns, connection, _ in rows:
        last = newest.get(connection, time_ns)
        if time_ns < last - STEP_BACK_NS:
            return rows
        newest[connection] = max(last, time_ns)
    return sorted(rows, key=itemgetter(0))


def runs(blocks: Sequence[T], times_of: Callable[[T], dict[str, tuple[int, int]]]) -> tuple[list[list[T]], int]:
    """Cut ``blocks`` (in file order) where a topic's clock was set back; also the largest step back [ns], or 0.

    ``times_of`` gives a block's (first, last) reception per topic.
    """
    out: list[list[T]] = [[]]
    newest: dict[str, int] = {}
    largest = 0
    for block in blocks:
        times = times_of(block)
        back = max((newest[topic] - first for topic, (first, _) in times.items() if topic in newest), default=0)
        if back > STEP_BACK_NS:
            largest = max(largest, back)
            out.append([])
            newest = {}
        out[-1].append(block)
        for topic, (_, last) in times.items():
            newest[topic] = max(last, newest.get(topic, last))
    return out, largest


def merged(blocks: Sequence[T], start_of: Callable[[T], int], load: Callable[[T], list[Any]]) -> Iterator[Any]:
    """Rows of ``blocks`` by ``receive_ns``; only blocks that overlap in time are in memory at once."""
    waiting: list[Any] = []
    by_time = attrgetter("receive_ns")
    for block in sorted(blocks, key=start_of):
        due = bisect_left(waiting, start_of(block), key=by_time)
        yield from waiting[:due]
        waiting = waiting[due:]
        rows = load(block)
        waiting = sorted(waiting + rows, key=by_time) if waiting else rows
    yield from waiting
