"""The episodes file: a YAML that cuts bags by time, excludes and relabels episodes, and leaves the bags untouched.

    ranges:     # these stretches are the bag's episodes; its recorded events are not used
      - {bag: kitchen_0, from_s: 2.0, to_s: 14.5, instruction: pick the cup, outcome: success, scene_id: kitchen/0}
    exclude:    # whole episodes by number (from 0) or scene, or time at an episode's border
      - {bag: kitchen_1, episode: 3}
      - {scene_id: kitchen/7}
      - {bag: kitchen_1, from_s: 20.0, to_s: 22.5}
    labels:     # another outcome or instruction than the recorded one
      - {bag: kitchen_1, episode: 2, outcome: failure}
      - {scene_id: kitchen/9, instruction: pick the red cup}

``from_s`` and ``to_s`` count from the bag's first message; ``from_ns`` and ``to_ns`` are reception times as the
recorder stored them. ``bag`` is the name of the bag's folder or file, with as many parents as tell it from others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import yaml

from corft_core.data.episodes import SKIP_BEGIN, SKIP_END, EpisodeSpan, Event, EventAt
from corft_core.data.episodes_entry import KEYS, OUTCOMES, Entry, EpisodesFileError, read_entry, shorthand
from corft_core.data.messages import DISCARD, FAILURE, START, STOP, SUCCESS

__all__ = ["BagPlan", "EpisodesFile", "EpisodesFileError", "WholeBag"]

_LABELS = {"success": "success", "failure": "failure", "discard": "discarded"}
_ORDER = (SUCCESS, FAILURE, DISCARD, STOP, SKIP_END, SKIP_BEGIN, START)  # of events at the same time


@dataclass(frozen=True)
class WholeBag:
    """The whole recording is one episode; ``outcome`` is success, failure or discard."""

    instruction: str = ""
    outcome: str = "success"
    scene_id: str = ""


@dataclass
class BagPlan:
    """What an episodes file says about one bag. ``used``: the entries that applied so far."""

    name: str
    ranges: list[Entry] = field(default_factory=list)
    exclude: list[Entry] = field(default_factory=list)
    labels: list[Entry] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @property
    def replaces_events(self) -> bool:
        """True when the recorded events are not to be used."""
        return bool(self.ranges)

    def events(self, start_ns: int, end_ns: int, whole: WholeBag | None = None) -> list[EventAt]:
        """The events that stand for the plan, by time, for a bag received from ``start_ns`` to ``end_ns``.

        ``whole`` makes the bag one episode where no ranges are given. Raises EpisodesFileError for overlapping ranges.
        """
        out: list[tuple[int, Event]] = []
        episodes = [(*entry.borders_ns(start_ns), entry) for entry in self.ranges]
        for (_, to_ns, first), (from_ns, _, second) in pairwise(sorted(episodes, key=lambda item: item[0])):
            if from_ns < to_ns:
                raise EpisodesFileError(f"{first.place} and {second.place} overlap in {self.name}; an instant can "
                                        "belong to one episode only")
        if whole is not None and not episodes:
            entry = Entry("", instruction=whole.instruction, outcome=whole.outcome, scene_id=whole.scene_id)
            episodes = [(start_ns, end_ns, entry)]
        for k, (from_ns, to_ns, entry) in enumerate(sorted(episodes, key=lambda item: item[0])):
            if from_ns > end_ns or to_ns < start_ns:
                continue  # it stays unused, which is reported
            self.used.add(entry.place)
            scene = entry.scene_id or f"{self.name}/{k}"
            out += [(from_ns, Event(START, entry.instruction, scene)), (to_ns, Event(OUTCOMES[entry.outcome])),
                    (to_ns, Event(STOP))]
        for entry in self.exclude:
            if entry.time_ns is not None:
                from_ns, to_ns = entry.borders_ns(start_ns)
                out += [(from_ns, Event(SKIP_BEGIN)), (to_ns, Event(SKIP_END))]
                if from_ns <= end_ns and to_ns >= start_ns:
                    self.used.add(entry.place)
        out.sort(key=lambda item: (item[0], _ORDER.index(item[1].kind)))
        return [EventAt(time_ns, event) for time_ns, event in out]

    def edit(self, span: EpisodeSpan) -> None:
        """Apply exclusions and labels to an episode that starts."""
        for entry in self.exclude:
            if entry.time_ns is None and entry.selects(span):
                span.reason = f"excluded by {entry.place}"
                self.used.add(entry.place)
        for entry in self.labels:
            if entry.selects(span):
                span.instruction = entry.instruction or span.instruction
                span.label = _LABELS.get(entry.outcome, span.label)
                self.used.add(entry.place)


class EpisodesFile:
    """A validated episodes file; without arguments one that asks for nothing."""

    def __init__(self, content: Any = None, name: str = "episodes file") -> None:
        """``content`` as read from YAML. Raises EpisodesFileError naming the key that is wrong."""
        self._name = name
        content = {} if content is None else content
        if not isinstance(content, dict) or set(content) - set(KEYS):
            found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise EpisodesFileError(f"{name}: expected the keys {', '.join(KEYS)}, found {found}")
        self._entries: dict[str, list[Entry]] = {}
        for section in KEYS:
            entries = content.get(section) or []
            if not isinstance(entries, list):
                raise EpisodesFileError(f"{name}: {section} must be a list of entries, got {entries!r}")
            self._entries[section] = [read_entry(section, f"{name}: {section}[{k}]", item)
                                      for k, item in enumerate(entries)]

    @classmethod
    def load(cls, path: str | Path | None, exclude: Iterable[str] = ()) -> EpisodesFile:
        """Read ``path``, if any, and add exclusions written as BAG:NUMBER or BAG:FROM-TO. Raises EpisodesFileError."""
        content, name = None, ""
        if path is not None:
            try:
                content, name = yaml.safe_load(Path(path).read_text()), Path(path).name
            except OSError as error:
                raise EpisodesFileError(f"{path} cannot be read: {error.strerror}") from error
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise EpisodesFileError(f"{path} is no valid YAML: {error}") from error
        file = cls(content, name)
        file._entries["exclude"] += [read_entry("exclude", f"--exclude {text}", shorthand(text)) for text in exclude]
        return file

    def check(self, bags: Iterable[str | Path]) -> None:
        """Raise EpisodesFileError for an entry whose bag is not among ``bags``."""
        paths = [Path(bag) for bag in bags]
        for entry in self._all():
            if entry.bag and not any(_is_named(path, entry.bag) for path in paths):
                raise EpisodesFileError(f"{entry.place} names the bag {entry.bag}, which is not among those to "
                                        f"convert: {', '.join(path.name for path in paths)}")

    def for_bag(self, path: str | Path) -> BagPlan:
        """What is said about the bag at ``path``."""
        mine = {section: [entry for entry in entries if not entry.bag or _is_named(Path(path), entry.bag)]
                for section, entries in self._entries.items()}
        return BagPlan(Path(path).name, mine["ranges"], mine["exclude"], mine["labels"])

    def unused(self, used: Collection[str]) -> list[str]:
        """A sentence for each entry that applied to no bag, given what the plans used."""
        return [f"{entry.place} applied to no episode" for entry in self._all() if entry.place not in used]

    def _all(self) -> list[Entry]:
        return [entry for entries in self._entries.values() for entry in entries]


def _is_named(path: Path, name: str) -> bool:
    """True when ``path`` ends in ``name``, with or without a storage file's suffix."""
    wanted, parts = PurePath(name).parts, path.absolute().parts
    tail = parts[-len(wanted) :]
    return tail[:-1] == wanted[:-1] and wanted[-1] in (tail[-1], tail[-1].split(".")[0])
