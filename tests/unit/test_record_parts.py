"""The guided recorder's parts without ROS: episodes, keys, command line, counting, checks, audit."""

from __future__ import annotations

import shlex
import struct
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corft.recording.checks import Finding, check
from corft.recording.command import (
    command_text,
    full_name,
    qos_overrides,
    qos_text,
    record_command,
    recorded_topics,
)
from corft.recording.keys import Keys, Lines
from corft.recording.log import Summary, TopicLog, header_stamp_ns
from corft.recording.session import COMMANDS, CommandRefused, Session
from corft_core.contract import Contract
from corft_core.data.messages import DISCARD, FAILURE, START, STOP, SUCCESS
from corft_core.errors import CorftError

CONFIG = Path(__file__).parents[2] / "ros2_ws/src/corft/config"
PANDA = CONFIG / "panda_cell/contract.yaml"
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.load(PANDA)


# Episodes


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.integers(1, 5 * SECOND), st.sampled_from(["", "pick"]))))
def test_events_are_always_start_then_at_most_one_outcome_then_stop(commands):
    session, events, now_ns = Session("push"), [], 0
    for name, later_ns, text in commands:
        now_ns += later_ns
        try:
            events += session.command(name, now_ns, text)
        except CommandRefused:
            continue
    events += session.end(now_ns)
    stamps = [event.stamp_ns for event in events]
    assert stamps == sorted(stamps)
    letters = "".join({START: "s", SUCCESS: "o", FAILURE: "o", DISCARD: "o", STOP: "e"}[event.kind] for event in events)
    assert letters.replace("soe", "").replace("se", "") == ""
    assert all(episode.outcome and episode.stop_ns >= episode.start_ns for episode in session.episodes)


def test_quit_during_an_episode_needs_a_second_quit_and_then_discards():
    session = Session("pick")
    session.command("start", 1 * SECOND)
    with pytest.raises(CommandRefused, match="quit again"):
        session.command("quit", 2 * SECOND)
    with pytest.raises(CommandRefused, match="quit again"):
        session.command("quit", 9 * SECOND)  # too late: counts as a first one
    assert [event.kind for event in session.command("quit", 10 * SECOND)] == [DISCARD, STOP]
    assert session.ended


def test_an_episode_needs_a_prompt_which_stays_while_it_runs():
    session = Session()
    with pytest.raises(CommandRefused, match="no prompt text"):
        session.command("start", SECOND)
    assert session.command("start", SECOND, "pick")[0].instruction == "pick"
    with pytest.raises(CommandRefused, match="stays until it has ended"):
        session.command("prompt", SECOND, "push")
    session.command("success", 2 * SECOND)
    session.command("prompt", 2 * SECOND, "push")
    with pytest.raises(CommandRefused, match="time has gone back"):
        session.command("start", SECOND)
    assert session.command("start", 3 * SECOND)[0].instruction == "push"


# Keys


