"""What is wrong with the topics before a recording, and what to type. No ROS in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from corft.recording.command import RecordedTopic
from corft.recording.log import Summary

# Clocks of one machine agree to the latency of a message; between machines NTP keeps them within this.
AHEAD_S = 0.05


@dataclass(frozen=True)
class Finding:
    """What was seen of one topic: its publishers' types, QoS conflicts in words, and what was heard."""

    topic: RecordedTopic
    types: tuple[str, ...]
    conflicts: tuple[str, ...]
    heard: Summary
    bytes_s: float = 0.0


@dataclass
class Verdict:
    """``errors`` make a recording useless, ``warnings`` may be meant. ``gaps`` of the errors may be a passing load."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gaps: int = 0

    @property
    def may_pass(self) -> bool:
        """Whether there are errors and all of them are gaps: what the next seconds may not show again."""
        return 0 < self.gaps == len(self.errors)


def check(findings: Sequence[Finding], graph: Mapping[str, Sequence[str]], rate_hz: float,
          use_sim_time: bool) -> Verdict:
    """Judge the findings against the contract. ``graph``: every topic with a publisher → its types."""
    verdict = Verdict()
    for finding in findings:
        if finding.topic.role != "event":
            _check(finding, graph, rate_hz, use_sim_time, verdict)
    return verdict


def _check(finding: Finding, graph: Mapping[str, Sequence[str]], rate_hz: float, use_sim_time: bool,
           verdict: Verdict) -> None:
    topic, heard = finding.topic, finding.heard
    label = f"{topic.stream} ({topic.topic})" if topic.stream != topic.topic else topic.topic
    serious = verdict.errors if topic.role == "observation" else verdict.warnings
    if not finding.types:
        serious.append(f"{label}: nobody publishes it. {_hint(topic, graph)}")
        return
    if topic.type and set(finding.types) != {topic.type}:
        verdict.errors.append(f"{label}: published as {', '.join(sorted(set(finding.types)))}, the contract says "
                              f"{topic.type}. Correct `type` in the contract.")
        return
    if finding.conflicts:
        verdict.errors.append(f"{label}: QoS mismatch, nothing would be recorded: {'; '.join(finding.conflicts)}. "
                              f"Set `qos: sensor_data` for {topic.stream} in the contract, or let its publisher be "
                              "reliable.")
        return
    if topic.role != "observation":
        return
    if topic.camera and len(finding.types) > 1:
        verdict.errors.append(f"{label}: {len(finding.types)} nodes publish it: stop the wrong one "
                              f"(`ros2 topic info -v {topic.topic}` names them).")
    if heard.count == 0:
        verdict.errors.append(f"{label}: it has a publisher but nothing was heard for {heard.duration_s:.0f} s. "
                              f"Look at `ros2 topic hz {topic.topic}`." + (
                                  " Raw images need room in shared memory: start the camera's driver with "
                                  "FASTDDS_DEFAULT_PROFILES_FILE=<share of corft>/config/fastdds_profile.xml."
                                  if topic.camera else ""))
        return
    if topic.stamped and heard.unstamped:
        verdict.errors.append(f"{label}: {heard.unstamped} of {heard.count} messages have no stamp. Set "
                              f"`stamp: receive` for {topic.stream} in the contract, or repair the driver.")
    elif topic.stamped and not -AHEAD_S <= heard.latency_s <= topic.max_age_s:
        verdict.errors.append(
            f"{label}: its stamps are {abs(heard.latency_s):.3g} s {'behind' if heard.latency_s > 0 else 'ahead of'} "
            f"the recorder's clock ({'/clock' if use_sim_time else 'system time'}). "
            + ("Does this driver take part in the simulation?" if use_sim_time else
               "Add --use-sim-time if this is a simulation; else synchronise the machines' clocks (chrony), or set "
               f"`stamp: receive` for {topic.stream} in the contract."))
    if heard.gap_s > topic.max_age_s:
        verdict.gaps += 1
        verdict.errors.append(f"{label}: {heard.gap_s:.2f} s without a message, the contract allows "
                              f"max_age_s {topic.max_age_s:g}. Is the driver starved or the network full?")
    elif heard.rate_hz < 0.95 * rate_hz:
        verdict.warnings.append(f"{label}: {heard.rate_hz:.1f} Hz is below the contract's rate_hz {rate_hz:g}: steps "
                                "will repeat samples.")
    if heard.lost or heard.dropped:
        advice = " Record compressed images: --compressed." if topic.type == "sensor_msgs/msg/Image" else ""
        verdict.warnings.append(f"{label}: {heard.lost} messages lost on the way and {heard.dropped} missing in "
                                f"{heard.duration_s:.0f} s.{advice}")


def _hint(topic: RecordedTopic, graph: Mapping[str, Sequence[str]]) -> str:
    """What might be meant instead."""
    if topic.role == "command":
        return "Start the teleoperation before the first episode."
    like = sorted(name for name, types in graph.items() if topic.type in types) or get_close_matches(topic.topic, graph)
    names = f"There {'is' if len(like) == 1 else 'are'} {', '.join(like)}. " if like else ""
    if topic.type.endswith("CompressedImage"):
        return f"{names}Install the compressed image transport (image-transport-plugins) on the camera's machine."
    return (f"{names}Correct `topic` in the contract, give --namespace, or start the driver; `ros2 topic list` shows "
            "all topics (of this ROS_DOMAIN_ID).")


def table(findings: Sequence[Finding]) -> str:
    """The topics as a table."""
    lines = [f"{'stream':16} {'topic':36} {'rate Hz':>8} {'longest gap s':>14} {'lost':>5} {'MB/s':>7}"]
    for finding in findings:
        heard = finding.heard
        rate = f"{heard.rate_hz:.1f}" if heard.count > 1 else "-"
        gap = f"{heard.gap_s:.3f}" if heard.count else "-"
        name = finding.topic.stream if finding.topic.stream != finding.topic.topic else "-"
        lines.append(f"{name:16} {finding.topic.topic:36} {rate:>8} {gap:>14} "
                     f"{heard.lost + heard.dropped:>5} {finding.bytes_s * 1e-6:>7.2f}")
    return "\n".join(lines)
