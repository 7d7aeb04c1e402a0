"""Before a recording: wait for the topics, listen to them for two seconds, judge them; gaps get two more chances."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node

from corft.recording.checks import Finding, check, table
from corft.recording.monitor import Monitors
from corft.recording.screen import Screen
from corft.stream_health import SILENT_S
from corft_core.data.topics import CLOCK_TOPIC
from corft_core.errors import CorftError

MEASURE_S = 2.0
# What has been matched anew is heard a little later.
SETTLE_S = 0.5
POLL_S = 0.02
# A gap is often the load of programs that were just started; a driver that is starved shows one every time.
MEASUREMENTS = 3


def preflight(node: Node, monitors: Monitors, screen: Screen, stopped: Sequence[int], *, rate_hz: float, folder: Path,
              wait_s: float, use_sim_time: bool, force: bool) -> set[str]:
    """Print what the topics are like; returns those whose publishers are reliable.

    ``folder`` is where the bag will lie. Ends early once ``stopped`` is not empty. Raises CorftError when the topics
    are not what the contract says, unless ``force`` is given.
    """
    def patiently(condition: Callable[[], Any], what: Callable[[], str]) -> None:
        start_s = time.monotonic()
        say_s = start_s + SILENT_S
        while not condition() and not stopped and time.monotonic() - start_s < wait_s:
            if time.monotonic() >= say_s:
                screen.say(f"waiting for {what()}")
                say_s += SILENT_S
            time.sleep(0.1)

    if use_sim_time:
        patiently(monitors.clock.poll, lambda: f"{CLOCK_TOPIC}, as --use-sim-time asks for: start the simulation")
        if not monitors.clock.poll() and not stopped:
            raise CorftError(f"there is no {CLOCK_TOPIC}: start the simulation first, or leave out --use-sim-time")
        if node.count_publishers(CLOCK_TOPIC) > 1:
            raise CorftError(f"several nodes publish {CLOCK_TOPIC}: is a simulation from before still running? Stop it "
                             f"(`ros2 topic info -v {CLOCK_TOPIC}` names them)")
    patiently(lambda: not monitors.unpublished(), lambda: ", ".join(
        f"{topic.stream} ({topic.topic}: nobody publishes it)" for topic in monitors.unpublished()))
    reliable = monitors.match()
    _listen(monitors, SETTLE_S, stopped)
    for last in (False,) * (MEASUREMENTS - 1) + (True,):
        findings = _measure(monitors, stopped)
        if stopped:
            return reliable
        verdict = check(findings, monitors.published(), rate_hz, use_sim_time)
        if last or force or not verdict.may_pass:
            break
        screen.say(f"{'; '.join(verdict.errors)} Listening once more.")
    screen.say(table(findings))
    free, rate = shutil.disk_usage(folder).free, sum(finding.bytes_s for finding in findings)
    if rate > 0:
        screen.say(f"{rate * 1e-6:.1f} MB/s before compression; the disk has room for {free / rate / 60:.0f} min")
    for warning in verdict.warnings:
        screen.say(f"warning: {warning}")
    for error in verdict.errors:
        screen.say(f"ERROR: {error}")
    if verdict.errors and not force:
        raise CorftError(f"{len(verdict.errors)} of the checks failed, see above; nothing was recorded. "
                         "--force records all the same.")
    return reliable


def _measure(monitors: Monitors, stopped: Sequence[int]) -> list[Finding]:
    """What is heard of every topic within ``MEASURE_S``."""
    for monitor in monitors.all:
        monitor.log.bytes = 0
    start_ns = monitors.clock.now_ns()
    _listen(monitors, MEASURE_S, stopped)
    stop_ns = monitors.clock.now_ns()
    return [monitor.finding(start_ns, stop_ns, MEASURE_S) for monitor in monitors.all]


def _listen(monitors: Monitors, seconds: float, stopped: Sequence[int]) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and not stopped:
        monitors.drain()
        time.sleep(POLL_S)
