"""What the finished bag really holds, by episode, against what was heard while it was recorded. No ROS in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corft.recording.command import RecordedTopic
from corft.recording.log import Summary, TopicLog
from corft.recording.session import Episode
from corft_core.data.bag import Bag
from corft_core.data.messages import MessageError

# Recorder and display do not subscribe, nor read the clock, at the same instant.
SLACK_MESSAGES, SLACK_SHARE = 3, 0.01
# Missing frames above this share of an episode are worth recording it again.
DROPPED_SHARE = 0.02


class AuditStopped(Exception):
    """The audit was called off."""


@dataclass
class Audit:
    """``rows``: one a topic. ``problems`` spoil episodes; each names topic and episode."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Table of topics, then what is wrong."""
        lines = [f"{'stream':16} {'topic':36} {'in bag':>8} {'in episodes':>11} {'heard then':>10} {'dropped':>7} "
                 f"{'longest gap s':>13}"]
        lines += [f"{row['stream']:16} {row['topic']:36} {row['messages']:>8} {row['in_episodes']:>11} "
                  f"{row['heard']:>10} {row['dropped']:>7} {row['gap_s']:>13.3f}" for row in self.rows]
        counts = {outcome: sum(e["outcome"] == outcome for e in self.episodes)
                  for outcome in ("success", "failure", "discard", "unlabelled")}
        lines.append("episodes: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
                     if self.episodes else "episodes: none")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines)


def audit(path: Path, topics: Sequence[RecordedTopic], episodes: Sequence[Episode], events: int,
          published: Mapping[str, int], progress: Callable[[int], None] = lambda count: None) -> Audit:
    """Read the bag through and compare. Raises BagError when it cannot be read, and what ``progress`` raises.

    ``events``: how many were published. ``published``: topics that had a publisher → messages of the whole session
    that our own subscriptions heard.
    """
    logs = {topic.topic: TopicLog(topic.stamped) for topic in topics}
    with Bag(path) as bag:
        counts = {topic: count for topic, (_, count) in bag.topics.items()}
        for item in bag.messages(set(logs) & set(bag.topics)):
            log = logs[item.topic]
            try:
                log.add(item.receive_ns, (item.header_ns or 0) if log.stamped else 0)
            except MessageError:
                log.add(item.receive_ns)
            progress(1)
        result = Audit(notes=list(bag.notes))
    kept = [episode for episode in episodes if episode.outcome != "discard"]
    result.episodes = [{"number": e.number, "outcome": e.outcome, "instruction": e.instruction,
                        "seconds": round((e.stop_ns - e.start_ns) * 1e-9, 3)} for e in episodes]
    for topic in topics:
        log = logs[topic.topic]
        found = {episode.number: log.summary(episode.start_ns, episode.stop_ns) for episode in kept}
        _row(result, topic, counts.get(topic.topic, 0), log, kept, found)
        _judge(result, topic, counts.get(topic.topic, 0), published.get(topic.topic), log, kept, found)
        if topic.role == "event" and len(log) < events:
            result.problems.append(f"{topic.topic}: {events} episode events were published, {len(log)} are in the bag: "
                                   "the converter cannot cut all episodes")
    return result


def _row(result: Audit, topic: RecordedTopic, count: int, log: TopicLog, kept: Sequence[Episode],
         found: Mapping[int, Summary]) -> None:
    observed = topic.role == "observation"
    result.rows.append({
        "stream": topic.stream if topic.stream != topic.topic else "-", "topic": topic.topic, "messages": count,
        "in_episodes": sum(s.count for s in found.values()),
        "heard": sum(e.heard.get(topic.topic, 0) for e in kept) if topic.type else "-",
        "dropped": sum(s.dropped for s in found.values()) if observed else 0,
        "gap_s": max((s.gap_s for s in found.values()), default=0.0) if observed else 0.0})


def _judge(result: Audit, topic: RecordedTopic, count: int, heard: int | None, log: TopicLog, kept: Sequence[Episode],
           found: Mapping[int, Summary]) -> None:
    name = f"{topic.stream} ({topic.topic})" if topic.stream != topic.topic else topic.topic
    if count == 0 and topic.role == "event":
        return  # judged by the number of events
    if count == 0:
        if heard is not None:
            result.problems.append(f"{name}: it was published, {heard} messages were heard, none is in the bag: a QoS "
                                   "mismatch? See record.log, and `ros2 topic info -v` of the topic")
        elif topic.role == "observation" or topic.stream == "arm_command":
            result.problems.append(f"{name}: nobody published anything")
        else:
            result.notes.append(f"{name}: nothing was published")
        return
    if log.jumps_back:
        result.problems.append(f"{name}: the recorder's clock went back {log.jumps_back} times: start a new bag after "
                               "every restart of a simulation, and do not set clocks while recording")
    for episode in kept:
        summary, live = found[episode.number], episode.heard.get(topic.topic, 0)
        where = f"{name}, episode {episode.number}"
        if live - summary.count > max(SLACK_MESSAGES, SLACK_SHARE * live):
            result.problems.append(f"{where}: {live} messages were heard, {summary.count} are in the bag: disk or "
                                   "recorder were too slow (record compressed images, or onto a faster disk)")
        if topic.role == "command" and topic.stream == "arm_command" and summary.count == 0:
            result.problems.append(f"{where}: no command was recorded")
        if topic.role != "observation":
            continue
        if summary.gap_s > topic.max_age_s:
            result.problems.append(f"{where}: {summary.gap_s:.2f} s without a message, the contract allows max_age_s "
                                   f"{topic.max_age_s:g}")
        if topic.camera and summary.dropped > DROPPED_SHARE * (summary.count + summary.dropped):
            result.problems.append(f"{where}: {summary.dropped} of {summary.count + summary.dropped} frames "
                                   "are missing")
        if topic.stamped and summary.unstamped:
            result.problems.append(f"{where}: {summary.unstamped} messages have no stamp, the contract says "
                                   "`stamp: header`")
        elif topic.stamped and summary.count and not -topic.max_age_s <= summary.latency_s <= topic.max_age_s:
            result.problems.append(f"{where}: stamps are {summary.latency_s:.3g} s from the recorder's clock: "
                                   "simulated and wall time are mixed, or clocks differ")
