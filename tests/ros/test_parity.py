"""One recording, played through the converter and through the live policy's input path: every feature is equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import CONTRACT_FILE, Recording, Take
from rosbags.rosbag2 import Reader

from corft_core.contract import CameraStream, Contract
from corft_core.data import Aligner, EpisodeDataset, camera_image
from corft_core.data.align import AlignedObservation
from corft_core.data.bag_converter import LATENESS_NS, ConvertOptions
from corft_core.data.convert import convert

pytestmark = pytest.mark.ros


def robot(on_stale: str) -> Contract:
    """The cell's contract with a crop, another size, a renamed joint in degrees, and a stream that goes stale."""
    plain = Contract.load(CONTRACT_FILE).to_dict()
    plain["cameras"][0] |= {"size": [48, 64], "crop": [10, 20, 96, 100], "max_age_s": 0.12, "on_stale": on_stale}
    plain["cameras"][1] |= {"size": [96, 72]}
    plain["streams"]["joint_state"] |= {"max_age_s": 0.12, "on_stale": on_stale, "joints": {
        "panda_joint3": {"unit": "deg", "scale": -1.0, "offset": 0.2}}}
    return Contract.from_dict(plain)


class Converted(Aligner):
    """The converter's aligner, which notes what it answers."""

    observations: list[AlignedObservation]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Converted.observations = []

    def observation(self, tick_ns: int) -> AlignedObservation:
        found = super().observation(tick_ns)
        Converted.observations.append(found)
        return found


def live_observations(bag: Path, contract: Contract, ticks: list[int]) -> list[AlignedObservation]:
    """What the policy's aligner answers at ``ticks`` when the bag's messages come in through its subscriptions."""
    import rclpy
    from rclpy.serialization import deserialize_message

    from corft.camera_node import rgb_message
    from corft.image_views import read_image
    from corft.node_base import message_type
    from corft.policy.inputs import PolicyInputs

    node, aligner = rclpy.create_node("parity"), Aligner(contract, LATENESS_NS * 1e-9 + 1.0)
    inputs = PolicyInputs(node, contract, aligner, "camera_node/{camera}/image", lambda event: None)
    streams = {f"/{stream.topic}": name for name, stream in contract.streams.items()}
    waiting, answers = list(ticks), []
    with Reader(bag) as reader:
        for connection, receive_ns, data in reader.messages():
            while waiting and receive_ns > waiting[0] + LATENESS_NS // 2:
                answers.append(aligner.observation(waiting.pop(0)))
            name = streams[connection.topic.removesuffix("/compressed")]
            if name not in contract.observation_streams:
                continue
            stream = contract.stream(name)
            if isinstance(stream, CameraStream):  # as camera_node does
                view = read_image(bytes(data), connection.msgtype)
                message = rgb_message(camera_image(view, stream))
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(view.stamp_ns, 1_000_000_000)
                inputs._image_reader(name)(message)
            else:
                inputs._reader(name)(deserialize_message(bytes(data), message_type(connection.msgtype)))
    answers += [aligner.observation(tick) for tick in waiting]
    node.destroy_node()
    return answers


@pytest.mark.parametrize("on_stale", ["drop", "hold"])
@pytest.mark.parametrize("encoding", ["bgr8", "jpeg"])
def test_converter_and_live_policy_see_the_same(rclpy_context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                encoding: str, on_stale: str) -> None:
    contract = robot(on_stale)
    lost = np.random.default_rng(0)
    recording = Recording(contract, [Take(duration_s=2.0), Take(duration_s=1.5)], encoding=encoding,
                          image_size=(120, 160),
                          drop=lambda name, stamp: name in ("front", "joint_state") and lost.uniform() < 0.6)
    bag = recording.write(tmp_path / "bag")
    monkeypatch.setattr("corft_core.data.bag_converter.Aligner", Converted)
    convert([bag], tmp_path / "out", contract, ConvertOptions(max_stale_share=1.0, max_gap_s=10.0))
    converted = Converted.observations
    live = live_observations(bag, contract, [found.tick_ns for found in converted])
    assert len(live) == len(converted) >= 30
    assert any(found.missing for found in converted) is (on_stale == "drop")
    for ours, theirs in zip(converted, live, strict=True):
        assert (ours.tick_ns, ours.missing, ours.stamps_ns, ours.ages_s, ours.joint_ages_s) == (
            theirs.tick_ns, theirs.missing, theirs.stamps_ns, theirs.ages_s, theirs.joint_ages_s)
        assert ours.values.keys() == theirs.values.keys()
        for name, value in ours.values.items():
            assert np.array_equal(value, theirs.values[name]), name
            assert value.dtype == theirs.values[name].dtype
    data = EpisodeDataset.open(tmp_path / "out")
    by_tick = {found.tick_ns: found for found in live}
    for row, tick_ns in enumerate(data.column("source.tick_ns").tolist()):
        if "joint_state" in by_tick[tick_ns].values:
            assert np.array_equal(data.state[row], by_tick[tick_ns].values["joint_state"].astype(np.float32))
        for name in contract.observation_streams:
            assert data.column(f"source.{name}.stamp_ns")[row] == by_tick[tick_ns].stamps_ns[name]
