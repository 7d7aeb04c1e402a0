"""What a conversion saw, bag by bag: rates, gaps, drops, ages, idle share, commands, and what became of each episode.

``BagReport`` is filled while a bag is read; ``summary`` puts the bags' reports together as meta/corft/report.json
holds them; ``text`` shows that on a terminal and ``report_page.page`` in a browser.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.episode import Episode

GAP_PERIODS = 1.8
"""An interval this much longer than the median counts as a gap."""
EVENT_TYPES = ("corft_msgs/msg/EpisodeEvent", "std_msgs/msg/String")
"""Have no rate."""
_LISTED_GAPS = 100
_BINS = 240
CLOSED = 0.5
"""A gripper opening below this counts as closed."""


class StreamMeter:
    """Stamps of one stream's samples, 16 bytes a sample; rates and gaps are measured while episodes run."""

    def __init__(self, topic: str, kind: str, periodic: bool) -> None:
        self.topic, self.kind, self.periodic = topic, kind, periodic
        self.stamps_ns = array("q")
        self.ages_s: list[NDArray[np.float32]] = []
        self.ticks_ns: list[NDArray[np.int64]] = []
        self._starts_ns, self._intervals_ns = array("q"), array("q")
        self._last_ns = 0
        self._episode: int | None = None

    def add(self, stamp_ns: int, episode: int | None) -> None:
        """Count a sample that came during ``episode`` (its number); only intervals within an episode are measured."""
        self.stamps_ns.append(stamp_ns)
        if episode is not None and episode == self._episode and stamp_ns > self._last_ns:
            self._starts_ns.append(self._last_ns)
            self._intervals_ns.append(stamp_ns - self._last_ns)
        self._last_ns, self._episode = stamp_ns, episode

    def largest_gap_s(self, start_ns: int, end_ns: int) -> float:
        """The longest time without a sample between two stamps, the ends included."""
        stamps = np.array(self.stamps_ns)
        inside = np.sort(stamps[(stamps > start_ns) & (stamps < end_ns)])
        return float(np.diff(np.concatenate([[start_ns], inside, [end_ns]])).max()) * 1e-9

    def to_dict(self, start_ns: int, bin_ns: int, bins: int) -> dict[str, Any]:
        """Figures and timeline (``bins`` of ``bin_ns`` from ``start_ns``); gaps and drops of periodic streams only."""
        result: dict[str, Any] = {"topic": self.topic, "type": self.kind, "messages": len(self.stamps_ns)}
        if self._intervals_ns and self.kind not in EVENT_TYPES:
            intervals = np.array(self._intervals_ns) * 1e-9
            median = float(np.median(intervals))
            result |= {"rate_hz": round(len(intervals) / float(intervals.sum()), 3),
                       "median_period_s": round(median, 6), "largest_gap_s": round(float(intervals.max()), 6)}
            if self.periodic:
                long = np.flatnonzero(intervals > GAP_PERIODS * median)
                worst = np.sort(long[np.argsort(-intervals[long], kind="stable")[:_LISTED_GAPS]])
                result |= {
                    "gaps": len(long), "dropped": int(np.rint(intervals[long] / median - 1).sum()),
                    "gap_list": [{"at_s": round((self._starts_ns[i] - start_ns) * 1e-9, 3),
                                  "length_s": round(float(intervals[i]), 3)} for i in worst]}
        timeline: dict[str, Any] = {
            "messages": np.bincount(_bins(np.array(self.stamps_ns), start_ns, bin_ns, bins), minlength=bins).tolist()}
        if self.ages_s:
            ages, ticks = np.concatenate(self.ages_s), np.concatenate(self.ticks_ns)
            result["age_s"] = {"mean": round(float(ages.mean()), 4), "p95": round(float(np.quantile(ages, 0.95)), 4),
                               "max": round(float(ages.max()), 4), "count": len(ages)}
            oldest = np.zeros(bins)
            np.maximum.at(oldest, _bins(ticks, start_ns, bin_ns, bins), ages)
            timeline["max_age_s"] = oldest.round(3).tolist()
        return result | {"timeline": timeline}


