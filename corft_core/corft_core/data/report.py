"""What a conversion saw: rates, gaps and drops per stream, ages, idle share, and what became of each episode."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GAP_PERIODS = 1.8  # an interval this much longer than the median counts as a gap


class StreamMeter:
    """Intervals between a stream's samples while episodes run; 8 bytes a sample."""

    def __init__(self, topic: str, kind: str) -> None:
        self.topic, self.kind = topic, kind
        self.count = 0
        self._intervals_s = array("d")
        self._last_ns: int | None = None

    def add(self, stamp_ns: int, in_episode: bool) -> None:
        """Count a sample; intervals that touch the time between episodes are not measured."""
        self.count += 1
        if in_episode and self._last_ns is not None and stamp_ns > self._last_ns:
            self._intervals_s.append((stamp_ns - self._last_ns) * 1e-9)
        self._last_ns = stamp_ns if in_episode else None

    def summary(self, periodic: bool) -> dict[str, Any]:
        """Figures of the stream; gaps and estimated drops only where samples come periodically."""
        result: dict[str, Any] = {"topic": self.topic, "type": self.kind, "messages": self.count}
        intervals = np.frombuffer(self._intervals_s, np.float64) if self._intervals_s else np.empty(0)
        if len(intervals):
            median = float(np.median(intervals))
            result |= {"rate_hz": round(len(intervals) / float(intervals.sum()), 3),
                       "median_period_s": round(median, 6), "largest_gap_s": round(float(intervals.max()), 6)}
            if periodic:
                gaps = intervals[intervals > _GAP_PERIODS * median]
                result |= {"gaps": len(gaps), "dropped": int(np.rint(gaps / median - 1).sum())}
        return result


@dataclass
class ConversionReport:
    """Filled while converting; ``to_dict`` is what meta/corft/report.json holds."""

    bags: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    meters: dict[str, StreamMeter] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected_messages: dict[str, int] = field(default_factory=dict)
    _ages: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)

    def add_ages(self, stream: str, ages_s: NDArray[np.float32]) -> None:
        """Ages of a stream's samples at an episode's ticks."""
        self._ages.setdefault(stream, []).append(ages_s)

    @property
    def kept(self) -> int:
        """Number of episodes kept."""
        return sum(bool(entry["kept"]) for entry in self.episodes)

    def reasons(self) -> dict[str, int]:
        """Why episodes were left out, with counts."""
        counts: dict[str, int] = {}
        for entry in self.episodes:
            if not entry["kept"]:
                counts[entry["reason"]] = counts.get(entry["reason"], 0) + 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        streams = {}
        for name, meter in self.meters.items():
            streams[name] = meter.summary(periodic=name not in ("arm_command", "gripper_command", "episode_event"))
            if name in self._ages:
                ages = np.concatenate(self._ages[name])
                streams[name]["age_s"] = {"mean": round(float(ages.mean()), 4),
                                          "p95": round(float(np.quantile(ages, 0.95)), 4),
                                          "max": round(float(ages.max()), 4)}
        idle = sum(entry["idle_steps"] for entry in self.episodes)
        steps = sum(entry["steps"] for entry in self.episodes)
        return {"bags": self.bags, "streams": streams, "episodes_seen": len(self.episodes),
                "episodes_kept": self.kept, "left_out": self.reasons(), "steps": steps,
                "idle_share_trimmed": round(idle / max(1, idle + steps), 4),
                "rejected_messages": self.rejected_messages, "notes": self.notes, "episodes": self.episodes}

    def text(self) -> str:
        """The report for a terminal."""
        data = self.to_dict()
        lines = [f"{'stream':<16} {'topic':<34} {'messages':>8} {'rate Hz':>8} {'max gap s':>9} {'dropped':>7} "
                 f"{'age p95 s':>9} {'age max s':>9}"]
        for name, s in data["streams"].items():
            ages = s.get("age_s", {})
            cells = (s.get("rate_hz"), s.get("largest_gap_s"), s.get("dropped"), ages.get("p95"), ages.get("max"))
            rate, gap, dropped, p95, oldest = ("-" if cell is None else f"{cell:.4g}" for cell in cells)
            lines.append(f"{name:<16} {s['topic']:<34} {s['messages']:>8} {rate:>8} {gap:>9} {dropped:>7} "
                         f"{p95:>9} {oldest:>9}")
        lines.append(f"episodes: {data['episodes_kept']} of {data['episodes_seen']} kept, {data['steps']} steps; "
                     f"{100 * data['idle_share_trimmed']:.1f} % leading idle steps trimmed")
        lines += [f"  left out: {count} x {reason}" for reason, count in data["left_out"].items()]
        lines += [f"  rejected messages: {count} x {reason}" for reason, count in data["rejected_messages"].items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
