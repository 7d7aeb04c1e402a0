"""One recording session: `ros2 bag record` as a child, episodes marked beside it, an audit afterwards.

Everything runs in one thread: commands, queues and the display are polled in turn.
"""

from __future__ import annotations

import argparse
import queue
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile

from corft.processes import Child
from corft.recording.audit import Audit, AuditStopped, audit
from corft.recording.command import RecordedTopic, command_for_this_machine, write_qos
from corft.recording.keys import Command, Keyboard, Keys
from corft.recording.monitor import Monitors, RecorderClock, message_class
from corft.recording.preflight import POLL_S, SETTLE_S, preflight
from corft.recording.screen import Screen, status_line
from corft.recording.session import CommandRefused, Episode, Event, Session
from corft.stream_health import SILENT_S
from corft_core import files
from corft_core.contract import Contract
from corft_core.data.bag_contract import keep_contract
from corft_core.data.messages import EVENT_NAMES
from corft_core.errors import CorftError

DISPLAY_S = 0.5
START_TIMEOUT_S = 30.0
DELIVERY = Duration(seconds=2)
LOW_DISK_BYTES = 500 * 2**20
EXIT_PROBLEMS, EXIT_STOPPED = 1, 130


class Recorder:
    """See the module's docstring. ``signals`` fills with the signals that came."""

    def __init__(self, arguments: argparse.Namespace, contract: Contract, topics: Sequence[RecordedTopic], out: Path,
                 signals: list[int]) -> None:
        self.arguments, self.contract, self.topics, self.out = arguments, contract, topics, out
        self.signals = signals
        self._reliable: set[str] = set()
        self.screen = Screen()
        self.session = Session(arguments.prompt or contract.instruction)
        self.node = rclpy.create_node("corft_record", enable_rosout=False, start_parameter_services=False)
        self.clock = RecorderClock(self.node, arguments.use_sim_time)
        self.monitors = Monitors(self.node, topics, self.clock)
        event = next(topic for topic in topics if topic.role == "event")
        self._event_class = message_class(event.type)
        self._publisher = self.node.create_publisher(self._event_class, event.topic, QoSProfile(depth=10))
        self._events = 0
        self._published: dict[str, int] = {}
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ready_since_s: float | None = None
        self._next_display_s = self._next_waiting_s = 0.0

    def run(self) -> int:
        """The whole session; returns the exit code. Raises CorftError when nothing could be recorded."""
        try:
            self._reliable = preflight(
                self.node, self.monitors, self.screen, self.signals, rate_hz=self.contract.rate_hz,
                folder=self.out.parent, wait_s=self.arguments.wait, use_sim_time=self.arguments.use_sim_time,
                force=self.arguments.force)
            if self.signals:
                return EXIT_STOPPED
            self.record()
        finally:
            self.node.destroy_node()
        return self.audit()

    # Recording

    def record(self) -> None:
        """Run the child and obey commands until the session ends; the bag is complete afterwards."""
        log = self.out.with_name(f"{self.out.name}.log")
        with tempfile.TemporaryDirectory() as folder:
            qos_file = Path(self.arguments.qos or f"{folder}/qos_overrides.yaml")
            if not self.arguments.qos:
                write_qos(qos_file, self.contract, self.topics, self._reliable)
            command = command_for_this_machine(self.topics, self.out, qos_file, self.arguments.preset,
                                               self.arguments.use_sim_time)
            with Keyboard(self.clock.now_ns) as keyboard:
                child = Child(dying_with_us(command), log, self._on_line)
                self.screen.say(f"$ {shlex.join(command)}")
                try:
                    self._loop(child, keyboard)
                finally:
                    self._finish(child)
                    self.screen.close()
        if not (self.out / "metadata.yaml").is_file():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise CorftError(f"`ros2 bag record` left no complete bag at {self.out}. The end of {log}:\n{tail}")
        log.replace(self.out / "record.log")

    def _loop(self, child: Child, keyboard: Keyboard) -> None:
        start_s = time.monotonic()
        while not (self.session.ended or self.signals):
            # A script's commands wait for the recorder; a person is told to.
            commands = keyboard.read(POLL_S) if keyboard.terminal or self._ready() else []
            self.monitors.drain()
            for command in commands:
                self._obey(command)
            if not commands and not keyboard.terminal and self._ready_since_s is None:
                time.sleep(POLL_S)
            if ignored := keyboard.take_ignored():
                self.screen.say(f"ignored {ignored}")
            self._show(keyboard)
            if not child.running:
                raise CorftError(f"`{child.command}` ended by itself; see {child.log}")
            if not self._ready() and not keyboard.terminal and time.monotonic() - start_s > START_TIMEOUT_S:
                raise CorftError(f"the recorder does not listen to {', '.join(self._missing())} after "
                                 f"{START_TIMEOUT_S:.0f} s; see {child.log}")
            if shutil.disk_usage(self.out.parent).free < LOW_DISK_BYTES:
                self.screen.say(f"the disk is full but for {LOW_DISK_BYTES / 2**20:.0f} MiB: the recording ends")
                break

    def _missing(self) -> list[str]:
        missing = self.monitors.unheard_by_recorder()
        return missing if missing or self._publisher.get_subscription_count() else [self._publisher.topic_name]

    def _ready(self) -> bool:
        """Whether the recorder listens to all topics that are published; once it did, it does."""
        if self._ready_since_s is None and not self._missing():
            self._ready_since_s = time.monotonic()
        return self._ready_since_s is not None and time.monotonic() - self._ready_since_s >= SETTLE_S

    def _obey(self, command: Command) -> None:
        if command.name == "hangup":
            self.session.ended = True
            return
        try:
            if command.name == "start" and not self._ready():
                raise CommandRefused("not yet: the recorder does not listen to "
                                     + (", ".join(self._missing()) or "all topics"))
            before = self.session.running
            for event in self.session.command(command.name, command.stamp_ns, command.text):
                self._publish(event)
        except CommandRefused as refusal:
            self.screen.say(f"{command.name}: {refusal}")
            return
        if command.name == "start" and self.session.running is not None:
            self.screen.say(f"episode {self.session.running.number} started: '{self.session.instruction}'")
        elif command.name == "prompt":
            self.screen.say(f"prompt: '{self.session.instruction}'")
        elif before is not None and self.session.running is None:
            self._episode_ended(before)

    def _episode_ended(self, episode: Episode) -> None:
        """What was heard during the episode; the bag itself is read at the end."""
        self.monitors.drain()
        summaries = {m.topic: m.log.summary(episode.start_ns, episode.stop_ns) for m in self.monitors.all}
        episode.heard = {topic.topic: summary.count for topic, summary in summaries.items()}
        shown = {topic.stream: summary for topic, summary in summaries.items() if topic.role != "event"}
        seconds = (episode.stop_ns - episode.start_ns) * 1e-9
        self.screen.say(f"episode {episode.number} {episode.outcome}, {seconds:.1f} s: "
                        + ", ".join(f"{name} {summary.count}" for name, summary in shown.items()) + " messages")
        for topic, summary in summaries.items():
            if topic.role == "observation" and summary.gap_s > topic.max_age_s:
                self.screen.say(f"  WARNING {topic.stream}: {summary.gap_s:.2f} s without a message")
            if topic.role == "observation" and summary.lost + summary.dropped:
                self.screen.say(f"  WARNING {topic.stream}: {summary.lost} lost, {summary.dropped} missing")
            if topic.stream == "arm_command" and not summary.count:
                self.screen.say(f"  WARNING no command on {topic.topic}: is the teleoperation running?")

    def _publish(self, event: Event) -> None:
        """An EpisodeEvent, or the same in words where the contract's topic is a String."""
        message = self._event_class()
        if hasattr(message, "kind"):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(event.stamp_ns, 1_000_000_000)
            message.kind, message.instruction = event.kind, event.instruction
            message.operator_id = self.arguments.operator
        else:
            name = EVENT_NAMES[event.kind].lower()
            message.data = f"{name}: {event.instruction}" if name == "start" else name
        self._publisher.publish(message)
        self._events += 1

    def _show(self, keyboard: Keyboard) -> None:
        now_s = time.monotonic()
        while not self._warnings.empty():
            self.screen.say(self._warnings.get())
        if now_s >= self._next_waiting_s:
            self._next_waiting_s = now_s + SILENT_S
            for monitor in self.monitors.all:
                if monitor.topic.role == "observation" and monitor.silence_s >= SILENT_S:
                    self.screen.say(f"waiting for {monitor.topic.stream} ({monitor.topic.topic}), silent for "
                                    f"{monitor.silence_s:.0f} s")
        if now_s >= self._next_display_s:
            self._next_display_s = now_s + DISPLAY_S
            rates = {m.topic.stream: m.recent() for m in self.monitors.all if m.topic.role != "event"}
            editing = keyboard.source.editing if isinstance(keyboard.source, Keys) else None
            line = status_line(self.session, self.clock.now_ns(), rates, editing)
            self.screen.status(line if self._ready() else f"the recorder starts …  {line}")

    def _on_line(self, line: str) -> None:
        if any(word in line for word in ("[WARN]", "[ERROR]", "[FATAL]")):
            self._warnings.put(line)

    def _finish(self, child: Child) -> None:
        """End the session and the recorder, in this order: its last messages shall be in the bag."""
        running = self.session.running
        for event in self.session.end(self.clock.now_ns()):
            self._publish(event)
        if running is not None:
            self._episode_ended(running)
        # A recorder that is still starting would leave a bag without metadata.
        start_s = end_s = time.monotonic()
        self._publisher.wait_for_all_acked(DELIVERY)
        while child.running and time.monotonic() < min(end_s + SETTLE_S, start_s + START_TIMEOUT_S):
            self.monitors.drain()
            if not self._ready():
                end_s = time.monotonic()
            time.sleep(POLL_S)
        self._published = {m.topic.topic: len(m.log) for m in self.monitors.all
                           if self.node.count_publishers(m.topic.topic)}
        child.stop(patience_s=60.0)

    # Afterwards

    def audit(self) -> int:
        """Read the bag, compare, print and keep the result; returns the exit code."""
        from tqdm import tqdm

        keep_contract(self.out, self.contract)
        asked = len(self.signals)
        try:
            with tqdm(unit="message", desc="auditing", leave=False, disable=None) as bar:
                def progress(count: int) -> None:
                    if len(self.signals) > asked:
                        raise AuditStopped
                    bar.update(count)

                result = audit(self.out, self.topics, self.session.episodes, self._events, self._published,
                               progress)
        except AuditStopped:
            self.screen.say(f"audit stopped; the bag is complete: {self.out}")
            return EXIT_STOPPED
        files.write_json(self.out / "record.json", report(result))
        self.screen.say(result.text())
        self.screen.say(f"bag: {self.out}")
        return EXIT_PROBLEMS if result.problems else 0


def dying_with_us(command: list[str]) -> list[str]:
    """The command, made to end as by Ctrl-C when this process is killed, where the system can do that.

    An orphaned recorder would go on until the disk is full.
    """
    helper = shutil.which("setpriv")
    return [helper, "--pdeathsig", "INT", *command] if helper else command


def report(result: Audit) -> dict[str, Any]:
    """The audit as plain data."""
    return {"topics": result.rows, "episodes": result.episodes, "problems": result.problems, "notes": result.notes}
