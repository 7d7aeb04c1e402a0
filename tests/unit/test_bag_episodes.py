"""Episodes by recorded events, String events, time ranges, whole bags; exclusions and labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bag_files import Recorded, Style, write_bag
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import DISCARD, FAILURE, SECOND, START, STOP, SUCCESS, typestore

from corft_core.data.bag import Bag
from corft_core.data.episodes import EpisodeCutter, EpisodeSpan, Event, EventAt, merge_events, read_event
from corft_core.data.episodes_file import BagPlan, EpisodesFile, EpisodesFileError, WholeBag
from corft_core.data.messages import MessageError


def plan(**content: Any) -> BagPlan:
    """The plan of a file with ``content`` for a bag called b."""
    return EpisodesFile(content, "e.yaml").for_bag("runs/b")


def cut(recorded: list[tuple[float, Event]], edits: BagPlan, end_s: float = 100.0,
        whole: WholeBag | None = None) -> tuple[list[EpisodeSpan], EpisodeCutter]:
    """Episodes that became current, of events at seconds since the bag's start (1000 s)."""
    start = 1000 * SECOND
    stream = [] if edits.replaces_events or whole else [
        SimpleNamespace(receive_ns=start + int(s * SECOND), event=event) for s, event in recorded]
    cutter, seen = EpisodeCutter(edits), []
    for item in merge_events(stream, edits.events(start, start + int(end_s * SECOND), whole)):
        cutter.push(item.receive_ns, item.event)
        if cutter.current is not None and cutter.current not in seen:
            seen.append(cutter.current)
    cutter.finish()
    return seen, cutter


def seconds(span: EpisodeSpan) -> tuple[float, float | None]:
    """A span's place in s since the bag's start."""
    return span.start_ns / SECOND - 1000, None if span.end_ns is None else span.end_ns / SECOND - 1000


RECORDED = [(event_s, event) for k in range(3) for event_s, event in (
    (10.0 + 20 * k, Event(START, "pick", f"s/{k}")), (20.0 + 20 * k, Event(SUCCESS)), (21.0 + 20 * k, Event(STOP)))]


def test_text_events() -> None:
    def say(text: str) -> Event:
        return read_event(SimpleNamespace(data=text))

    assert say("start: pick the cube: the red one") == Event(START, "pick the cube: the red one")
    assert [say(text).kind for text in ("start", " Success ", "FAILURE", "stop", "discard")] == \
        [START, SUCCESS, FAILURE, STOP, DISCARD]
    for text in ("", "begin", "success: yes"):
        with pytest.raises(MessageError, match='expected "start: <instruction>"'):
            say(text)


def test_text_events_in_a_bag(tmp_path: Path) -> None:
    store, kind = typestore(), "std_msgs/msg/String"
    messages = [Recorded(k, "/episode_event", kind, bytes(store.serialize_cdr(store.types[kind](data=text), kind)))
                for k, text in enumerate(("start: pick", "success", "stop"), start=1)]
    with Bag(write_bag(tmp_path / "bag", messages, store, Style())) as bag:
        cutter, spans = EpisodeCutter(), []
        for item in bag.messages(bag.topics):
            cutter.push(item.receive_ns, item.message)
            spans += [cutter.current] if item.receive_ns == 1 else []
    (span,) = spans
    assert span is not None
    assert (span.instruction, span.start_ns, span.end_ns, span.outcome) == ("pick", 1, 2, "success")


def test_ranges_replace_the_recorded_events() -> None:
    edits = plan(ranges=[{"bag": "b", "from_s": 30, "to_s": 42.5, "instruction": "place", "outcome": "failure"},
                         {"bag": "b", "from_ns": 1005 * SECOND, "to_ns": 1030 * SECOND, "scene_id": "x"},
                         {"bag": "other", "from_s": 0, "to_s": 1}])
    spans, cutter = cut(RECORDED, edits)
    assert edits.replaces_events and cutter.ignored == 0
    assert [(seconds(span), span.outcome, span.instruction, span.scene_id) for span in spans] == [
        ((5, 30), "success", "", "x"), ((30, 42.5), "failure", "place", "b/1")]


