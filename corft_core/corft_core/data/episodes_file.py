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

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import yaml

from corft_core.data.episodes import SKIP_BEGIN, SKIP_END, EpisodeSpan, Event, EventAt
from corft_core.data.messages import DISCARD, FAILURE, START, STOP, SUCCESS
from corft_core.errors import CorftError

OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "discard": DISCARD}
_LABELS = {"success": "success", "failure": "failure", "discard": "discarded"}
_ORDER = (SUCCESS, FAILURE, DISCARD, STOP, SKIP_END, SKIP_BEGIN, START)  # of events at the same time
_TIMES = ("from_s", "to_s", "from_ns", "to_ns")
_KEYS = {"ranges": ("bag", *_TIMES, "instruction", "outcome", "scene_id"),
         "exclude": ("bag", "episode", "scene_id", *_TIMES),
         "labels": ("bag", "episode", "scene_id", "outcome", "instruction")}


class EpisodesFileError(CorftError):
    """An episodes file that is invalid, or that names what is not there."""


@dataclass(frozen=True)
class WholeBag:
    """The whole recording is one episode; ``outcome`` is success, failure or discard."""

    instruction: str = ""
    outcome: str = "success"
    scene_id: str = ""


@dataclass(frozen=True)
class _Entry:
    """An entry of the file; ``place`` names it in messages. Times are in ns, from the bag's start if ``relative``."""

    place: str
    bag: str = ""
    episode: int | None = None
    scene_id: str = ""
    instruction: str = ""
    outcome: str = ""
    time_ns: tuple[int, int] | None = None
    relative: bool = True

    def selects(self, span: EpisodeSpan) -> bool:
        """True for the episode that is meant by number or scene."""
        return span.number == self.episode if self.episode is not None else self.scene_id == span.scene_id != ""

    def borders_ns(self, start_ns: int) -> tuple[int, int]:
        """From and to as reception times."""
        assert self.time_ns is not None
        offset = start_ns if self.relative else 0
        return self.time_ns[0] + offset, self.time_ns[1] + offset


@dataclass
class BagPlan:
    """What an episodes file says about one bag. ``used``: the entries that applied so far."""

    name: str
    ranges: list[_Entry] = field(default_factory=list)
    exclude: list[_Entry] = field(default_factory=list)
    labels: list[_Entry] = field(default_factory=list)
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
            entry = _Entry("", instruction=whole.instruction, outcome=whole.outcome, scene_id=whole.scene_id)
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
        if not isinstance(content, dict) or set(content) - set(_KEYS):
            found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise EpisodesFileError(f"{name}: expected the keys {', '.join(_KEYS)}, found {found}")
        self._entries: dict[str, list[_Entry]] = {}
        for section in _KEYS:
            entries = content.get(section) or []
            if not isinstance(entries, list):
                raise EpisodesFileError(f"{name}: {section} must be a list of entries, got {entries!r}")
            self._entries[section] = [_entry(section, f"{name}: {section}[{k}]", item)
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
        file._entries["exclude"] += [_entry("exclude", f"--exclude {text}", _shorthand(text)) for text in exclude]
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

    def _all(self) -> list[_Entry]:
        return [entry for entries in self._entries.values() for entry in entries]


def _entry(section: str, place: str, item: Any) -> _Entry:
    """Validate one entry of ``section``."""
    def refuse(text: str) -> EpisodesFileError:
        return EpisodesFileError(f"{place}{text}")

    if not isinstance(item, dict):
        raise refuse(f" must be a mapping with the keys {', '.join(_KEYS[section])}, got {item!r}")
    for key in item:
        if key not in _KEYS[section]:
            raise refuse(f".{key} is unknown; known are {', '.join(_KEYS[section])}")
    texts = {}
    for key in ("bag", "scene_id", "instruction", "outcome"):
        texts[key] = item.get(key, "success" if (section, key) == ("ranges", "outcome") else "")
        if not isinstance(texts[key], str) or (key in item and not texts[key]):
            raise refuse(f".{key} must be a text, got {item[key]!r}")
    if texts["outcome"] and texts["outcome"] not in OUTCOMES:
        raise refuse(f".outcome must be one of {', '.join(OUTCOMES)}, got {texts['outcome']!r}")
    episode = item.get("episode")
    if episode is not None and (type(episode) is not int or episode < 0):
        raise refuse(f".episode must be a whole number from 0, got {episode!r}")
    times = [key for key in _TIMES if key in item]
    if times and times not in (["from_s", "to_s"], ["from_ns", "to_ns"]):
        raise refuse(f" has {', '.join(times)}; a time range needs from_s and to_s, or from_ns and to_ns")
    entry = _Entry(place, episode=episode, time_ns=_times(item, times, refuse), relative="from_s" in item, **texts)
    if section == "ranges" and not (times and entry.bag):
        raise refuse(" needs bag, and from_s and to_s (or from_ns and to_ns)")
    if section != "ranges":
        ways = (episode is not None, bool(entry.scene_id), bool(times))
        if sum(ways) != 1 or (entry.bag == "") != bool(entry.scene_id):
            raise refuse(" must say which episode: by bag and episode, by scene_id alone"
                         + (", or by bag and a time range" if section == "exclude" else ""))
    if section == "labels" and not (entry.outcome or entry.instruction):
        raise refuse(" must give an outcome or an instruction")
    return entry


def _shorthand(text: str) -> dict[str, Any]:
    """The entry that BAG:NUMBER or BAG:FROM-TO stands for."""
    found = re.fullmatch(r"(.+):(?:(\d+)|([\d.]+)-([\d.]+))", text)
    try:
        if found is not None:
            bag, number, first, last = found.groups()
            return ({"bag": bag, "episode": int(number)} if number else
                    {"bag": bag, "from_s": float(first), "to_s": float(last)})
    except ValueError:
        pass
    raise EpisodesFileError(f"--exclude {text}: expected BAG:NUMBER for an episode (from 0), or BAG:FROM-TO for a time "
                            "range in s since the bag's start, such as kitchen_1:3 or kitchen_1:20.0-22.5")


def _times(item: dict[str, Any], keys: list[str], refuse: Any) -> tuple[int, int] | None:
    if not keys:
        return None
    for key in keys:
        wanted: Any = int if key.endswith("_ns") else (int, float)
        if not isinstance(item[key], wanted) or isinstance(item[key], bool) or not 0 <= item[key] < 1 << 62:
            raise refuse(f".{key} must be {'whole nanoseconds' if wanted is int else 'seconds'}, got {item[key]!r}")
    scale = 1 if keys[0].endswith("_ns") else 1_000_000_000
    first, last = (round(item[key] * scale) for key in keys)
    if first >= last:
        raise refuse(f".{keys[0]} must lie before {keys[1]}, got {item[keys[0]]} and {item[keys[1]]}")
    return first, last


def _is_named(path: Path, name: str) -> bool:
    """True when ``path`` ends in ``name``, with or without a storage file's suffix."""
    wanted, parts = PurePath(name).parts, path.absolute().parts
    tail = parts[-len(wanted) :]
    return tail[:-1] == wanted[:-1] and wanted[-1] in (tail[-1], tail[-1].split(".")[0])
