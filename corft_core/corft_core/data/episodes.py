"""Cuts a recording into episodes by EpisodeEvent: START … (SUCCESS | FAILURE | DISCARD) … STOP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corft_core.data.messages import DISCARD, EVENT_NAMES, FAILURE, START, STOP, SUCCESS, MessageError


@dataclass
class EpisodeSpan:
    """One episode's place in time. ``end_ns`` is the outcome's stamp (else STOP's), None while it runs.

    ``outcome``: "success", "failure", "discarded", "unlabelled" (stopped without an outcome) or "unfinished".
    """

    start_ns: int
    instruction: str
    scene_id: str
    operator_id: str
    end_ns: int | None = None
    outcome: str = "unfinished"
    closed: bool = False


class EpisodeCutter:
    """Follows the events of one recording; ``current`` is the episode that runs or awaits its STOP."""

    def __init__(self) -> None:
        self.current: EpisodeSpan | None = None
        self.ignored = 0

    def push(self, stamp_ns: int, event: Any) -> None:
        """Take an event.

        The first of SUCCESS and FAILURE counts; DISCARD before STOP always does. A START closes an episode that was
        never stopped. Events outside an episode are counted in ``ignored``. Raises MessageError for an unknown kind.
        """
        kind = int(event.kind)
        if kind == START:
            self.finish()
            self.current = EpisodeSpan(stamp_ns, str(event.instruction), str(event.scene_id), str(event.operator_id))
            return
        if kind not in (STOP, SUCCESS, FAILURE, DISCARD):
            raise MessageError(f"episode event has kind {kind}; known are "
                               + ", ".join(f"{i} {name}" for i, name in enumerate(EVENT_NAMES)))
        span = self.current
        if span is None:
            self.ignored += 1
            return
        if kind == DISCARD:
            span.outcome = "discarded"
        elif kind in (SUCCESS, FAILURE) and span.outcome == "unfinished":
            span.outcome = "success" if kind == SUCCESS else "failure"
        if span.end_ns is None:
            span.end_ns = max(stamp_ns, span.start_ns)
        if kind == STOP:
            if span.outcome == "unfinished":
                span.outcome = "unlabelled"
            self.finish()

    def finish(self) -> None:
        """Close the current episode, as at the end of a recording."""
        if self.current is not None:
            self.current.closed = True
        self.current = None
