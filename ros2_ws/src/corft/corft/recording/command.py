"""What is recorded for a contract, and the `ros2 bag record` command line that records it.

Written to the options that ROS 2's recorder documents; which spelling this machine's recorder takes is read from
its ``--help``. No ROS in here.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from corft_core import files
from corft_core.contract import CameraStream, Contract
from corft_core.data.topics import CLOCK_TOPIC
from corft_core.errors import CorftError

Role = Literal["observation", "command", "event", "extra"]
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
PRESETS = ("none", "fastwrite", "zstd_fast", "zstd_small")
# Some seconds of two raw cameras; rosbag2 holds two such buffers.
CACHE_BYTES = 256 * 2**20
# Queues of the recorder's subscriptions: a second of images, several of anything else.
IMAGE_DEPTH, DEPTH = 30, 1000
_COMMANDS = ("arm_command", "gripper_command")


@dataclass(frozen=True)
class RecordedTopic:
    """A topic to record. ``topic`` is its full name, ``stream`` the contract's name for it (or the topic itself).

    ``type`` and ``qos`` are empty for topics that the contract does not know: whatever is published is taken.
    """

    stream: str
    topic: str
    type: str = ""
    qos: str = ""
    role: Role = "extra"
    camera: bool = False
    stamped: bool = False
    max_age_s: float = float("inf")


def full_name(topic: str, namespace: str = "") -> str:
    """The topic's name with its namespace and a leading slash."""
    if topic.startswith("/"):
        return topic
    return "/" + "/".join(part for part in (namespace.strip("/"), topic) if part)


def recorded_topics(contract: Contract, namespace: str = "", *, compressed: bool = False, extra: Iterable[str] = (),
                    use_sim_time: bool = False) -> tuple[RecordedTopic, ...]:
    """The contract's topics, ``extra`` ones and, in simulated time, /clock.

    ``compressed`` takes ``<topic>/compressed`` in the place of raw camera topics. Raises CorftError when the contract
    has no topic for episode events, since the recorder marks episodes there.
    """
    if "episode_event" not in contract.streams:
        raise CorftError("the contract has no stream episode_event, on which episodes are marked. Add one "
                         "(streams.episode_event), or record one bag an episode with the line that "
                         "`ros2 run corft record --print-command` prints.")
    topics: dict[str, RecordedTopic] = {}
    for name, stream in contract.streams.items():
        camera = isinstance(stream, CameraStream)
        topic, kind = stream.topic, stream.type
        if camera and compressed and kind != COMPRESSED_TYPE:
            topic, kind = f"{topic}/compressed", COMPRESSED_TYPE
        role: Role = "command" if name in _COMMANDS else "event" if name == "episode_event" else "observation"
        full = full_name(topic, namespace)
        # Arm and gripper may come in one message.
        topics.setdefault(full, RecordedTopic(name, full, kind, stream.qos, role, camera, stream.stamp == "header",
                                              stream.max_age_s))
    for name in (*extra, *([CLOCK_TOPIC] if use_sim_time else [])):
        topics.setdefault(full_name(name), RecordedTopic(full_name(name), full_name(name)))
    return tuple(topics.values())


def qos_overrides(topics: Sequence[RecordedTopic], reliable: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """rosbag2's overrides: topic → history, depth, reliability, durability.

    Reliability is the contract's, as the nodes subscribe; topics in ``reliable``, whose publishers are known to offer
    it, are recorded reliably all the same. Topics outside the contract are left to the recorder, which takes what
    their publishers offer.
    """
    return {topic.topic: {
        "history": "keep_last", "depth": IMAGE_DEPTH if topic.camera else DEPTH,
        "reliability": "reliable" if topic.qos == "reliable" or topic.topic in reliable else "best_effort",
        "durability": "volatile",
    } for topic in topics if topic.qos}


def qos_text(contract: Contract, topics: Sequence[RecordedTopic], reliable: Collection[str] = ()) -> str:
    """The overrides as a YAML file."""
    head = (f"# QoS of the recorder's subscriptions for the contract of {contract.robot.name}, for\n"
            "# `ros2 bag record --qos-profile-overrides-path`. Made by `ros2 run corft record --write-qos FILE`.\n")
    return head + yaml.safe_dump(qos_overrides(topics, reliable), sort_keys=False)


def write_qos(path: Path, contract: Contract, topics: Sequence[RecordedTopic],
              reliable: Collection[str] = ()) -> None:
    """Write the overrides file."""
    files.write_text(path, qos_text(contract, topics, reliable))


def record_command(topics: Sequence[RecordedTopic], out: Path | str, qos_file: Path | str, *, preset: str = "zstd_fast",
                   use_sim_time: bool = False, positional: bool = False, keyboard: bool = True) -> list[str]:
    """The `ros2 bag record` command. ``positional`` is the spelling of releases before ros2bag 0.28.

    ``keyboard`` False adds the option that keeps the recorder's hands off the terminal.
    """
    names = [topic.topic for topic in topics]
    options = ["--storage", "mcap", "--storage-preset-profile", preset, "--max-cache-size", str(CACHE_BYTES),
               "--qos-profile-overrides-path", str(qos_file), "--output", str(out)]
    if use_sim_time:
        options.append("--use-sim-time")
    if not keyboard:
        options.append("--disable-keyboard-controls")
    # An option that takes many values would swallow topics given by position: those come first.
    return ["ros2", "bag", "record", *(names if positional else []), *options,
            *([] if positional else ["--topics", *names])]


def recorder_help() -> str:
    """What `ros2 bag record --help` says. Raises CorftError without a `ros2` command."""
    try:
        result = subprocess.run(["ros2", "bag", "record", "--help"], capture_output=True, text=True, check=False,
                                stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise CorftError("`ros2` was not found. Type `. tools/env.sh`, or source your ROS 2 installation and "
                         "`. install/setup.bash`.") from None
    if result.returncode != 0:
        raise CorftError(f"`ros2 bag record --help` ended with status {result.returncode}: {result.stderr.strip()}. "
                         "Install your distribution's ros2bag and rosbag2-storage-mcap packages.")
    return result.stdout


def command_for_this_machine(topics: Sequence[RecordedTopic], out: Path, qos_file: Path, preset: str,
                             use_sim_time: bool) -> list[str]:
    """`record_command` in the spelling of the recorder that is installed here."""
    text = recorder_help()
    return record_command(topics, out, qos_file, preset=preset, use_sim_time=use_sim_time,
                          positional="--topics" not in text, keyboard="--disable-keyboard-controls" not in text)


def command_text(topics: Sequence[RecordedTopic], out: str, preset: str, use_sim_time: bool) -> str:
    """Both spellings of the command as shell lines, with the overrides file they name."""
    qos_file = "qos_overrides.yaml"

    def line(positional: bool) -> str:
        return shlex.join(record_command(topics, out, qos_file, preset=preset, use_sim_time=use_sim_time,
                                         positional=positional))

    return (f"# {qos_file} comes from: ros2 run corft record --write-qos {qos_file}\n"
            f"# ros2bag 0.28 and later (its --help lists --topics):\n{line(False)}\n# before:\n{line(True)}\n")