def test_overlapping_ranges_are_refused() -> None:
    with pytest.raises(EpisodesFileError, match=r"ranges\[1\] and e.yaml: ranges\[0\] overlap in b"):
        cut([], plan(ranges=[{"bag": "b", "from_s": 5, "to_s": 9}, {"bag": "b", "from_s": 1, "to_s": 6}]))


def test_a_whole_bag_is_one_episode() -> None:
    (span,), _ = cut(RECORDED, plan(), whole=WholeBag("pick", "failure", "s/9"))
    assert (seconds(span), span.outcome, span.instruction, span.scene_id) == ((0, 100), "failure", "pick", "s/9")


def test_episodes_are_excluded_by_number_and_scene() -> None:
    edits = plan(exclude=[{"bag": "b", "episode": 0}, {"scene_id": "s/2"}, {"bag": "b", "episode": 7}])
    spans, cutter = cut(RECORDED, edits)
    assert [span.scene_id for span in spans] == ["s/1"]
    assert [(span.number, span.outcome, span.reason) for span in cutter.left_out] == [
        (0, "success", "excluded by e.yaml: exclude[0]"), (2, "success", "excluded by e.yaml: exclude[1]")]
    file = EpisodesFile({"exclude": [{"bag": "b", "episode": 7}]}, "e.yaml")
    assert file.unused(edits.used) == []
    assert file.unused(set()) == ["e.yaml: exclude[0] applied to no episode"]


@pytest.mark.parametrize(("stretch", "kept", "left_out"), [
    ((0, 12), (12, 20), None),  # covers the start
    ((10, 12), (12, 20), None),
    ((18, 30), (10, 18), None),  # covers the end
    ((18, 20), (10, 18), None),
    ((0, 10), (10, 20), None),  # touches
    ((20, 25), (10, 20), None),
    ((12, 15), (10, 12), "lies inside it"),
    ((5, 25), None, "inside an excluded"),
    ((10, 20.1), None, "inside an excluded"),
])
def test_excluded_time_moves_borders_or_leaves_out(stretch: tuple[float, float], kept: tuple[float, float] | None,
                                                   left_out: str | None) -> None:
    edits = plan(exclude=[{"bag": "b", "from_s": stretch[0], "to_s": stretch[1]}])
    spans, cutter = cut(RECORDED[:3], edits)
    if kept is None:
        assert not spans and left_out in cutter.left_out[0].reason
        return
    (span,) = spans
    assert seconds(span) == kept and span.outcome == "success" and span.closed
    assert (left_out in span.reason) if left_out else span.reason == ""


def test_labels_change_outcome_and_instruction() -> None:
    edits = plan(labels=[{"bag": "b", "episode": 1, "outcome": "failure"},
                         {"scene_id": "s/2", "instruction": "pick the red cup", "outcome": "discard"}])
    spans, _ = cut(RECORDED, edits)
    assert [(span.outcome, span.instruction) for span in spans] == [
        ("success", "pick"), ("failure", "pick"), ("discarded", "pick the red cup")]


