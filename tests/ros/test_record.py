"""`ros2 run corft record` end to end: real publishers, scripted or typed commands, a real bag, a data set of it."""

from __future__ import annotations

import array
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros.graph import CONTRACT, PATIENCE_S, ROOT
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.bag_to_dataset import main as convert
from corft_core.contract import Contract
from corft_core.data import EpisodeDataset

pytestmark = pytest.mark.ros
RELIABLE = QoSProfile(depth=10)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Robot:
    """A robot's publishers: joints at 50 Hz, two cameras at 20 Hz, commands at 10 Hz, in a thread of their own."""

    def __init__(self, *, silent: tuple[str, ...] = (), joints_qos: QoSProfile = RELIABLE) -> None:
        self._contract = Contract.load(CONTRACT)
        self._node = rclpy.create_node("robot")
        self._silent, self._stop, self.stumbles = silent, threading.Event(), False
        streams = self._contract.streams
        kinds = {"joint_state": (JointState, joints_qos), "arm_command": (JointTrajectory, RELIABLE),
                 "gripper_command": (Float64MultiArray, RELIABLE),
                 "front": (Image, RELIABLE), "wrist": (Image, RELIABLE)}
        self._publishers = {name: self._node.create_publisher(kind, streams[name].topic, qos)
                            for name, (kind, qos) in kinds.items() if name not in silent}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        period_s, next_s, tick = 0.01, time.monotonic(), 0
        while not self._stop.wait(max(0.0, next_s - time.monotonic())):
            if self.stumbles and tick % 50 == 0:
                next_s = time.monotonic() + 0.5
            next_s += period_s
            if tick % 2 == 0:
                self._joints(tick)
            if tick % 5 == 0:
                self._send("front", self._image(tick))
                self._send("wrist", self._image(tick + 1))
            if tick % 10 == 0:
                self._commands(tick)
            tick += 1

    def _send(self, name: str, message: Any) -> None:
        if name in self._publishers:
            if hasattr(message, "header"):
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            self._publishers[name].publish(message)

    def _joints(self, tick: int) -> None:
        arm = [home + 0.1 * np.sin(tick / 100) for home in self._contract.robot.home_rad]
        self._send("joint_state", JointState(name=[*self._contract.robot.joints, self._contract.gripper.joint],
                                             position=[*arm, 0.02 + 0.02 * np.sin(tick / 50)]))

    def _commands(self, tick: int) -> None:
        message = JointTrajectory(joint_names=list(self._contract.robot.joints))
        point = JointTrajectoryPoint(positions=[home + 0.1 * np.sin(tick / 100 + 0.1)
                                                for home in self._contract.robot.home_rad])
        point.time_from_start.nanosec = 100_000_000
        message.points.append(point)
        if "arm_command" in self._publishers:
            self._publishers["arm_command"].publish(message)
        self._send("gripper_command", Float64MultiArray(data=[0.04 if tick // 100 % 2 else 0.0]))

    @staticmethod
    def _image(number: int) -> Image:
        pixels = np.full((128, 128, 3), number % 200, np.uint8)
        pixels[number % 128] = 255
        return Image(height=128, width=128, encoding="rgb8", step=384, data=array.array("B", pixels.tobytes()))

    def close(self) -> None:
        """Stop publishing."""
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()


@pytest.fixture
def robot(rclpy_context: None) -> Iterator[Callable[..., Robot]]:
    """Makes robots and stops them."""
    made: list[Robot] = []

    def make(**options: Any) -> Robot:
        made.append(Robot(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# The checks before a recording have tests of their own; in the others a busy machine's gap shall not end it.
UNCHECKED = ("--wait", "30", "--force")


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The recorder from its sources; `ros2` is this machine's, or tools/ros2_standalone."""
    return subprocess.Popen([sys.executable, "-m", "corft.record", *map(str, arguments)], text=True,
                            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
                               "env": environment(), **options})


def environment() -> dict[str, str]:
    sources = [ROOT / "corft_core", ROOT / "ros2_ws/src/corft", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "OMP_NUM_THREADS": "1"}


def finish(process: subprocess.Popen[str], text: str | None = None) -> tuple[int, str]:
    """Exit code and output."""
    try:
        output, _ = process.communicate(text, timeout=2 * PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_scripted_session_becomes_a_data_set(robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot()
    bag = tmp_path / "bags" / "monday"
    script = ("start pick the cube\nwait 2\nsuccess\nwait 0.3\nstart\nstart\nwait 0.5\ndiscard\n# a comment\nnonsense\n"
              "prompt push the cube\nwait 0.3\nstart\nwait 1\nfailure\nquit\n")
    code, output = finish(start(bag, "--contract", CONTRACT, *UNCHECKED, "--operator", "ann"), script)
    assert "start: episode 2 is running" in output and "ignored the line 'nonsense'" in output
    for line in ("episode 1 success", "episode 2 discard", "episode 3 failure",
                 "episodes: 1 success, 1 failure, 1 discard"):
        assert line in output, output
    audit = json.loads((bag / "record.json").read_text())
    assert [e["instruction"] for e in audit["episodes"]] == ["pick the cube", "pick the cube", "push the cube"]
    rows = {row["stream"]: row for row in audit["topics"]}
    assert rows["episode_event"]["messages"] == 9
    assert rows["joint_state"]["in_episodes"] > 50 and rows["front"]["in_episodes"] > 20, output
    # A machine that is busy with other things loses frames, which is then a finding; nothing else may be one.
    assert code == (1 if audit["problems"] else 0)
    assert all("frames are missing" in p or "without a message" in p or "heard" in p for p in audit["problems"]), output
    assert (bag / "record.log").is_file() and not bag.with_name("monday.log").exists()

    assert convert([str(bag), str(tmp_path / "out"), "--include-failures", "--max-stale-share", "1", "--quiet"]) == 0
    assert Contract.load(bag / "contract.json").to_dict() == Contract.load(CONTRACT).to_dict()
    dataset = EpisodeDataset.open(tmp_path / "out")
    assert dataset.instructions == ["pick the cube", "push the cube"]
    assert list(dataset.episode_success) == [True, False]

    code, output = finish(start(bag, "--contract", CONTRACT), "")
    assert code == 2 and "exists already and is not overwritten" in output


def test_sigterm_closes_the_bag_and_discards_the_episode_under_way(robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot()
    bag = tmp_path / "bag"
    process, seen = start_an_episode(bag)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code in (0, 1), seen + output
    assert "episode 1 discard" in output
    assert "episodes: 1 discard" in output
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {t["topic_metadata"]["name"]: t["message_count"] for t in information["topics_with_message_count"]}
    assert counts["/episode_event"] == 3 and counts["/joint_states"] > 20


def test_the_bag_is_closed_when_the_recorder_itself_is_killed(robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot()
    bag = tmp_path / "bag"
    process, _ = start_an_episode(bag)
    process.kill()
    wait_for((bag / "metadata.yaml").is_file, "the orphaned `ros2 bag record` to close its bag")
    process.communicate()


def test_missing_topics_wrong_types_and_qos_mismatches_are_named_before_anything_is_recorded(
        robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot(silent=("wrist",), joints_qos=BEST_EFFORT)
    data = yaml.safe_load(CONTRACT.read_text())
    data["cameras"][0]["type"] = "sensor_msgs/msg/CompressedImage"
    contract = tmp_path / "contract.yaml"
    contract.write_text(yaml.safe_dump(data))
    code, output = finish(start(tmp_path / "bag", "--contract", contract, "--wait", "8", "--prompt", "pick"), "")
    assert code == 2, output
    assert "waiting for wrist (/wrist_camera/image_raw: nobody publishes it)" in output
    assert "ERROR: wrist (/wrist_camera/image_raw): nobody publishes it. There is /front_camera/image_raw." in output
    assert "ERROR: front (/front_camera/image_raw): published as sensor_msgs/msg/Image, the contract says" in output
    assert "ERROR: joint_state (/joint_states): QoS mismatch, nothing would be recorded" in output
    assert "`qos: sensor_data` for joint_state" in output
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("passes", [True, False])
def test_a_gap_that_passes_does_not_end_a_session_and_one_that_stays_does(
        robot: Callable[..., Robot], tmp_path: Path, passes: bool) -> None:
    driver = robot()
    driver.stumbles = True
    recorder = start(tmp_path / "bag", "--contract", CONTRACT, "--wait", "30", "--prompt", "pick")
    heard = ""
    while "Listening once more" not in heard:
        line = recorder.stdout.readline()
        assert line, heard
        heard += line
    driver.stumbles = not passes
    code, output = finish(recorder, "start\nwait 1\nsuccess\n")
    if passes:
        assert "bag:" in output, heard + output
    else:
        assert code == 2 and "without a message, the contract allows" in output, heard + output
        assert not (tmp_path / "bag").exists()


def test_a_qos_mismatch_that_is_forced_shows_as_an_empty_topic(robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot(joints_qos=BEST_EFFORT)
    code, output = finish(start(tmp_path / "bag", "--contract", CONTRACT, "--wait", "1", "--force"),
                          "start pick\nwait 1\nsuccess\n")
    assert code == 1, output
    assert "PROBLEM: joint_state (/joint_states): it was published, 0 messages were heard, none is in the bag" in output


@pytest.mark.slow
def test_keys_on_a_terminal_mark_episodes_and_the_terminal_is_put_back(robot: Callable[..., Robot],
                                                                      tmp_path: Path) -> None:
    robot()
    bag = tmp_path / "bag"
    with Terminal(bag) as terminal:
        terminal.wait_for(b"episodes, 0 successes")
        terminal.type(b"sudo rm -rf /\n")  # pasted by mistake: no start
        terminal.wait_for(b"ignored pasted text")
        time.sleep(0.5)
        terminal.type_until(b"s", b"episode 1 started: 'pick'")
        time.sleep(1.0)
        terminal.type_until(b"y", b"episode 1 success")
        time.sleep(0.5)
        terminal.type(b"p")
        terminal.wait_for(b"prompt: _")
        terminal.type(b"\x1b[200~push the\ncube\x1b[201~")
        time.sleep(0.3)
        terminal.type(b"\r")
        terminal.wait_for(b"prompt: 'push the cube'")
        assert terminal.process.poll() is None
        time.sleep(0.5)
        terminal.type(b"q")
        assert terminal.process.wait(PATIENCE_S) in (0, 1)
        assert termios.tcgetattr(terminal.follower) == terminal.before
    episodes = json.loads((bag / "record.json").read_text())["episodes"]
    assert [(e["outcome"], e["instruction"]) for e in episodes] == [("success", "pick")]


def test_a_lost_connection_ends_the_recording_cleanly(robot: Callable[..., Robot], tmp_path: Path) -> None:
    robot()
    bag = tmp_path / "bag"
    with Terminal(bag, start_new_session=True) as terminal:
        terminal.wait_for(b"episodes, 0 successes")
        terminal.process.send_signal(signal.SIGHUP)
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE_S) in (0, 1)
    assert (bag / "metadata.yaml").is_file() and (bag / "record.json").is_file()


class Terminal:
    """A recorder on a terminal of its own, and all that it has shown there; both end with the block."""

    def __init__(self, bag: Path, **options: Any) -> None:
        self._leader, self.follower = pty.openpty()
        self.before = termios.tcgetattr(self.follower)
        self.process = start(bag, "--contract", CONTRACT, *UNCHECKED, "--prompt", "pick", stdin=self.follower,
                             stdout=self.follower, stderr=self.follower, **options)
        self._shown = bytearray()
        threading.Thread(target=_collect, args=(self._leader, self._shown), daemon=True).start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(self._shown.decode(errors="replace"))
        os.close(self.follower)

    def type(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def hang_up(self) -> None:
        os.close(self._leader)

    def wait_for(self, text: bytes) -> None:
        """Until it is on the screen; fails at once when the recorder has ended."""
        wait_for(lambda: text in self._shown or self.process.poll() is not None, repr(text))
        assert text in self._shown, f"the recorder ended with {self.process.returncode}"

    def type_until(self, keys: bytes, text: bytes) -> None:
        """A key that comes too early is refused: type it again until the recorder has obeyed."""
        deadline_s, sent_s = time.monotonic() + PATIENCE_S, 0.0
        while text not in self._shown:
            assert time.monotonic() < deadline_s and self.process.poll() is None, f"waited for {text!r}"
            if time.monotonic() - sent_s > 1.5:
                self.type(keys)
                sent_s = time.monotonic()
            time.sleep(0.05)


def _collect(fd: int, into: bytearray) -> None:
    try:
        while data := os.read(fd, 4096):
            into.extend(data)
    except OSError:
        return


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The output up to a line with ``text``."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"no line with {text!r}:\n{seen}")


def start_an_episode(bag: Path) -> tuple[subprocess.Popen[str], str]:
    """A recorder in its first episode, and what it said up to there."""
    process = start(bag, "--contract", CONTRACT, *UNCHECKED, "--prompt", "pick")
    assert process.stdin is not None
    process.stdin.write("start\n")
    process.stdin.flush()
    return process, read_until(process, "episode 1 started")
