"""The fenced blocks of docs/how-to/your-robot.md, for the tests that follow it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs/how-to/your-robot.md"
FOLDER = ROOT / "tests/second_robot"


@dataclass(frozen=True)
class Block:
    """One fenced block of a section: ``mark`` says who runs it, ``expect`` what its output must have."""

    section: str
    language: str
    mark: str
    expect: str
    text: str


def blocks() -> list[Block]:
    """All blocks in the guide's order."""
    result: list[Block] = []
    for part in re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)[1:]:
        found = re.findall(r"^```(\w+) ?(\S*)(?: expect=(\S+))?\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        result += [Block(part.split("\n", 1)[0], *words) for words in found]
    return result