class Hands:
    """A keyboard with a clock of its own: what is typed, and how long after the last."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.keys = Keys(lambda: int(self.now_s * 1e9), lambda: self.now_s)

    def type(self, data: bytes, after_s: float = 1.0) -> list[str]:
        names = []
        end_s = self.now_s + after_s
        while self.now_s < end_s - 1e-9:
            names += [command.name for command in self.keys.poll()]
            self.now_s += 0.01
        return names + [command.name for command in self.keys.feed(data)]

    def rest(self) -> list[str]:
        return self.type(b"", 0.0) + [c.name for c in self._later()]

    def _later(self):
        self.now_s += 1.0
        return self.keys.poll()


def test_a_key_alone_counts_with_the_time_when_it_was_pressed():
    hands = Hands()
    hands.type(b"s")
    pressed_ns = int(hands.now_s * 1e9)
    hands.now_s += 0.2
    [command] = hands.keys.poll()
    assert (command.name, command.stamp_ns) == ("start", pressed_ns)


@given(st.lists(st.tuples(st.binary(min_size=2, max_size=8), st.floats(0.0, 0.3)), min_size=1, max_size=6))
def test_pasted_text_in_pieces_never_triggers(pieces):
    hands = Hands()
    names = []
    for data, after_s in pieces:
        names += hands.type(data, after_s)
    names += hands.type(b"s", 0.3)  # its last piece may be a single letter
    hands.now_s += 1.0
    assert names + [command.name for command in hands.keys.poll()] == []


@given(st.binary(max_size=40))
def test_bracketed_paste_never_triggers_however_slow_it_comes(text):
    hands = Hands()
    names = hands.type(b"\x1b[200~") + hands.type(b"q")
    for byte in text.replace(b"\x1b", b""):
        names += hands.type(bytes([byte]))
    hands.now_s += 1.0
    assert names + [command.name for command in hands.keys.poll()] == []


def test_a_prompt_is_edited_and_a_pasted_newline_does_not_end_it():
    hands = Hands()
    hands.type(b"p")
    hands.now_s += 0.2
    hands.keys.poll()
    assert hands.keys.editing == ""
    for data in (b"pux", b"\x7f", b"sh \xc3", b"\xa4", b"\x1b[200~two\nwords\x1b[201~", b"\x1b[A"):
        hands.keys.feed(data)
    [command] = hands.keys.feed(b"\r")
    assert (command.name, command.text) == ("prompt", "push ä" + "two words")
    assert hands.keys.editing is None


def test_lines_wait_and_the_end_of_input_quits():
    now_s = [0.0]
    lines = Lines(lambda: int(now_s[0] * 1e9), lambda: now_s[0])
    lines.feed(b"start pick the cube\nwait 2\nsucc")
    lines.feed(b"ess\n")
    lines.feed(b"")
    [command] = lines.poll()
    assert (command.name, command.text) == ("start", "pick the cube")
    assert lines.poll() == []
    now_s[0] = 2.5
    assert [lines.poll()[0].name, lines.poll()[0].name] == ["success", "quit"]


# Command line


def test_the_shipped_overrides_are_the_panda_contracts(contract):
    topics = recorded_topics(contract)
    assert (CONFIG / "qos_overrides.yaml").read_text() == qos_text(contract, topics)
    overrides = yaml.safe_load(qos_text(contract, topics))
    assert set(overrides) == {full_name(stream.topic) for stream in contract.streams.values()}
    assert {values["reliability"] for values in overrides.values()} == {"reliable", "best_effort"}


def test_topics_follow_namespace_compression_extras_and_simulated_time(contract):
    topics = recorded_topics(contract, "left", compressed=True, extra=["/tf", "status"], use_sim_time=True)
    names = [topic.topic for topic in topics]
    assert "/left/joint_states" in names and "/left/front_camera/image_raw/compressed" in names
    assert names[-3:] == ["/tf", "/status", "/clock"]
    assert set(qos_overrides(topics)) == set(names[:-3])


@pytest.mark.parametrize("positional", [False, True])
def test_no_option_swallows_the_topics(contract, positional):
    topics = recorded_topics(contract)
    command = record_command(topics, "bag", "qos.yaml", positional=positional, use_sim_time=True)
    names = [topic.topic for topic in topics]
    start = command.index(names[0])
    assert command[start : start + len(names)] == names
    assert command[start - 1] == ("record" if positional else "--topics")
    for line in command_text(topics, "bag", "none", False).splitlines():
        if not line.startswith("#"):
            assert shlex.split(line)[:3] == ["ros2", "bag", "record"]


# Counting


def test_header_stamps_are_read_in_both_byte_orders():
    assert header_stamp_ns(b"\0\1\0\0" + struct.pack("<iI", 5, 7)) == 5 * SECOND + 7
    assert header_stamp_ns(b"\0\0\0\0" + struct.pack(">iI", 5, 7)) == 5 * SECOND + 7
    assert header_stamp_ns(b"\0\1\0\0") == 0


@given(st.lists(st.booleans(), min_size=10, max_size=200))
def test_every_dropped_frame_is_counted(kept):
    kept[:6] = [True] * 6
    kept[-1] = True
    log, period_ns = TopicLog(stamped=True), SECOND // 30
    if sum(kept) < 0.6 * len(kept):
        return  # nobody can tell a slow camera from one that drops most
    for number, present in enumerate(kept):
        if present:
            log.add(number * period_ns + 3_000_000, number * period_ns + 1)
            log.number(b"camera", number + 1)
    summary = log.summary(0, len(kept) * period_ns)
    missing = len(kept) - sum(kept)
    assert (summary.count, summary.dropped, summary.lost) == (sum(kept), missing, missing)


def test_gaps_include_the_ends_and_clock_jumps_are_counted():
    log = TopicLog(stamped=False)
    for stamp_ns in (10, 11, 12, 14):
        log.add(stamp_ns * SECOND)
    assert log.summary(10 * SECOND, 17 * SECOND).gap_s == pytest.approx(3.0)
    assert log.summary(20 * SECOND, 21 * SECOND) == Summary(0, pytest.approx(1.0), pytest.approx(1.0))
    assert log.jumps_back == 0
    log.add(2 * SECOND)
    assert log.jumps_back == 1


# Checks


def test_checks_tell_mixed_clocks_missing_stamps_and_slow_cameras(contract):
    topics = {topic.stream: topic for topic in recorded_topics(contract)}

    def judge(stream, **heard):
        usual = {"count": 60, "duration_s": 2.0, "gap_s": 0.05, "rate_hz": 30.0, "latency_s": 0.01}
        summary = Summary(**(usual | heard))
        return check([Finding(topics[stream], (topics[stream].type,), (), summary)], {}, contract.rate_hz, False)

    assert judge("front").errors == judge("front").warnings == []
    assert "--use-sim-time" in judge("front", latency_s=1e9).errors[0]
    assert "`stamp: receive`" in judge("front", unstamped=60).errors[0]
    assert "max_age_s 0.25" in judge("joint_state", gap_s=0.4).errors[0]
    assert "below the contract's rate_hz 10" in judge("wrist", rate_hz=5.0).warnings[0]
    assert "--compressed" in judge("wrist", lost=3).warnings[0]
    assert judge("joint_state", gap_s=0.4).may_pass
    assert not judge("joint_state", gap_s=0.4, unstamped=60).may_pass and not judge("front").may_pass
    silent = check([Finding(topics["arm_command"], (), (), Summary(0, 2.0, 2.0))], {}, 10, False)
    assert not silent.errors and "Start the teleoperation" in silent.warnings[0]


def test_a_contract_without_events_is_refused(contract):
    import dataclasses

    with pytest.raises(CorftError, match="no stream episode_event"):
        recorded_topics(dataclasses.replace(contract, episode_event=None))
