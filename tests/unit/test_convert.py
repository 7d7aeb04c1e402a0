"""Recordings become data sets: time convention, cutting, trimming, reporting; bad input leaves a message only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import CONTRACT_FILE, DISCARD, FAILURE, SECOND, Recording, Take
from rosbags.rosbag2 import StoragePlugin

from corft.bag_to_dataset import main
from corft_core.contract import Contract
from corft_core.data import EpisodeDataset
from corft_core.data import report as reports
from corft_core.data.convert import ConvertOptions, convert

CONTRACT = Contract.load(CONTRACT_FILE)


def run(bag: Path, out: Path, **options: object) -> tuple[EpisodeDataset, dict]:
    report = convert([bag], out, CONTRACT, ConvertOptions(**options))  # type: ignore[arg-type]
    return EpisodeDataset.open(out), report


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeDataset, dict]:
    """Two successes (the second starts idle), a failure, a discarded one and one without outcome."""
    folder = tmp_path_factory.mktemp("convert")
    takes = [Take(), Take("pick the blue cube", "demo/1", idle_s=0.6), Take(outcome=FAILURE),
             Take(outcome=DISCARD), Take(outcome=None)]
    return run(Recording(CONTRACT, takes).write(folder / "bag"), folder / "out")


def test_successes_become_episodes(converted: tuple[EpisodeDataset, dict]) -> None:
    dataset, report = converted
    assert dataset.instructions == ["pick the red cube", "pick the blue cube"]
    assert dataset.scene_ids == ["demo/0", "demo/1"]
    assert report["episodes_seen"] == 5 and report["episodes_kept"] == 2
    assert report["left_out"] == {"failure": 1, "discarded": 1, "unlabelled": 1}
    assert json.loads((dataset.folder / "meta/corft/report.json").read_text()) == report
    source = json.loads((dataset.folder / "meta/corft/source.json").read_text())
    assert Path(source["bags"][0]).name == "bag" and "rosbags" in source["versions"]


def test_observation_at_the_tick_and_action_one_step_later(converted: tuple[EpisodeDataset, dict]) -> None:
    dataset, _ = converted
    first = slice(0, dataset.episode_starts[1])
    time_s = (dataset.column("source.tick_ns")[first] - 1000 * SECOND) * 1e-9
    assert time_s == pytest.approx(0.1 * np.arange(30))  # START … SUCCESS at 3 s
    joint = CONTRACT.robot.home_rad[0]
    assert dataset.state[first, 0] == pytest.approx(joint + 0.5 * np.maximum(0, time_s - 0.04), abs=1e-6)
    assert dataset.action[first, 0] == pytest.approx(joint + 0.5 * (time_s + 0.1), abs=4e-3)
    assert dataset.action[first, 1:7] == pytest.approx(np.tile(CONTRACT.robot.home_rad[1:], (30, 1)), abs=1e-6)
    # The gripper command of 1.5 s is received 3 ms later, so it is in force one step after tick 15.
    assert dataset.action[first, 7].tolist() == [1.0] * 15 + [0.0] * 15
    assert np.all(dataset.state[first, 7] == 1.0)


def test_no_sample_is_newer_than_its_tick(converted: tuple[EpisodeDataset, dict]) -> None:
    dataset, _ = converted
    ticks = dataset.column("source.tick_ns")
    for stream in ("joint_state", "front", "wrist"):
        ages_ns = ticks - dataset.column(f"source.{stream}.stamp_ns")
        assert ages_ns.min() >= 0
        assert dataset.column(f"source.{stream}.age_s") == pytest.approx(ages_ns * 1e-9, abs=1e-6)


def test_leading_idle_is_trimmed_and_told(converted: tuple[EpisodeDataset, dict]) -> None:
    dataset, report = converted
    # It moves from 0.6 s on: tick 6 is the first whose action, one step later, differs from the start.
    assert np.diff(dataset.episode_starts).tolist() == [30, 24]
    assert dataset.action[30, 0] - CONTRACT.robot.home_rad[0] == pytest.approx(0.05, abs=4e-3)
    assert report["episodes"][1]["idle_steps"] == 6
    assert report["idle_share_trimmed"] > 0


def test_frames_belong_to_their_ticks(converted: tuple[EpisodeDataset, dict]) -> None:
    dataset, _ = converted
    frames = dataset.images()["front"]
    start_ns = 1000 * SECOND - SECOND // 2  # the recording's first frame has level 0
    levels = (dataset.column("source.front.stamp_ns")[:30] - start_ns) // (SECOND // 20) % 250
    assert np.abs(frames[:30, -4, 64, 0].astype(int) - levels).max() <= 3


def test_rates_are_reported(converted: tuple[EpisodeDataset, dict]) -> None:
    streams = converted[1]["streams"]
    assert streams["joint_state"]["rate_hz"] == pytest.approx(50, abs=0.5)
    assert streams["front"]["rate_hz"] == pytest.approx(20, abs=0.2) and streams["front"]["dropped"] == 0
    assert streams["front"]["age_s"]["max"] == pytest.approx(0.0, abs=1e-6)


def test_failures_are_kept_on_request(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.5), Take(outcome=FAILURE, duration_s=1.0)]).write(tmp_path / "bag")
    dataset, _ = run(bag, tmp_path / "out", include_failures=True)
    assert dataset.episode_success.tolist() == [True, False]
    assert dataset.reward.sum() == 1 and dataset.truncated[-1] and not dataset.done[-1]


def test_joint_order_in_the_bag_changes_nothing(tmp_path: Path) -> None:
    orders = [[*CONTRACT.robot.joints, "panda_finger_joint1", "panda_finger_joint2"],
              ["panda_finger_joint1", *CONTRACT.robot.joints[::-1], "panda_finger_joint2"]]
    states = []
    for k, order in enumerate(orders):
        bag = Recording(CONTRACT, [Take(duration_s=1.0)], joint_order=order).write(tmp_path / f"bag{k}")
        states.append(run(bag, tmp_path / f"out{k}")[0].state)
    assert np.array_equal(*states)


@pytest.mark.parametrize(("storage", "encoding", "namespace"), [
    (StoragePlugin.SQLITE3, "bgr8", ""), (StoragePlugin.MCAP, "jpeg", "cell_1"), (StoragePlugin.MCAP, "png", "")])
def test_storages_encodings_and_namespaces(tmp_path: Path, storage: StoragePlugin, encoding: str,
                                           namespace: str) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.0)], storage=storage, encoding=encoding, namespace=namespace,
                    image_size=(96, 160)).write(tmp_path / "bag")
    dataset, _ = run(bag, tmp_path / "out")
    red = dataset.images()["front"][:, 40, 40].astype(int)
    assert np.all(red[:, 0] > 190) and np.all(red[:, 1:] < 60)


def test_a_bare_mcap_without_metadata(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.0)]).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    assert run(bag, tmp_path / "a")[0].num_frames == 10
    (file,) = bag.glob("*.mcap")
    assert run(file, tmp_path / "b")[0].num_frames == 10


def test_several_bags_make_one_data_set(tmp_path: Path) -> None:
    bags = [Recording(CONTRACT, [Take(duration_s=1.0, scene_id=f"demo/{k}")]).write(tmp_path / f"bag{k}")
            for k in range(2)]
    assert main([*map(str, bags), str(tmp_path / "out"), "--contract", str(CONTRACT_FILE), "--quiet"]) == 0
    assert EpisodeDataset.open(tmp_path / "out").scene_ids == ["demo/0", "demo/1"]


@pytest.mark.parametrize("speed", [0.25, 1.0, 6.0])
def test_wall_clock_reception_of_simulated_time(tmp_path: Path, speed: float) -> None:
    """The recorder ran on the wall clock while the cell ran `speed` times as fast on simulated time."""
    recording = Recording(CONTRACT, [Take(duration_s=2.0)], start_ns=3 * SECOND,
                          receive_of=lambda ns: 1_700_000_000 * SECOND + round(ns / speed) + 1_000_000)
    dataset, report = run(recording.write(tmp_path / "bag"), tmp_path / "out")
    assert len(report["notes"]) == 1 and "different clocks" in report["notes"][0]
    time_s = (dataset.column("source.tick_ns") - 3 * SECOND) * 1e-9
    # A command without a header is known to within one joint-state period, 0.02 s at 0.5 rad/s.
    assert dataset.action[:, 0] == pytest.approx(0.5 * (time_s + 0.1) + CONTRACT.robot.home_rad[0], abs=0.011)


def test_late_samples_are_still_used(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.5)]).write(tmp_path / "bag")
    expected = run(bag, tmp_path / "a")[0]
    slow = Recording(CONTRACT, [Take(duration_s=1.5)])
    samples = slow.samples()
    slow.samples = lambda: sorted(  # type: ignore[method-assign]
        samples, key=lambda item: item[0] + (400_000_000 if item[1] == "front" else 0))
    dataset = run(slow.write(tmp_path / "bag2"), tmp_path / "b")[0]
    assert np.array_equal(dataset.column("source.front.stamp_ns"), expected.column("source.front.stamp_ns"))


def drop_some(stream: str, stamp_ns: int) -> bool:
    return stream == "front" and 1001.0 <= stamp_ns * 1e-9 < 1001.2


def drop_long(stream: str, stamp_ns: int) -> bool:
    return stream == "front" and 1001.0 <= stamp_ns * 1e-9 < 1001.9


def test_drops_are_counted_and_long_gaps_refused(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take()], drop=drop_some).write(tmp_path / "bag")
    dataset, report = run(bag, tmp_path / "out")
    assert report["streams"]["front"]["dropped"] == 4 and report["streams"]["front"]["gaps"] == 1
    assert dataset.column("source.front.age_s").max() == pytest.approx(0.15)
    gap = Recording(CONTRACT, [Take(), Take(scene_id="demo/1")], drop=drop_long).write(tmp_path / "gap")
    dataset, report = run(gap, tmp_path / "out2")
    assert dataset.scene_ids == ["demo/1"]
    assert report["left_out"] == {"samples too old on more than 5 % of the steps": 1}
    dataset, report = run(gap, tmp_path / "out3", max_stale_share=0.5)
    assert report["episodes"][0]["stale_steps"] == 6 and dataset.num_episodes == 2


def empty(tmp_path: Path) -> Path:
    return Recording(CONTRACT, []).write(tmp_path / "bag")


def truncated(tmp_path: Path) -> Path:
    bag = Recording(CONTRACT, [Take(duration_s=1.0)]).write(tmp_path / "bag")
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return bag


def nonsense(tmp_path: Path) -> Path:
    path = tmp_path / "bag.mcap"
    path.write_bytes(b"not a recording at all")
    return path


def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "bag.mcap")  # opening it would wait for ever
    return tmp_path / "bag.mcap"


def parent(tmp_path: Path) -> Path:
    Recording(CONTRACT, [Take(duration_s=1.0)]).write(tmp_path / "bag")
    return tmp_path


BAD: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "no bag": (lambda p: p / "bag", ["there is no bag", "ros2 bag record"]),
    "not a bag": (lambda p: p, ["is not a bag"]),
    "a folder of bags": (parent, ["is not a bag", "give them instead: ", "/*"]),
    "a device": (lambda p: Path("/dev/zero"), ["/dev/zero is not a bag: expected a folder or a file"]),
    "a pipe": (pipe, ["is not a bag: expected a folder or a file"]),
    "empty bag": (empty, ["is empty"]),
    "cut off": (truncated, ["1 x unfinished"]),
    "nonsense": (nonsense, ["cannot be read"]),
    "no wrist camera": (lambda p: Recording(CONTRACT, without=("wrist",)).write(p / "bag"),
                        ["wrist: no topic wrist_camera/image_raw", "/front_camera/image_raw [sensor_msgs/msg/Image]"]),
    "no success": (lambda p: Recording(CONTRACT, [Take(outcome=FAILURE, duration_s=1.0)]).write(p / "bag"),
                   ["none succeeded", "1 x failure", "--include-failures"]),
    "only discarded": (lambda p: Recording(CONTRACT, [Take(outcome=DISCARD, duration_s=1.0)]).write(p / "bag"),
                       ["1 x discarded"]),
    "other robot's joints": (lambda p: Recording(CONTRACT, [Take(duration_s=1.0)],
                                                 joint_order=[*CONTRACT.robot.joints]).write(p / "bag"),
                             ["waited for joint_state", "lacks panda_finger_joint1"]),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_exits_2_with_a_message_and_leaves_nothing(tmp_path: Path, case: str,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = BAD[case]
    bag = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(bag), str(tmp_path / "out"), "--contract", str(CONTRACT_FILE), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    for part in expected:
        assert part in message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_contract_with_an_unknown_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text(CONTRACT_FILE.read_text() + "\nratehz: 10\n")
    bag = Recording(CONTRACT, [Take(duration_s=1.0)]).write(tmp_path / "bag")
    assert main([str(bag), str(tmp_path / "out"), "--contract", str(contract)]) == 2
    assert "unknown key ratehz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_data_set_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.0)]).write(tmp_path / "bag")
    command = [str(bag), str(tmp_path / "out"), "--contract", str(CONTRACT_FILE), "--quiet"]
    assert main(command) == 0
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "ros2 run corft bag_to_dataset demos/ dataset/" in text and "exit codes" in text


def test_an_undecodable_frame_is_a_missing_sample(tmp_path: Path) -> None:
    recording = Recording(CONTRACT, [Take(duration_s=1.5)], encoding="jpeg")
    samples = recording.samples()
    front = [k for k, (_, name, _) in enumerate(samples) if name == "front"]
    broken = samples[front[20]]  # at tick 5
    broken[2].data = broken[2].data[:40]
    recording.samples = lambda: samples  # type: ignore[method-assign]
    dataset, report = run(recording.write(tmp_path / "bag"), tmp_path / "out")
    assert report["undecodable"] == {"front": 1} and dataset.num_frames == 15
    assert dataset.column("source.front.stamp_ns")[5] == samples[front[19]][0]
    assert dataset.column("source.front.age_s")[5] == pytest.approx(0.05)


WHOLE = CONTRACT.to_dict() | {"episodes": "bag", "instruction": "from the contract"}
WHOLE["streams"] = {name: stream for name, stream in WHOLE["streams"].items() if name != "episode_event"}


def test_a_bag_may_be_one_episode(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=1.5, idle_s=0.5)], without=("episode_event",)).write(tmp_path / "take7")
    contract = Contract.from_dict(WHOLE)
    convert([bag], tmp_path / "a", contract)
    dataset = EpisodeDataset.open(tmp_path / "a")
    assert dataset.instructions == ["from the contract"] and dataset.scene_ids == ["take7"]
    assert dataset.episode_success.tolist() == [True]
    options = ConvertOptions(task="stack the cups", outcome="failure", include_failures=True)
    report = convert([bag], tmp_path / "b", contract, options)
    dataset = EpisodeDataset.open(tmp_path / "b")
    assert dataset.instructions == ["stack the cups"] and not dataset.episode_success.any()
    assert not reports.losses(report)


def test_idle_steps_can_be_kept(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=2.0, idle_s=0.6)]).write(tmp_path / "bag")
    assert run(bag, tmp_path / "a")[0].num_frames == 14
    dataset, report = run(bag, tmp_path / "b", keep_idle=True)
    assert dataset.num_frames == 20 and report["idle_share_trimmed"] == 0


def test_gaps_above_the_limit_leave_an_episode_out_with_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                               ) -> None:
    bag = Recording(CONTRACT, [Take(), Take(scene_id="demo/1")], drop=drop_some).write(tmp_path / "bag")
    command = [str(bag), str(tmp_path / "out"), "--contract", str(CONTRACT_FILE), "--quiet"]
    assert main([*command, "--max-gap-s", "0.3"]) == 0
    assert main([*command, "--max-gap-s", "0.2", "--overwrite"]) == 1
    assert "no sample of front for longer than 0.2 s" in capsys.readouterr().out
    assert EpisodeDataset.open(tmp_path / "out").scene_ids == ["demo/1"]


def test_episodes_and_stretches_can_be_excluded(tmp_path: Path) -> None:
    takes = [Take(duration_s=1.5, scene_id=f"demo/{k}") for k in range(3)]
    bag = Recording(CONTRACT, takes).write(tmp_path / "bag")
    command = [str(bag), str(tmp_path / "out"), "--contract", str(CONTRACT_FILE), "--quiet", "--overwrite"]
    assert main([*command, "--exclude", "bag:1"]) == 0
    assert EpisodeDataset.open(tmp_path / "out").scene_ids == ["demo/0", "demo/2"]
    chosen = tmp_path / "episodes.yaml"
    chosen.write_text("ranges: [{bag: bag, from_s: 0.5, to_s: 1.5, instruction: look, scene_id: mine}]\n")
    assert main([*command, "--episodes", str(chosen)]) == 0
    dataset = EpisodeDataset.open(tmp_path / "out")
    assert dataset.instructions == ["look"] and dataset.scene_ids == ["mine"] and 9 <= dataset.num_frames <= 10
    assert main([*command, "--exclude", "cellar:1"]) == 2


def test_commands_that_were_clipped_are_counted(tmp_path: Path) -> None:
    recording = Recording(CONTRACT, [Take(duration_s=1.5)])
    samples = recording.samples()
    for _, name, message in samples:
        if name == "gripper_command":
            message.data = message.data + 0.05
    recording.samples = lambda: samples  # type: ignore[method-assign]
    limits = ([-3.0] * 7, [0.4, *[3.0] * 6])  # the first joint moves to 0.75 rad
    dataset, report = run(recording.write(tmp_path / "bag"), tmp_path / "out", joint_limits_rad=limits)
    (bag,) = report["bags"]
    assert bag["clipped"] == {"joint_steps": {name: int((dataset.action[:, k] > limits[1][k] + 1e-4).sum())
                                              for k, name in enumerate(CONTRACT.robot.joints)},
                              "gripper_commands": 2}
    assert 5 <= bag["clipped"]["joint_steps"]["panda_joint1"] <= 10
    assert any("never commanded to close" in note for note in report["notes"])
    assert "gripper commands outside its range" in reports.text(report)


def test_the_report_page_shows_every_recording(tmp_path: Path) -> None:
    takes = [Take("pick <b>it</b>"), Take(outcome=FAILURE), Take(outcome=None, stop=False)]
    bag = Recording(CONTRACT, takes, drop=drop_some).write(tmp_path / "bag")
    _, report = run(bag, tmp_path / "out")
    page = (tmp_path / "out/meta/corft/report.html").read_text()
    assert page.count("<svg") == 1 and "gap of 0.25 s" in page and "unfinished" in page
    assert "pick &lt;b&gt;it&lt;/b&gt;" in page and "http" not in page.replace("http-equiv", "")
    assert reports.losses(report) == [f"episode at {report['episodes'][2]['at_s']:.1f} s of {bag} left out: unfinished"]
