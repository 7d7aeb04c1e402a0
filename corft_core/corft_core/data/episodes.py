"""Cuts a recording into episodes by events: START … (SUCCESS | FAILURE | DISCARD) … STOP.

The events were recorded, or they stand for an episodes file or for "every bag is one episode" (episodes_file.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from corft_core.data.messages import DISCARD, EVENT_NAMES, FAILURE, START, STOP, SUCCESS, MessageError

SKIP_BEGIN, SKIP_END = 5, 6
"""Borders of a stretch of time that an episodes file excludes; never recorded."""

_OUTCOMES = {SUCCESS: "success", FAILURE: "failure", DISCARD: "discarded"}
_BY_WORD = {name.lower(): kind for kind, name in enumerate(EVENT_NAMES)}


@dataclass(frozen=True)
class Event:
    """What happened to the running episode; ``kind`` as in corft_msgs/EpisodeEvent, or a border to skip at."""

    kind: int
    instruction: str = ""
    scene_id: str = ""
    operator_id: str = ""


def read_event(message: Any) -> Event:
    """Event of a corft_msgs/EpisodeEvent, or of a std_msgs/String: "start: <instruction>", "start" or another kind.

    Raises MessageError for an unknown kind.
    """
    if isinstance(message, Event):
        return message
    if hasattr(message, "kind"):
        kind = int(message.kind)
        if not 0 <= kind < len(EVENT_NAMES):
            raise MessageError(f"episode event has kind {kind}; known are "
                               + ", ".join(f"{i} {name}" for i, name in enumerate(EVENT_NAMES)))
        return Event(kind, str(message.instruction), str(message.scene_id), str(message.operator_id))
    word, _, instruction = str(message.data).partition(":")
    known = _BY_WORD.get(word.strip().lower())
    if known is None or (instruction and known != START):
        raise MessageError(f'episode event says "{message.data}"; expected "start: <instruction>", '
                           + " or ".join(f'"{word}"' for word in list(_BY_WORD)[1:]))
    return Event(known, instruction.strip())


@dataclass
class EpisodeSpan:
    """One episode's place in time. ``end_ns`` is the outcome's stamp (else STOP's), None while it runs.

    ``outcome``: "success", "failure", "discarded", "unlabelled" (stopped without an outcome) or "unfinished".
    ``number`` counts the recording's episodes from 0. ``reason``: why an episodes file leaves it out, or "".
    """

    start_ns: int
    instruction: str
    scene_id: str
    operator_id: str
    end_ns: int | None = None
    outcome: str = "unfinished"
    closed: bool = False
    number: int = 0
    reason: str = ""
    label: str = ""
    """The outcome that an episodes file gives it once it has ended, whatever was recorded."""


class Edits(Protocol):
    """Changes to a recording's episodes, known before they are read."""

    def edit(self, span: EpisodeSpan) -> None:
        """Set ``reason``, ``label`` or ``instruction`` of an episode that starts."""
        ...


class EpisodeCutter:
    """Follows the events of one recording; ``current`` is the episode that runs or awaits its STOP.

    Episodes that ``edits`` exclude never become current; they are listed in ``left_out`` with their ``reason``.
    """

    def __init__(self, edits: Edits | None = None) -> None:
        self.current: EpisodeSpan | None = None
        self.left_out: list[EpisodeSpan] = []
        self.ignored = 0
        self._edits = edits
        self._hidden: EpisodeSpan | None = None  # runs, but is left out or begins inside a stretch to skip
        self._skipping = False
        self._ended_early = False
        self._skipped_to_ns = 0
        self._count = 0

    def push(self, stamp_ns: int, message: Any) -> None:
        """Take an Event, or a message that read_event understands.

        The first of SUCCESS and FAILURE counts; DISCARD before STOP always does. A START closes an episode that was
        never stopped. Events outside an episode are counted in ``ignored``. A stretch to skip moves the start or the
        end of the episode whose border it covers; an episode that goes on behind it is left out. Raises MessageError
        for an unknown kind.
        """
        event = read_event(message)
        if event.kind == START:
            self._start(stamp_ns, event)
        elif event.kind == SKIP_BEGIN:
            self._skipping = True
            if self.current is not None and self.current.end_ns is None:
                self.current.end_ns, self._ended_early = max(stamp_ns, self.current.start_ns), True
        elif event.kind == SKIP_END:
            self._skipping = False
            self._leave_skipped(stamp_ns)
        else:
            self._end(stamp_ns, event.kind)

    def finish(self) -> None:
        """Close the current episode, as at the end of a recording."""
        span = self.current or self._hidden
        if span is not None:
            span.closed = True
            if span.end_ns is not None:
                span.outcome = span.label or span.outcome
        if self._hidden is not None:
            self._hidden.reason = self._hidden.reason or "excluded: it lies inside an excluded time range"
            self.left_out.append(self._hidden)
        self.current = self._hidden = None
        self._ended_early = False

    def _start(self, stamp_ns: int, event: Event) -> None:
        self.finish()
        span = EpisodeSpan(stamp_ns, event.instruction, event.scene_id, event.operator_id, number=self._count)
        self._count += 1
        if self._edits is not None:
            self._edits.edit(span)
        if span.reason or self._skipping:
            self._hidden = span
        else:
            self.current = span

    def _leave_skipped(self, stamp_ns: int) -> None:
        self._skipped_to_ns = stamp_ns
        hidden = self._hidden
        if hidden is not None and not hidden.reason and hidden.outcome == "unfinished":
            hidden.start_ns = max(stamp_ns, hidden.start_ns)
            self.current, self._hidden = hidden, None
        elif self.current is not None and self._ended_early and self.current.outcome == "unfinished":
            self.current.reason = "excluded: an excluded time range lies inside it"

    def _end(self, stamp_ns: int, kind: int) -> None:
        span = self.current or self._hidden
        if span is None:
            self.ignored += 1
            return
        if self._ended_early and span.outcome == "unfinished" and stamp_ns <= self._skipped_to_ns:
            span.reason = ""  # it ends with the stretch
        if kind == DISCARD or (kind != STOP and span.outcome == "unfinished"):
            span.outcome = _OUTCOMES[kind]
        if span.end_ns is None:
            span.end_ns = max(stamp_ns, span.start_ns)
        if kind == STOP:
            if span.outcome == "unfinished":
                span.outcome = "unlabelled"
            self.finish()


@dataclass(frozen=True)
class EventAt:
    """An event that was not recorded, at a reception time [ns]."""

    receive_ns: int
    event: Event
    header_ns: None = None


class _Received(Protocol):
    @property
    def receive_ns(self) -> int: ...


M = TypeVar("M", bound=_Received)


def merge_events(messages: Iterable[M], events: Sequence[EventAt]) -> Iterator[M | EventAt]:
    """``messages`` with ``events`` (by time) among them: each before the first message that was received with it."""
    upcoming = iter(events)
    event = next(upcoming, None)
    for message in messages:
        while event is not None and event.receive_ns <= message.receive_ns:
            yield event
            event = next(upcoming, None)
        yield message
    while event is not None:
        yield event
        event = next(upcoming, None)
