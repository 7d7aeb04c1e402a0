"""Damaged recordings through bag_to_dataset: what was saved, what the report says, the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from bag_files import Recorded, Style, write_bag
from recordings import CONTRACT_FILE, SECOND, Recording, Take, typestore

from corft.bag_to_dataset import main
from corft_core.contract import Contract

CONTRACT = Contract.load(CONTRACT_FILE)
TAKES = [Take(duration_s=1.5, scene_id=f"demo/{k}") for k in range(3)]
MCAP, SQLITE = Style(chunk_bytes=20_000), Style("sqlite3")


@cache
def recorded() -> tuple[Recorded, ...]:
    """Three short episodes."""
    return tuple(Recording(CONTRACT, TAKES, encoding="jpeg").messages())


def convert(bag: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict, str]:
    """Exit code, report and what was printed as error."""
    code = main([str(bag), str(out), "--contract", str(CONTRACT_FILE), "--quiet", "--jobs", "1", *options])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    report = json.loads((out / "meta/corft/report.json").read_text()) if code < 2 else {}
    assert out.exists() == (code < 2)
    return code, report, said


def kept(report: dict) -> list[str]:
    """Scenes of the episodes that were kept."""
    return [episode["scene_id"] for episode in report["episodes"] if episode["kept"]]


@pytest.mark.parametrize(("style", "share", "expected"), [
    (MCAP, 0.0, 2), (MCAP, 0.001, 2), (MCAP, 0.2, 2), (MCAP, 0.5, ["demo/0"]), (MCAP, 0.75, ["demo/0", "demo/1"]),
    (MCAP, 0.999, ["demo/0", "demo/1", "demo/2"]), (SQLITE, 0.001, 2), (SQLITE, 0.5, ["demo/0"]),
    (SQLITE, 0.75, ["demo/0", "demo/1"]), (Style(chunks=None), 0.75, ["demo/0", "demo/1"]),
    (Style(compression="file", chunks=""), 0.75, ["demo/0", "demo/1"]), (Style(compression="file"), 0.1, 2)])
def test_episodes_before_the_cut_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str], style: Style,
                                               share: float, expected: int | list[str]) -> None:
    bag = write_bag(tmp_path / "bag", recorded(), typestore(), style)
    (file,) = [file for file in bag.iterdir() if file.name != "metadata.yaml"]
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    code, report, said = convert(bag, tmp_path / "out", capsys)
    if isinstance(expected, int):
        assert code == expected and said.startswith("error: ")
        return
    assert kept(report) == expected
    assert code == (0 if share > 0.99 else 1)
    told = " ".join(report["damage"] + report["notes"])
    assert "cut off" in told or "could not be read" in told
    assert "mcap recover" in told or ".recover" in told


def test_a_flipped_byte_costs_its_chunk_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", recorded(), typestore(), MCAP)
    (file,) = bag.glob("*.mcap")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 + 100] ^= 0x10
    file.write_bytes(content)
    code, report, _ = convert(bag, tmp_path / "out", capsys)
    assert code == 1 and {"demo/0", "demo/2"} <= set(kept(report))
    assert any("could not be read" in note for note in report["damage"])


def test_a_few_invalid_messages_are_rejected_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joints = [k for k, m in enumerate(recorded()) if m.topic == "/joint_states"]
    broken = [m._replace(data=b"" if k == joints[60] else m.data[:50]) if k in joints[60:63] else m
              for k, m in enumerate(recorded())]
    code, report, _ = convert(write_bag(tmp_path / "bag", broken, typestore(), MCAP), tmp_path / "out", capsys)
    assert code in (0, 1) and len(kept(report)) == 3
    assert 3 in report["rejected_messages"].values()


def other_type(messages: list[Recorded]) -> list[Recorded]:
    """Most joint states replaced by texts."""
    store, kind = typestore(), "std_msgs/msg/String"
    text = bytes(store.serialize_cdr(store.types[kind](data="x"), kind))
    joints = [m for m in messages if m.topic == "/joint_states"][10:]
    return [m._replace(type=kind, data=text) if m in joints else m for m in messages]


@pytest.mark.parametrize(("change", "expected"), [
    (lambda messages: [m for m in messages if m.topic != "/joint_states"], "joint_state: no topic joint_states"),
    (other_type, "has type std_msgs/msg/String"),
    (lambda messages: [m._replace(data=m.data[:-5]) if m.topic == "/joint_states" else m for m in messages],
     "on /joint_states are no valid sensor_msgs/msg/JointState"),
])
def test_what_cannot_be_used_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                        change: Callable[[list[Recorded]], list[Recorded]], expected: str) -> None:
    bag = write_bag(tmp_path / "bag", change(list(recorded())), typestore(), MCAP)
    code, _, said = convert(bag, tmp_path / "out", capsys)
    assert code == 2 and expected in said


def test_a_recorder_clock_set_back_is_survived_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = next(k for k, m in enumerate(recorded()) if m.receive_ns > 1003 * SECOND)
    back = [*recorded()[:half], *(m._replace(receive_ns=m.receive_ns - 5 * SECOND) for m in recorded()[half:])]
    code, report, _ = convert(write_bag(tmp_path / "bag", back, typestore(), MCAP), tmp_path / "out", capsys)
    assert code in (0, 1) and "demo/0" in kept(report)
    assert any("clock was set back by 5." in note for note in report["notes"])


def test_an_episodes_file_decides_over_recorded_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", recorded(), typestore(), MCAP)
    file = tmp_path / "episodes.yaml"
    file.write_text("exclude:\n  - {bag: bag, episode: 0}\nlabels:\n  - {scene_id: demo/1, outcome: failure}\n")
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    code, report, _ = convert(bag, tmp_path / "out", capsys, "--episodes", str(file))
    assert code == 0 and kept(report) == ["demo/2"]
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before
    file.write_text("ranges:\n  - {bag: bag, from_s: 0.6, to_s: 1.8, instruction: push, scene_id: x}\n")
    code, report, _ = convert(bag, tmp_path / "out2", capsys, "--episodes", str(file))
    assert code == 0 and kept(report) == ["x"] and report["episodes"][0]["instruction"] == "push"
    file.write_text("ranges:\n  - {bag: other, from_s: 0.6, to_s: 1.8}\n")
    code, _, said = convert(bag, tmp_path / "out3", capsys, "--episodes", str(file))
    assert code == 2 and "names the bag other, which is not among those to convert" in said
