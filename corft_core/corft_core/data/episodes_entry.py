"""One entry of an episodes file: which bag, which episode or time, what is said of it; see episodes_file.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from corft_core.data.episodes import EpisodeSpan
from corft_core.data.messages import DISCARD, FAILURE, SUCCESS
from corft_core.errors import CorftError

OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "discard": DISCARD}
_TIMES = ("from_s", "to_s", "from_ns", "to_ns")
KEYS = {"ranges": ("bag", *_TIMES, "instruction", "outcome", "scene_id"),
        "exclude": ("bag", "episode", "scene_id", *_TIMES),
        "labels": ("bag", "episode", "scene_id", "outcome", "instruction")}


class EpisodesFileError(CorftError):
    """An episodes file that is invalid, or that names what is not there."""


@dataclass(frozen=True)
class Entry:
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


def read_entry(section: str, place: str, item: Any) -> Entry:
    """Validate one entry of ``section``."""
    def refuse(text: str) -> EpisodesFileError:
        return EpisodesFileError(f"{place}{text}")

    if not isinstance(item, dict):
        raise refuse(f" must be a mapping with the keys {', '.join(KEYS[section])}, got {item!r}")
    for key in item:
        if key not in KEYS[section]:
            raise refuse(f".{key} is unknown; known are {', '.join(KEYS[section])}")
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
    entry = Entry(place, episode=episode, time_ns=_times(item, times, refuse), relative="from_s" in item, **texts)
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


def shorthand(text: str) -> dict[str, Any]:
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
