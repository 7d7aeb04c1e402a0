"""Recordings → LeRobot v3 data set, streaming: one pass over each bag, one episode in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corft_core.contract import Contract
from corft_core.data.align import Aligner
from corft_core.data.bag import Bag, BagError, BagMessage
from corft_core.data.clock import SourceClock
from corft_core.data.episode import Episode
from corft_core.data.episodes import EpisodeCutter
from corft_core.data.messages import START, MessageError, header_stamp_ns
from corft_core.data.report import ConversionReport, StreamMeter
from corft_core.data.sampling import EpisodeSampler
from corft_core.data.store import write_dataset
from corft_core.data.topics import CLOCK_TOPIC, resolve_topics

logger = logging.getLogger(__name__)

# How late a message may be recorded after its stamp; ticks wait this long for late samples.
LATENESS_NS = 1_000_000_000
HISTORY_S = 2.5


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    ``max_stale_share``: an episode with a larger share of steps on which a sample exceeds its max_age_s is left out.
    ``min_steps``: so are shorter episodes.
    """

    include_failures: bool = False
    overwrite: bool = False
    namespace: str = ""
    max_stale_share: float = 0.05
    min_steps: int = 5
    codec: str | None = None


def convert(bags: Sequence[str | Path], out: str | Path, contract: Contract, options: ConvertOptions | None = None,
            progress: Callable[[int, int], None] | None = None) -> ConversionReport:
    """Convert ``bags`` into one data set at ``out``; ``progress(done, total)`` counts messages.

    Raises BagError, WriteError or another CorftError; ``out`` is then left as it was.
    """
    options = options or ConvertOptions()
    report = ConversionReport()
    source = {"bags": [str(Path(bag)) for bag in bags], "options": vars(options) | {}}

    def episodes() -> Iterator[Episode]:
        for bag in bags:
            yield from BagConverter(contract, options, report).episodes(Path(bag), progress)
        if report.kept == 0:
            raise BagError(_no_episode(report, options))

    write_dataset(out, episodes(), contract, overwrite=options.overwrite, source=source, report=report.to_dict,
                  codec=options.codec)
    return report


