"""The episodes of one recording session: which command is allowed when, and which events it makes. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass, field

from corft_core.data.messages import DISCARD, FAILURE, START, STOP, SUCCESS
from corft_core.errors import CorftError

OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "discard": DISCARD}
# What a key and a line command do.
KEYS = {"s": "start", "y": "success", "n": "failure", "d": "discard", "x": "stop", "p": "prompt", "q": "quit"}
COMMANDS = tuple(KEYS.values())
CONFIRM_NS = 3_000_000_000


class CommandRefused(CorftError):
    """A command that makes no sense now; the text says what does."""


@dataclass
class Episode:
    """One marked episode. Stamps in ns on the recorder's clock; ``outcome`` is "" while it runs."""

    number: int
    instruction: str
    start_ns: int
    stop_ns: int = 0
    outcome: str = ""
    heard: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An EpisodeEvent to publish."""

    kind: int
    stamp_ns: int
    instruction: str


class Session:
    """Follows the operator's commands. Events always come as START, one outcome or none, STOP."""

    def __init__(self, instruction: str = "") -> None:
        self.instruction = instruction
        self.episodes: list[Episode] = []
        self.ended = False
        self._quit_asked_ns: int | None = None

    @property
    def running(self) -> Episode | None:
        """The episode under way."""
        return self.episodes[-1] if self.episodes and not self.episodes[-1].outcome else None

    def command(self, name: str, stamp_ns: int, text: str = "") -> list[Event]:
        """Obey a command given at ``stamp_ns``; returns the events to publish. Raises CommandRefused."""
        asked_ns, self._quit_asked_ns = self._quit_asked_ns, None
        if name == "start":
            return self._start(stamp_ns, text)
        if name == "prompt":
            self._set_prompt(text)
            return []
        if name == "quit":
            if self.running is None or (asked_ns is not None and stamp_ns - asked_ns <= CONFIRM_NS):
                return self.end(stamp_ns)
            self._quit_asked_ns = stamp_ns
            raise CommandRefused("an episode is running: end it first (y n d x), or quit again now to discard it")
        if name in OUTCOMES or name == "stop":
            return self._stop(name, stamp_ns)
        raise CommandRefused(f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}")

    def end(self, stamp_ns: int) -> list[Event]:
        """The end of the session; an episode under way is discarded, since nobody has judged it."""
        self.ended = True
        return self._stop("discard", stamp_ns) if self.running else []

    def _start(self, stamp_ns: int, text: str) -> list[Event]:
        if self.running is not None:
            raise CommandRefused(f"episode {self.running.number} is running: end it first (y n d x)")
        if text.strip():
            self._set_prompt(text)
        if not self.instruction:
            raise CommandRefused("there is no prompt text: set it first (p, or --prompt TEXT)")
        if self.episodes and stamp_ns <= self.episodes[-1].stop_ns:
            raise CommandRefused("time has gone back or stands still (was the simulation restarted?): start later")
        self.episodes.append(Episode(len(self.episodes) + 1, self.instruction, stamp_ns))
        return [Event(START, stamp_ns, self.instruction)]

    def _stop(self, outcome: str, stamp_ns: int) -> list[Event]:
        episode = self.running
        if episode is None:
            raise CommandRefused("no episode is running: s starts one")
        episode.stop_ns = max(stamp_ns, episode.start_ns)
        episode.outcome = "unlabelled" if outcome == "stop" else outcome
        kinds = [STOP] if outcome == "stop" else [OUTCOMES[outcome], STOP]
        return [Event(kind, episode.stop_ns, episode.instruction) for kind in kinds]

    def _set_prompt(self, text: str) -> None:
        if self.running is not None:
            raise CommandRefused("an episode is running: its prompt text stays until it has ended")
        if not text.strip():
            raise CommandRefused("the prompt text is empty")
        self.instruction = text.strip()
