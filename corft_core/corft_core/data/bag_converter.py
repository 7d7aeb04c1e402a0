"""One recording → one part: read once, sampled on the grid, encoded as it goes, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.contract import Contract
from corft_core.data.align import Aligner
from corft_core.data.bag import Bag, BagMessage
from corft_core.data.clock import SourceClock
from corft_core.data.episodes import EpisodeCutter, EpisodeSpan, Event, EventAt, merge_events, read_event
from corft_core.data.episodes_file import EpisodesFile, WholeBag
from corft_core.data.messages import START, MessageError, make_gripper_position
from corft_core.data.parts import PartWriter
from corft_core.data.report import BagReport
from corft_core.data.sampling import PREFETCH_STEPS, EpisodeSampler
from corft_core.data.topics import CLOCK_TOPIC, resolve_topics

logger = logging.getLogger(__name__)

# How late a message may be recorded after its stamp; ticks wait this long for late samples.
LATENESS_NS = 1_000_000_000
# A gripper command this share of its range beyond an end is not rounding any more.
_GRIPPER_TOLERANCE = 0.02

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConvertOptions:
    """What decides which steps are kept and how they are stored; two conversions with equal options are equal.

    An episode is left out when a larger share of its steps than ``max_stale_share`` uses a sample older than its
    max_age_s, when an observed stream pauses for longer than ``max_gap_s``, or when it is shorter than ``min_steps``.
    ``episodes_file`` and ``exclude`` choose episodes and stretches of time, see episodes_file.py. ``task``: instruction
    where the recording has none. ``outcome``: label (success, failure) of bags that are one episode each.
    ``joint_limits_rad``: (2, J) lower and upper, for the report's count of commands outside.
    """

    include_failures: bool = False
    namespace: str = ""
    max_stale_share: float = 0.05
    max_gap_s: float | None = None
    min_steps: int = 5
    keep_idle: bool = False
    codec: str | None = None
    task: str = ""
    outcome: str = "success"
    episodes_file: str | None = None
    exclude: tuple[str, ...] = ()
    joint_limits_rad: tuple[tuple[float, ...], ...] | None = None


def convert_bag(path: Path, part: Path, contract: Contract, options: ConvertOptions,
                progress: Progress | None = None, cameras: tuple[str, ...] | None = None) -> None:
    """Convert the recording at ``path`` into the part folder ``part``, which appears when complete.

    ``progress(done, total)`` counts messages. ``cameras``: the others' pictures are left out, and taken to be sound.
    Raises BagError or another CorftError.
    """
    with (PartWriter(part, contract, options.codec, cameras) as writer,
          ThreadPoolExecutor(max(1, len(writer.cameras)), "image-decoder") as pool):
        report = _BagConverter(path, contract, options, writer, pool).run(progress)
        writer.finish(report.to_dict())


class _BagConverter:
    def __init__(self, path: Path, contract: Contract, options: ConvertOptions, part: PartWriter,
                 pool: ThreadPoolExecutor) -> None:
        self._path, self._contract, self._options, self._part, self._pool = path, contract, options, part, pool
        self._report = BagReport(str(path), contract, options.joint_limits_rad)
        step_s = contract.step_ns * 1e-9
        self._aligner = Aligner(contract, 1.0 + LATENESS_NS * 1e-9 + (PREFETCH_STEPS + 2) * step_s)
        self._clock = SourceClock()
        self._sampler: EpisodeSampler | None = None
        self._newest_ns = 0
        headers = [name for name in contract.observation_streams if contract.stream(name).stamp == "header"]
        self._reference = headers[0] if headers else None
        self._gripper_position = make_gripper_position(contract) if contract.gripper_command is not None else None
        self._cameras = set(part.cameras)
        self._unseen = {camera.name: np.zeros((*camera.size, 3), np.uint8) for camera in contract.cameras
                        if camera.name not in self._cameras}
        self._early: list[EventAt] = []

    def run(self, progress: Progress | None) -> BagReport:
        report, options = self._report, self._options
        plan = EpisodesFile.load(options.episodes_file, options.exclude).for_bag(self._path)
        self._cutter = EpisodeCutter(plan)
        with Bag(self._path) as bag:
            replaced = frozenset({"episode_event"} if plan.replaces_events else ())
            streams = resolve_topics(self._contract, bag.topics, self._path, options.namespace, replaced)
            for topic, names in streams.items():
                for name in names:
                    report.meter(name, topic, bag.topics[topic][0])
            whole = None
            if self._contract.episodes == "bag":
                whole = WholeBag(options.task or self._contract.instruction, options.outcome, self._path.stem)
            events = plan.events(bag.start_ns, bag.end_ns, whole=whole)
            self._own_events = not plan.replaces_events and whole is None
            wanted = set(streams) | ({CLOCK_TOPIC} & set(bag.topics))
            total = sum(bag.topics[topic][1] for topic in wanted)
            for done, item in enumerate(merge_events(bag.messages(wanted), events), start=1):
                if progress is not None and done % 500 == 0:
                    progress(done, total)
                self._take(item, streams)
                if self._sampler is not None:
                    self._sampler.advance(self._newest_ns - LATENESS_NS)
                    if self._sampler.span.closed and self._sampler.complete:
                        self._finish()
            self._cutter.finish()
            self._finish()
            report.bytes = bag.size_bytes
            report.damage += bag.damage
            report.notes += [note for note in bag.notes if note not in bag.damage]
        report.plan_used = sorted(plan.used)
        self._notes()
        return report

    def _take(self, item: BagMessage | EventAt, streams: dict[str, tuple[str, ...]]) -> None:
        if isinstance(item, EventAt):
            self._early.append(item)
        elif item.topic == CLOCK_TOPIC:
            time = item.message.clock
            self._clock.observe(item.receive_ns, int(time.sec) * 1_000_000_000 + int(time.nanosec))
        else:
            for name in streams[item.topic]:
                try:
                    self._sample(name, item)
                except MessageError as error:
                    self._report.rejected[f"{name}: {error}"] += 1
        while self._early and (stamp_ns := self._stamp(None, self._early[0].receive_ns, None)) is not None:
            self._event(stamp_ns, self._early.pop(0).event)

    def _sample(self, name: str, item: BagMessage) -> None:
        header_ns = item.header_ns
        if name == self._reference and header_ns is not None:
            self._clock.observe(item.receive_ns, header_ns)
        stamp_ns = self._stamp(name, item.receive_ns, header_ns)
        if stamp_ns is None:
            raise MessageError("received before the first message that tells the time of the headers")
        self._newest_ns = max(self._newest_ns, stamp_ns)
        running = self._cutter.current
        self._report.meters[name].add(stamp_ns, None if running is None else running.number)
        if name == "episode_event":
            if self._own_events:
                self._event(stamp_ns, read_event(item.message))
            return
        if name in self._unseen:
            self._aligner.push(name, stamp_ns, self._unseen[name])
        else:
            self._aligner.push(name, stamp_ns, _Later(item) if name in self._cameras else item.message)
        if name == "gripper_command":
            self._check_gripper(item.message)

    def _stamp(self, name: str | None, receive_ns: int, header_ns: int | None) -> int | None:
        """A sample's time on the one clock of all streams: its header's where the contract says so and it is set."""
        if self._reference is None:
            return receive_ns
        if name is not None and self._contract.stream(name).stamp == "header" and header_ns is not None:
            return header_ns
        return self._clock.stamp_ns(receive_ns)

    def _event(self, stamp_ns: int, event: Event) -> None:
        if event.kind == START:
            self._cutter.finish()
            self._finish()
        self._cutter.push(stamp_ns, event)
        span = self._cutter.current
        if span is not None and self._sampler is None:
            # A command from before START belongs to the reset, not to the demonstration.
            self._aligner.clear_commands(span.start_ns)
            self._sampler = EpisodeSampler(self._contract, self._aligner, span, self._part.frames, pool=self._pool,
                                           keep_idle=self._options.keep_idle)

    def _check_gripper(self, message: Any) -> None:
        gripper = self._contract.gripper
        assert gripper is not None and self._gripper_position is not None
        share = (self._gripper_position(message) - gripper.closed_position) / (
            gripper.open_position - gripper.closed_position)
        self._report.gripper_outside += not -_GRIPPER_TOLERANCE <= share <= 1 + _GRIPPER_TOLERANCE

    def _finish(self) -> None:
        """Take the remaining ticks of the sampled episode, decide whether to keep it and note it in the report."""
        sampler, self._sampler = self._sampler, None
        if sampler is None:
            return
        span, counts = sampler.span, sampler.counts
        if span.end_ns is not None:
            sampler.advance(span.end_ns + self._contract.step_ns)
        reason, damaged = self._reason(sampler)
        instruction = span.instruction or self._options.task or self._contract.instruction
        origin: dict[str, object] = {
            "bag": self._path.name, "start_ns": span.start_ns, "end_ns": span.end_ns, "operator_id": span.operator_id,
            "outcome": span.outcome, "idle_steps": counts.idle, "stale_steps": counts.stale,
            "waiting_steps": counts.waiting}
        self._entry(span, reason, damaged, counts.kept if not reason else 0, instruction, origin)
        if reason:
            logger.info("episode %s left out: %s", span.scene_id, reason)
            self._part.drop()
            return
        episode = sampler.episode(instruction, origin)
        self._part.commit(episode)
        self._report.add_episode(episode)

    def _entry(self, span: EpisodeSpan, reason: str, damaged: bool, steps: int, instruction: str,
               origin: dict[str, object]) -> None:
        self._report.episodes.append(
            {"kept": not reason, "reason": reason or None, "damaged": damaged, "scene_id": span.scene_id,
             "instruction": instruction, "steps": steps} | origin)

    def _reason(self, sampler: EpisodeSampler) -> tuple[str, bool]:
        """Why an episode is left out ("" to keep it) and whether that is damage rather than choice."""
        span, counts, options = sampler.span, sampler.counts, self._options
        if span.reason:
            return span.reason, False
        if span.outcome == "unfinished":
            return span.outcome, True
        if span.outcome == "discarded" or (span.outcome != "success" and not options.include_failures):
            return span.outcome, False
        if counts.kept == 0 and counts.waiting:
            return f"no step with all streams; waited for {', '.join(sampler.awaited)}", True
        if counts.kept < options.min_steps:
            return f"shorter than {options.min_steps} steps after trimming {counts.idle} idle ones", False
        if counts.stale > options.max_stale_share * counts.kept:
            return f"samples too old on more than {100 * options.max_stale_share:g} % of the steps", True
        if options.max_gap_s is not None:
            assert span.end_ns is not None
            for name in self._contract.observation_streams:
                if self._report.meters[name].largest_gap_s(span.start_ns, span.end_ns) > options.max_gap_s:
                    return f"no sample of {name} for longer than {options.max_gap_s:g} s", True
        return "", False

    def _notes(self) -> None:
        report = self._report
        for span in self._cutter.left_out:
            origin: dict[str, object] = {
                "bag": self._path.name, "start_ns": span.start_ns, "end_ns": span.end_ns,
                "operator_id": span.operator_id, "outcome": span.outcome, "idle_steps": 0, "stale_steps": 0,
                "waiting_steps": 0}
            self._entry(span, span.reason, False, 0, span.instruction, origin)
        report.episodes.sort(key=lambda entry: entry["start_ns"])
        report.undecodable = {name: count for name, count in sorted(self._aligner.undecodable.items()) if count}
        if self._clock.differs:
            report.notes.append("recorder and headers use different clocks; reception times were mapped to the header "
                                "clock")
        if self._cutter.ignored:
            report.notes.append(f"{self._cutter.ignored} episode events outside an episode")


class _Later:
    """A message that is deserialised when one of its fields is asked for, on the thread that asks."""

    __slots__ = ("_item",)

    def __init__(self, item: BagMessage) -> None:
        self._item = item

    def __getattr__(self, field: str) -> Any:
        return getattr(self._item.message, field)