@pytest.mark.parametrize(("content", "expected"), [
    ([], "expected the keys ranges, exclude, labels, found list"),
    ({"range": []}, "found range"),
    ({"ranges": {}}, None),
    ({"ranges": "all"}, "ranges must be a list"),
    ({"ranges": [3]}, r"ranges\[0\] must be a mapping"),
    ({"ranges": [{"bag": "b", "from_s": 1}]}, r"ranges\[0\] has from_s; a time range needs from_s and to_s"),
    ({"ranges": [{"from_s": 1, "to_s": 2}]}, r"ranges\[0\] needs bag"),
    ({"ranges": [{"bag": "b", "from_s": 2, "to_s": 2}]}, r"ranges\[0\].from_s must lie before to_s"),
    ({"ranges": [{"bag": "b", "from_s": float("nan"), "to_s": 2}]}, r"ranges\[0\].from_s must be seconds"),
    ({"ranges": [{"bag": "b", "from_ns": 1.5, "to_ns": 2}]}, r"ranges\[0\].from_ns must be whole nanoseconds"),
    ({"ranges": [{"bag": "b", "from_s": 1, "to_s": 2, "outcome": "good"}]}, r"ranges\[0\].outcome must be one of"),
    ({"exclude": [{"bag": "b", "episode": -1}]}, r"exclude\[0\].episode must be a whole number"),
    ({"exclude": [{"bag": "b", "episode": True}]}, r"exclude\[0\].episode must be a whole number"),
    ({"exclude": [{"episode": 1}]}, r"exclude\[0\] must say which episode"),
    ({"exclude": [{"bag": "b", "scene_id": "s"}]}, r"exclude\[0\] must say which episode"),
    ({"exclude": [{"scene_id": 3}]}, r"exclude\[0\].scene_id must be a text"),
    ({"labels": [{"scene_id": "s"}]}, r"labels\[0\] must give an outcome or an instruction"),
    ({"labels": [{"scene_id": "s", "oucome": "failure"}]}, r"labels\[0\].oucome is unknown; known are"),
])
def test_a_wrong_file_is_refused_naming_the_key(content: Any, expected: str | None) -> None:
    if expected is None:
        EpisodesFile(content)
        return
    with pytest.raises(EpisodesFileError, match=expected):
        EpisodesFile(content, "e.yaml")


def test_files_and_shorthands(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("labels:\n  - {bag: monday/run_1, episode: 0, outcome: failure}\n")
    read = EpisodesFile.load(file, ["b:2", "a/b:3.0-4.5"])
    read.check(["x/monday/run_1", "a/b.mcap"])
    assert [len(read.for_bag(path).labels) for path in ("monday/run_1", "tuesday/run_1")] == [1, 0]
    assert [len(read.for_bag(path).exclude) for path in ("a/b.mcap", "c/b", "a/c")] == [2, 1, 0]
    with pytest.raises(EpisodesFileError, match=r"--exclude b:2 names the bag b, which is not among .*run_1"):
        read.check(["monday/run_1"])
    for text in ("b", "b:x", "b:1-", ":3", "b:3-1", "b:1.2.3-4"):
        with pytest.raises(EpisodesFileError, match="--exclude"):
            EpisodesFile.load(None, [text])
    file.write_text("labels: [")
    with pytest.raises(EpisodesFileError, match="no valid YAML"):
        EpisodesFile.load(file)
    with pytest.raises(EpisodesFileError, match="cannot be read: No such file"):
        EpisodesFile.load(tmp_path / "nothing.yaml")


@given(times=st.lists(st.integers(0, 60), max_size=8), stretches=st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_kept_step_lies_in_an_excluded_stretch(times: list[int], stretches: list[tuple[int, int]]) -> None:
    kinds = [START, SUCCESS, STOP]
    recorded = [(float(s), Event(kinds[k % 3], "", f"s/{k}")) for k, s in enumerate(sorted(times))]
    edits = plan(exclude=[{"bag": "b", "from_s": s, "to_s": s + d} for s, d in _apart(stretches)])
    spans, _ = cut(recorded, edits)
    for span in spans:
        start, end = seconds(span)
        if span.reason or end is None:
            continue
        assert start <= end and not any(max(start, s) < min(end, s + d) for s, d in _apart(stretches))


def _apart(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for s, d in sorted(stretches):
        if not out or s > sum(out[-1]):
            out.append((s, d))
    return out


def test_events_come_before_messages_of_their_time() -> None:
    messages = [SimpleNamespace(receive_ns=t) for t in (1, 5, 5, 9)]
    events = [EventAt(t, Event(STOP)) for t in (0, 5, 20)]
    assert [(item.receive_ns, hasattr(item, "event")) for item in merge_events(messages, events)] == [
        (0, True), (1, False), (5, True), (5, False), (5, False), (9, False), (20, True)]
