"""The aligner never looks ahead, takes joints by name, and knows what is missing or old."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE, RED, Messages, square

from corft_core.contract import Contract
from corft_core.data import Aligner, joint_vector
from corft_core.data.align import SampleBuffer
from corft_core.data.messages import MessageError
from corft_core.trajectory import JointPath

CONTRACT = Contract.load(CONTRACT_FILE)
MS = 1_000_000
STREAMS = ("joint_state", "front", "wrist")
BUILD = Messages()


def value_for(stream: str, tag: int) -> np.ndarray:
    """A value in final form that carries ``tag``."""
    return np.full(8, float(tag)) if stream == "joint_state" else np.full((128, 128, 3), tag, np.uint8)


sample_times = st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 1500)), min_size=1, max_size=40)


@given(samples=sample_times, tick_ms=st.integers(0, 1600))
@settings(max_examples=150, deadline=None)
def test_never_newer_than_the_tick_and_the_latest_of_the_older(samples: list[tuple[str, int]], tick_ms: int) -> None:
    aligner = Aligner(CONTRACT)
    latest: dict[str, tuple[int, int]] = {}
    for tag, (stream, ms) in enumerate(samples):
        aligner.push(stream, ms * MS, value_for(stream, tag))
        if ms <= tick_ms and (stream not in latest or ms >= latest[stream][0]):
            latest[stream] = (ms, tag)
    observation = aligner.observation(tick_ms * MS)
    assert all(stamp <= tick_ms * MS for stamp in observation.stamps_ns.values())
    assert observation.stamps_ns == {name: ms * MS for name, (ms, _) in latest.items()}
    for name, value in observation.values.items():
        assert value.reshape(-1)[0] == latest[name][1]
    expected = [name for name in STREAMS
                if name not in latest or (tick_ms - latest[name][0]) * 1e-3 > CONTRACT.stream(name).max_age_s]
    assert observation.missing == expected
    assert set(observation.values) == set(STREAMS) - set(expected)


@given(order=st.permutations(range(9)))
@settings(max_examples=50, deadline=None)
def test_permuted_joints_change_nothing(order: list[int]) -> None:
    names = [*CONTRACT.robot.joints, "panda_finger_joint1", "panda_finger_joint2"]
    positions = [0.1 * k for k in range(7)] + [0.01, 0.01]
    expected = joint_vector(names, positions, CONTRACT)
    assert expected.tolist() == pytest.approx([*positions[:7], 0.25])
    assert np.array_equal(joint_vector([names[k] for k in order], [positions[k] for k in order], CONTRACT), expected)


def test_missing_and_bad_joints_are_named() -> None:
    names = [*CONTRACT.robot.joints, "panda_finger_joint1"]
    with pytest.raises(MessageError, match="lacks panda_joint1, panda_joint2"):
        joint_vector(names[2:], [0.0] * 6, CONTRACT)
    with pytest.raises(MessageError, match="panda_joint3 is not finite"):
        joint_vector(names, [0, 0, np.nan, 0, 0, 0, 0, 0], CONTRACT)
    with pytest.raises(MessageError, match="8 names but 3 positions"):
        joint_vector(names, [0, 0, 0], CONTRACT)


def test_messages_are_decoded_and_prepared() -> None:
    aligner = Aligner(CONTRACT)
    names = [*CONTRACT.robot.joints, "panda_finger_joint1"]
    aligner.push("joint_state", 5 * MS, BUILD.joint_state(0, names, [1, 2, 3, 4, 5, 6, 7, 0.02]))
    aligner.push("front", 6 * MS, BUILD.image(0, square((256, 256)), "bgr8"))
    observation = aligner.observation(10 * MS)
    assert observation.missing == ["wrist"]
    assert observation.values["joint_state"].tolist() == [1, 2, 3, 4, 5, 6, 7, 0.5]
    assert observation.values["front"].shape == (128, 128, 3)
    assert tuple(observation.values["front"][40, 40]) == RED
    assert observation.ages_s == pytest.approx({"joint_state": 0.005, "front": 0.004})


def test_an_old_sample_is_missing_but_its_age_is_told() -> None:
    aligner = Aligner(CONTRACT)
    aligner.push("joint_state", 0, value_for("joint_state", 1))
    observation = aligner.observation(300 * MS)
    assert "joint_state" in observation.missing and "joint_state" not in observation.values
    assert observation.ages_s["joint_state"] == pytest.approx(0.3)


def test_arrays_must_be_in_final_form() -> None:
    with pytest.raises(MessageError, match="final form"):
        Aligner(CONTRACT).push("front", 0, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(KeyError):
        Aligner(CONTRACT).push("side", 0, np.zeros((128, 128, 3), np.uint8))


def test_history_is_bounded_and_time_may_start_anew() -> None:
    buffer = SampleBuffer(history_ns=1000 * MS)
    for ms in range(0, 60_000, 10):
        buffer.push(ms * MS, ms)
    assert len(buffer) <= 102
    buffer.push(0, -1)  # the simulation was restarted
    assert len(buffer) == 1 and buffer.latest(0) == (0, 0)


def path(*points: tuple[float, float]) -> JointPath:
    """A path that moves every joint alike: (time, position) points."""
    times, positions = zip(*points, strict=True)
    return JointPath(CONTRACT.robot.joints, np.array(times), np.tile(np.array(positions)[:, None], 7))


def test_the_action_is_the_setpoint_of_the_running_trajectory() -> None:
    aligner = Aligner(CONTRACT)
    aligner.push("joint_state", 0, np.array([*[1.0] * 7, 0.5]))
    assert aligner.action(0) is None
    aligner.push("arm_command", 0, path((1.0, 2.0)))
    action = aligner.action(500 * MS)
    assert action is not None and action.tolist() == pytest.approx([1.5] * 7 + [0.5])  # from measured; gripper too
    aligner.push("arm_command", 500 * MS, path((0.5, 0.5)))
    aligner.push("gripper_command", 500 * MS, 1.0)
    for ms, expected in ((250, 1.25), (500, 1.5), (750, 1.0), (1000, 0.5), (9000, 0.5)):
        action = aligner.action(ms * MS)
        assert action is not None and action[0] == pytest.approx(expected)
    assert aligner.action(400 * MS)[-1] == 0.5  # type: ignore[index]
    assert aligner.action(600 * MS)[-1] == 1.0  # type: ignore[index]
    aligner.clear_commands(before_ns=400 * MS)  # the second trajectory stays, and now starts where the arm was
    assert aligner.action(750 * MS)[0] == pytest.approx(0.75)  # type: ignore[index]
    aligner.clear_commands()
    assert aligner.action(9000 * MS) is None


def test_a_stamped_trajectory_starts_at_its_stamp() -> None:
    aligner = Aligner(CONTRACT)
    aligner.push("joint_state", 0, np.zeros(8))
    message = BUILD.trajectory(list(reversed(CONTRACT.robot.joints)), [(0.5, np.arange(6, -1, -1)), (1.0, np.zeros(7))])
    message.header = BUILD.header(1000 * MS)
    aligner.push("arm_command", 1200 * MS, message)  # 0.2 s late: 0.3 s remain to the first point
    assert aligner.action(1500 * MS)[:7].tolist() == pytest.approx(range(7))  # type: ignore[index]
    assert aligner.action(1350 * MS)[6] == pytest.approx(3.0)  # type: ignore[index]
    with pytest.raises(MessageError, match="ended"):
        aligner.push("arm_command", 2500 * MS, message)


def test_refused_commands_say_why() -> None:
    aligner = Aligner(CONTRACT)
    with pytest.raises(MessageError, match="lacks panda_joint7"):
        aligner.push("arm_command", 0, BUILD.trajectory(list(CONTRACT.robot.joints[:6]), [(0.1, np.zeros(6))]))
    with pytest.raises(MessageError, match="no points"):
        aligner.push("arm_command", 0, BUILD.trajectory(list(CONTRACT.robot.joints), []))
    with pytest.raises(MessageError, match="one finite position"):
        aligner.push("gripper_command", 0, BUILD.gripper(float("nan")))