class BagReport:
    """Filled while one bag is converted; ``to_dict`` is plain data for JSON without anything that varies."""

    def __init__(self, path: str, contract: Contract,
                 joint_limits_rad: Sequence[Sequence[float]] | None = None) -> None:
        self.bytes = 0
        self.meters: dict[str, StreamMeter] = {}
        self.episodes: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.damage: list[str] = []
        self.rejected: Counter[str] = Counter()
        self.undecodable: dict[str, int] = {}
        self.gripper_outside = 0
        self.plan_used: list[str] = []
        self._path, self._contract, self._limits = path, contract, joint_limits_rad
        self._openings: dict[str, list[NDArray[np.float32]]] = {"commanded": [], "measured": []}
        self._joints_outside = np.zeros(len(contract.robot.joints), np.int64)
        self._steps = 0

    def meter(self, stream: str, topic: str, kind: str) -> None:
        """Follow a stream."""
        periodic = stream not in ("arm_command", "gripper_command", "episode_event")
        self.meters[stream] = StreamMeter(topic, kind, periodic)

    def add_episode(self, episode: Episode) -> None:
        """Measure a kept episode: ages, gripper states, commands outside the joints' limits."""
        contract = self._contract
        for name in contract.observation_streams:
            self.meters[name].ages_s.append(episode.columns[f"source.{name}.age_s"].astype(np.float32))
            self.meters[name].ticks_ns.append(episode.columns["source.tick_ns"].astype(np.int64))
        if contract.action_gripper is not None and contract.state_gripper is not None:
            self._openings["commanded"].append(episode.action[:, contract.action_gripper])
            self._openings["measured"].append(episode.state[:, contract.state_gripper])
        if contract.action_space == "joint" and self._limits is not None:
            commands = episode.action[:, :len(self._joints_outside)].astype(np.float64)
            low, high = np.asarray(self._limits)
            self._joints_outside += ((commands < low - 1e-4) | (commands > high + 1e-4)).sum(axis=0)
        self._steps += len(episode)

    def to_dict(self) -> dict[str, Any]:
        """The bag's entry in the report. Times are in s from its first sample."""
        stamps = [np.array(meter.stamps_ns) for meter in self.meters.values() if meter.stamps_ns]
        start_ns = min((int(s.min()) for s in stamps), default=0)
        end_ns = max((int(s.max()) for s in stamps), default=0)
        bins = int(np.clip((end_ns - start_ns) // 500_000_000, 1, _BINS))
        bin_ns = -(-(end_ns - start_ns + 1) // bins)
        for entry in self.episodes:
            entry["at_s"] = round((entry["start_ns"] - start_ns) * 1e-9, 3)
            entry["length_s"] = None if entry["end_ns"] is None else round(
                (entry["end_ns"] - entry["start_ns"]) * 1e-9, 3)
        return {
            "path": self._path, "bytes": self.bytes, "start_ns": start_ns,
            "duration_s": round((end_ns - start_ns) * 1e-9, 3), "bin_s": bin_ns * 1e-9, "steps": self._steps,
            "streams": {name: meter.to_dict(start_ns, bin_ns, bins) for name, meter in self.meters.items()},
            "gripper": {name: _openings(values) for name, values in self._openings.items() if values},
            "clipped": {"joint_steps": dict(zip(self._contract.robot.joints, self._joints_outside.tolist(),
                                                strict=True)) if self._limits is not None else None,
                        "gripper_commands": self.gripper_outside},
            "undecodable": self.undecodable, "rejected_messages": dict(sorted(self.rejected.items())),
            "notes": self.notes, "damage": self.damage, "plan_used": self.plan_used, "episodes": self.episodes}


def summary(bags: list[dict[str, Any]], lost: list[dict[str, str]]) -> dict[str, Any]:
    """The whole report from the bags' dictionaries; ``lost``: ``{path, reason}`` of bags that could not be read.

    ``streams`` add up over the bags; rate and period are those of the longest bag, ages' p95 that of the worst one.
    The bags' episodes move into one list, in the order of the data set; ``recording`` numbers their bags.
    """
    episodes = [{"recording": index, **entry} for index, bag in enumerate(bags) for entry in bag["episodes"]]
    idle, steps = sum(e["idle_steps"] for e in episodes), sum(e["steps"] for e in episodes)
    longest: dict[str, Any] = max(bags, key=lambda bag: float(bag["duration_s"]), default={"streams": {}})
    notes = [f"{bag['path']}: {note}" for bag in bags for note in bag["notes"]]
    commanded = [bag["gripper"]["commanded"] for bag in bags if "commanded" in bag["gripper"]]
    if commanded and all(c["closed_share"] == 0 for c in commanded):
        notes.append("the gripper is never commanded to close: check its open and closed positions in the contract")
    if commanded and all(c["closed_share"] == 1 for c in commanded):
        notes.append("the gripper is never commanded to open: check its open and closed positions in the contract")
    return {
        "episodes_seen": len(episodes), "episodes_kept": sum(bool(e["kept"]) for e in episodes),
        "left_out": dict(Counter(e["reason"] for e in episodes if not e["kept"])), "steps": steps,
        "idle_share_trimmed": round(idle / max(1, idle + steps), 4),
        "streams": {name: _total([bag["streams"][name] for bag in bags if name in bag["streams"]], stream)
                    for name, stream in longest["streams"].items()},
        "rejected_messages": _added([bag["rejected_messages"] for bag in bags]),
        "undecodable": _added([bag["undecodable"] for bag in bags]),
        "notes": notes, "damage": [f"{bag['path']}: {what}" for bag in bags for what in bag["damage"]],
        "lost_bags": lost,
        "bags": [{k: v for k, v in bag.items() if k not in ("episodes", "plan_used")} for bag in bags],
        "episodes": episodes}


def losses(report: dict[str, Any]) -> list[str]:
    """What the data set lacks because of damage, not because it was asked for; empty: a conversion without losses."""
    return [*(f"{bag['path']} left out: {bag['reason']}" for bag in report["lost_bags"]), *report["damage"],
            *(f"episode at {e['at_s']:.1f} s of {report['bags'][e['recording']]['path']} left out: {e['reason']}"
              for e in report["episodes"] if e["damaged"])]


def text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"{'stream':<16} {'topic':<34} {'messages':>8} {'rate Hz':>8} {'max gap s':>9} {'dropped':>7} "
             f"{'age p95 s':>9} {'age max s':>9}"]
    for name, s in report["streams"].items():
        ages = s.get("age_s", {})
        cells = (s.get("rate_hz"), s.get("largest_gap_s"), s.get("dropped"), ages.get("p95"), ages.get("max"))
        rate, gap, dropped, p95, oldest = ("-" if cell is None else f"{cell:.4g}" for cell in cells)
        lines.append(f"{name:<16} {s['topic']:<34} {s['messages']:>8} {rate:>8} {gap:>9} {dropped:>7} "
                     f"{p95:>9} {oldest:>9}")
    lines.append(f"episodes: {report['episodes_kept']} of {report['episodes_seen']} kept, {report['steps']} steps; "
                 f"{100 * report['idle_share_trimmed']:.1f} % leading idle steps trimmed")
    lines += [f"  left out: {count} x {reason}" for reason, count in report["left_out"].items()]
    lines += [f"  rejected messages: {count} x {reason}" for reason, count in report["rejected_messages"].items()]
    lines += [f"  undecodable images of {name}: {count}, the frame before stands in"
              for name, count in report["undecodable"].items()]
    for bag in report["bags"]:
        joints = {name: count for name, count in (bag["clipped"]["joint_steps"] or {}).items() if count}
        if joints:
            lines.append(f"  {bag['path']}: commands outside the joint limits: "
                         + ", ".join(f"{name} on {count} steps" for name, count in joints.items()))
        if bag["clipped"]["gripper_commands"]:
            lines.append(f"  {bag['path']}: {bag['clipped']['gripper_commands']} gripper commands outside its range, "
                         "clipped")
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"LOST: {loss}" for loss in losses(report)]
    return "\n".join(lines)


def _bins(stamps_ns: NDArray[np.int64], start_ns: int, bin_ns: int, bins: int) -> NDArray[np.int64]:
    return np.clip((stamps_ns - start_ns) // bin_ns, 0, bins - 1)


def _openings(values: list[NDArray[np.float32]]) -> dict[str, float]:
    openings = np.concatenate(values)
    return {"min": round(float(openings.min()), 4), "max": round(float(openings.max()), 4),
            "closed_share": round(float((openings < CLOSED).mean()), 4)}


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _total(parts: list[dict[str, Any]], longest: dict[str, Any]) -> dict[str, Any]:
    own = ("topic", "type", "rate_hz", "median_period_s")
    total: dict[str, Any] = {key: longest[key] for key in own if key in longest}
    total["messages"] = sum(part["messages"] for part in parts)
    for key, combine in (("largest_gap_s", max), ("gaps", sum), ("dropped", sum)):
        values = [part[key] for part in parts if key in part]
        if values:
            total[key] = combine(values)
    ages = [part["age_s"] for part in parts if "age_s" in part]
    if ages:
        count = sum(age["count"] for age in ages)
        total["age_s"] = {"mean": round(sum(age["mean"] * age["count"] for age in ages) / count, 4),
                          "p95": max(age["p95"] for age in ages), "max": max(age["max"] for age in ages),
                          "count": count}
    return total
