"""Paths of values inside messages: ``a.b.c``, ``data[3]``, ``poses[0].position.x``, and ``data[0:3]`` for three."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_PART = re.compile(r"([A-Za-z]\w*)((?:\[\d+\])*)")
_RANGE = re.compile(r"(.*)\[(\d+):(\d+)\]")


def expand(path: str) -> tuple[str, ...]:
    """The paths that ``path`` stands for: itself, or one for each place of a range. Raises ValueError."""
    found = _RANGE.fullmatch(path)
    if found is None:
        steps(path)
        return (path,)
    stem, first, end = found[1], int(found[2]), int(found[3])
    if first >= end:
        raise ValueError(f"the range [{first}:{end}] is empty")
    paths = tuple(f"{stem}[{i}]" for i in range(first, end))
    steps(paths[0])
    return paths


@cache
def steps(path: str) -> tuple[str | int, ...]:
    """Names and indices along a path: ``a.b[2]`` → ("a", "b", 2). Raises ValueError when it is none."""
    result: list[str | int] = []
    for part in path.split("."):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(f"{path!r} is no field path; write for example pose.position.x, data[3] or data[0:7]")
        result += [found[1], *(int(index) for index in re.findall(r"\d+", found[2]))]
    return tuple(result)


def read(message: Any, path: str) -> float:
    """The number at ``path``. Raises LookupError naming the step that is not there, TypeError when it is no number."""
    value, walked = message, ""
    for step in steps(path):
        try:
            value = value[step] if isinstance(step, int) else getattr(value, step)
        except (AttributeError, IndexError, TypeError) as error:
            where = f"{walked or type(message).__name__}"
            raise LookupError(f"{where} has no {f'[{step}]' if isinstance(step, int) else step}") from error
        walked += f"[{step}]" if isinstance(step, int) else f".{step}" if walked else str(step)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{path} is a {type(value).__name__}, not a number") from error


def write(message: Any, paths: Sequence[str], values: Sequence[float]) -> None:
    """Put ``values`` at ``paths``; lists of numbers grow as needed. Raises LookupError."""
    for path, value in zip(paths, values, strict=True):
        *parents, last = steps(path)
        target = message
        for number, step in enumerate(parents):
            if isinstance(step, str) and not hasattr(target, step):
                raise LookupError(f"{type(target).__name__} has no {step}")
            following = last if number + 1 == len(parents) else parents[number + 1]
            target = target[step] if isinstance(step, int) else getattr(target, step)
            if isinstance(following, int):
                while len(target) <= following:
                    target.append(0.0)
        if isinstance(last, int):
            target[last] = value
        elif hasattr(target, last):
            setattr(target, last, type(getattr(target, last))(value))
        else:
            raise LookupError(f"{type(target).__name__} has no {last}")