class BagConverter:
    """Converts one recording into episodes."""

    def __init__(self, contract: Contract, options: ConvertOptions, report: ConversionReport) -> None:
        self._contract, self._options, self._report = contract, options, report
        self._aligner = Aligner(contract, HISTORY_S)
        self._clock = SourceClock()
        self._cutter = EpisodeCutter()
        self._sampler: EpisodeSampler | None = None
        self._newest_ns = 0
        self._uses_headers = any(contract.stream(name).stamp == "header" for name in
                                 ("joint_state", *(camera.name for camera in contract.cameras)))

    def episodes(self, path: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[Episode]:
        """Episodes of the recording at ``path``, in order, those that the options keep."""
        with Bag(path) as bag:
            streams = resolve_topics(self._contract, bag.topics, path, self._options.namespace)
            for topic, name in streams.items():
                self._report.meters.setdefault(name, StreamMeter(topic, bag.topics[topic][0]))
            wanted = set(streams) | ({CLOCK_TOPIC} & set(bag.topics))
            total = sum(bag.topics[topic][1] for topic in wanted)
            for done, item in enumerate(bag.messages(wanted), start=1):
                if progress is not None and (done % 200 == 0 or done == total):
                    progress(done, total)
                yield from self._take(item, streams, path)
                if self._sampler is not None:
                    self._sampler.advance(self._newest_ns - LATENESS_NS)
                    if self._sampler.span.closed and self._sampler.complete:
                        yield from self._finish(path)
            self._cutter.finish()
            yield from self._finish(path)
            self._report.bags.append({"path": str(path), "bytes": bag.size_bytes, "messages": total})
            if self._clock.differs:
                self._report.notes.append(f"{path.name}: recorder and headers use different clocks; reception times "
                                          "were mapped to the header clock")
            if self._cutter.ignored:
                self._report.notes.append(f"{path.name}: {self._cutter.ignored} episode events outside an episode")

    def _take(self, item: BagMessage, streams: dict[str, str], path: Path) -> Iterator[Episode]:
        """Push one message; a START yields the episode before it."""
        if item.topic == CLOCK_TOPIC:
            time = item.message.clock
            self._clock.observe(item.receive_ns, int(time.sec) * 1_000_000_000 + int(time.nanosec))
            return
        name = streams[item.topic]
        header_ns = header_stamp_ns(item.message)
        if name == "joint_state" and header_ns is not None:
            self._clock.observe(item.receive_ns, header_ns)
        stamp_ns = self._stamp(name, item.receive_ns, header_ns)
        if stamp_ns is None:
            self._reject(f"{name}: received before the first message that tells the time of the headers")
            return
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._report.meters[name].add(stamp_ns, self._cutter.current is not None)
        try:
            if name != "episode_event":
                self._aligner.push(name, stamp_ns, item.message)
                return
            if int(item.message.kind) == START:
                self._cutter.finish()
                yield from self._finish(path)
            self._cutter.push(stamp_ns, item.message)
        except MessageError as error:
            self._reject(f"{name}: {error}")
            return
        span = self._cutter.current
        if span is not None and self._sampler is None:
            # A command from before START belongs to the reset, not to the demonstration.
            self._aligner.clear_commands(span.start_ns)
            self._sampler = EpisodeSampler(self._contract, self._aligner, span)

    def _stamp(self, name: str, receive_ns: int, header_ns: int | None) -> int | None:
        """A sample's time on the one clock of all streams: its header's where the contract says so and it is set."""
        if not self._uses_headers:
            return receive_ns
        if self._contract.stream(name).stamp == "header" and header_ns is not None:
            return header_ns
        return self._clock.stamp_ns(receive_ns)

    def _finish(self, path: Path) -> Iterator[Episode]:
        """Take the remaining ticks of the sampled episode, decide whether to keep it and note it in the report."""
        sampler, self._sampler = self._sampler, None
        if sampler is None:
            return
        span, counts = sampler.span, sampler.counts
        if span.end_ns is not None:
            sampler.advance(span.end_ns + self._contract.step_ns)
        reason = self._reason(sampler)
        origin: dict[str, object] = {
            "bag": path.name, "start_ns": span.start_ns, "end_ns": span.end_ns, "operator_id": span.operator_id,
            "outcome": span.outcome, "idle_steps": counts.idle, "stale_steps": counts.stale,
            "waiting_steps": counts.waiting}
        self._report.episodes.append(
            {"kept": reason is None, "reason": reason, "scene_id": span.scene_id, "instruction": span.instruction,
             "steps": counts.kept if reason is None else 0} | origin)
        if reason is not None:
            logger.info("episode %s left out: %s", span.scene_id, reason)
            return
        episode = sampler.episode(origin)
        for name in self._aligner.observation_streams:
            self._report.add_ages(name, episode.columns[f"source.{name}.age_s"].astype(np.float32))
        yield episode

    def _reason(self, sampler: EpisodeSampler) -> str | None:
        """Why an episode is left out, None to keep it."""
        span, counts = sampler.span, sampler.counts
        if span.outcome in ("unfinished", "discarded"):
            return span.outcome
        if span.outcome != "success" and not self._options.include_failures:
            return span.outcome
        if counts.kept == 0 and counts.waiting:
            return f"no step with all streams; waited for {', '.join(sampler.awaited)}"
        if counts.kept < self._options.min_steps:
            return f"shorter than {self._options.min_steps} steps after trimming {counts.idle} idle ones"
        if counts.stale > self._options.max_stale_share * counts.kept:
            return "samples too old on more than " + f"{100 * self._options.max_stale_share:g} % of the steps"
        return None

    def _reject(self, reason: str) -> None:
        self._report.rejected_messages[reason] = self._report.rejected_messages.get(reason, 0) + 1


def _no_episode(report: ConversionReport, options: ConvertOptions) -> str:
    if not report.episodes:
        why = ("the bags hold no EpisodeEvent START. Mark episodes while recording: START, SUCCESS or FAILURE, STOP "
               "on the episode_event topic.")
    else:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in report.reasons().items())
        why = f"of {len(report.episodes)} episodes none succeeded and could be used ({reasons})."
        if not options.include_failures and {"failure", "unlabelled"} & report.reasons().keys():
            why += " --include-failures keeps failed episodes too."
    rejected = "".join(f"\n  rejected {count} messages: {why}" for why, count in report.rejected_messages.items())
    return f"no episode to convert: {why}{rejected}"
