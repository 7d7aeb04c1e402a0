"""What a check of a data set found: how bad, where, how much, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One finding. ``error``: wrong data or certain to spoil training; ``warning``: likely to; ``note``: good to know.

    ``name`` is the joint, camera, stream or column; ``frame`` counts within the episode; ``amount`` is the number that
    ``text`` tells in words.
    """

    severity: Severity
    code: str
    text: str
    remedy: str
    episode: int | None = None
    frame: int | None = None
    name: str | None = None
    amount: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without empty entries."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def count(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Number of findings of each severity."""
    counts: dict[Severity, int] = dict.fromkeys(SEVERITIES, 0)
    for finding in findings:
        counts[finding.severity] += 1
    return counts


def text(findings: Iterable[Finding]) -> str:
    """For a terminal: worst first, the same finding in several episodes told once with its worst case."""
    groups: dict[tuple[Severity, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code, finding.name), []).append(finding)
    lines = []
    for (severity, code, name), group in sorted(groups.items(), key=lambda item: SEVERITIES.index(item[0][0])):
        worst = max(group, key=lambda finding: abs(finding.amount or 0.0))
        lines.append(f"{severity:<7} {code}{f' {name}' if name else ''}{_where(group, worst)}: {worst.text}")
        lines.append(f"        {worst.remedy}")
    return "\n".join(lines)


def _where(group: list[Finding], worst: Finding) -> str:
    if worst.episode is None:
        return ""
    at = f"episode {worst.episode}" + ("" if worst.frame is None else f" frame {worst.frame}")
    episodes = sorted({finding.episode for finding in group if finding.episode is not None})
    if len(episodes) < 2:
        return f", {at}"
    shown = ", ".join(map(str, episodes[:8])) + (", …" if len(episodes) > 8 else "")
    return f" in {len(episodes)} episodes ({shown}), worst in {at}"
