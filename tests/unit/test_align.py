"""The aligner never looks ahead, takes joints by name, and knows what is missing or old."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE, RED, Messages, square
from test_messages import contract as changed_contract
from test_messages import pose_message, twist_message

from corft_core.contract import Contract
from corft_core.data import Aligner, joint_vector
from corft_core.data.buffers import SampleBuffer
from corft_core.data.commands import command_moves
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


NAMES = [*CONTRACT.robot.joints, "panda_finger_joint1"]
parts = st.lists(st.tuples(st.integers(0, 1500), st.sets(st.integers(0, 7), min_size=1)), min_size=1, max_size=30)


@given(samples=parts, tick_ms=st.integers(0, 1600))
@settings(max_examples=150, deadline=None)
def test_every_joint_of_several_publishers_has_its_own_latest_value_and_age(
        samples: list[tuple[int, set[int]]], tick_ms: int) -> None:
    aligner = Aligner(CONTRACT)
    latest: dict[int, tuple[int, float]] = {}
    for tag, (ms, joints) in enumerate(samples):
        aligner.push("joint_state", ms * MS, BUILD.joint_state(
            0, [NAMES[j] for j in joints], [0.001 * (tag + 1) for _ in joints]))
    for (ms, joints), tag in sorted(((sample, tag) for tag, sample in enumerate(samples)), key=lambda x: x[0][0]):
        for j in joints if ms <= tick_ms else ():
            latest[j] = (ms, 0.001 * (tag + 1))
    observation = aligner.observation(tick_ms * MS)
    assert observation.joint_ages_s == pytest.approx(
        {NAMES[j]: (tick_ms - ms) * 1e-3 for j, (ms, _) in sorted(latest.items())})
    if len(latest) < 8:
        assert "joint_state" in observation.missing and "joint_state" not in observation.stamps_ns
        return
    oldest = min(ms for ms, _ in latest.values())
    assert observation.stamps_ns["joint_state"] == oldest * MS
    assert ("joint_state" in observation.missing) is (tick_ms - oldest > 250)
    ties = {j for j, (ms, _) in latest.items() if sum(m == ms and j in k for m, k in samples) > 1}
    for j, (_, value) in latest.items():
        if "joint_state" in observation.values and j not in ties:
            expected = value if j < 7 else CONTRACT.gripper.to_opening(value)  # type: ignore[union-attr]
            assert observation.values["joint_state"][j] == pytest.approx(expected)


@given(samples=sample_times, tick_ms=st.integers(0, 5000))
@settings(max_examples=80, deadline=None)
def test_held_streams_are_never_stale_but_their_age_is_told(samples: list[tuple[str, int]], tick_ms: int) -> None:
    plain = CONTRACT.to_dict()
    plain["streams"]["joint_state"]["on_stale"] = plain["cameras"][0]["on_stale"] = "hold"
    dropping, holding = Aligner(CONTRACT), Aligner(Contract.from_dict(plain))
    for tag, (stream, ms) in enumerate(samples):
        for aligner in (dropping, holding):
            aligner.push(stream, ms * MS, value_for(stream, tag))
    dropped, held = dropping.observation(tick_ms * MS), holding.observation(tick_ms * MS)
    assert held.ages_s == dropped.ages_s and held.stamps_ns == dropped.stamps_ns
    for name in ("joint_state", "front"):
        assert (name in held.values) is (name in held.ages_s)
    assert ("wrist" in held.missing) is ("wrist" in dropped.missing)
    for name, value in dropped.values.items():
        assert np.array_equal(held.values[name], value)


@given(stamps=st.lists(st.integers(0, 3000), min_size=1, max_size=40), tick_ms=st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_stamps_that_go_back_never_bring_in_the_future(stamps: list[int], tick_ms: int) -> None:
    aligner = Aligner(CONTRACT, history_s=1.0)
    for tag, ms in enumerate(stamps):
        aligner.push("front", ms * MS, value_for("front", tag % 250))
    observation = aligner.observation(tick_ms * MS)
    if "front" in observation.stamps_ns:
        assert observation.stamps_ns["front"] <= tick_ms * MS
        assert observation.stamps_ns["front"] // MS in stamps
        assert observation.ages_s["front"] == pytest.approx((tick_ms - observation.stamps_ns["front"] / MS) * 1e-3)


def test_a_frame_that_cannot_be_decoded_gives_way_to_the_one_before_and_is_counted() -> None:
    for pool in (None, ThreadPoolExecutor(2)):
        aligner = Aligner(CONTRACT)
        aligner.push("front", 0, BUILD.image(0, square((128, 128))))
        broken = BUILD.image(0, square((128, 128)), "png")
        broken.data = broken.data[:30]
        aligner.push("front", 50 * MS, broken)
        if pool is not None:
            aligner.prefetch(100 * MS, pool)
        observation = aligner.observation(100 * MS)
        assert observation.stamps_ns["front"] == 0 and tuple(observation.values["front"][40, 40]) == RED
        assert aligner.undecodable == {"front": 1} and "camera front" in aligner.undecodable_reason["front"]
        aligner.observation(120 * MS)
        assert aligner.undecodable == {"front": 1}


def test_prefetched_images_are_those_decoded_on_demand() -> None:
    with ThreadPoolExecutor(2) as pool:
        seen = []
        for prefetches in (False, True):
            aligner = Aligner(CONTRACT)
            for k in range(5):
                aligner.push("front", k * MS, BUILD.image(0, square((200, 300), (k, 50 * k, 200)), "jpeg"))
                if prefetches:
                    aligner.prefetch(k * MS, pool)
            seen.append([aligner.observation(k * MS).values["front"] for k in range(5)])
        assert np.array_equal(*seen)


def test_extra_observations_follow_the_joints_in_the_state() -> None:
    plain = CONTRACT.to_dict() | {"observations": [{"name": "load", "topic": "load", "type": "std_msgs/msg/Float64",
                                                    "stamp": "receive", "max_age_s": 0.1, "fields": ["data"]}]}
    aligner = Aligner(Contract.from_dict(plain))
    aligner.push("joint_state", 0, value_for("joint_state", 1))
    aligner.push("load", 0, BUILD.t["std_msgs/msg/Float64"](data=7.0))
    values = aligner.observation(0).values
    assert aligner.state(values).tolist() == [1.0] * 8 + [7.0]
    assert aligner.observation(200 * MS).missing == ["front", "wrist", "load"]


def test_commands_of_other_types_hold_and_twists_run_out() -> None:
    joints = Aligner(changed_contract(arm_command={"type": "sensor_msgs/msg/JointState"}))
    joints.push("joint_state", 0, value_for("joint_state", 0))
    joints.push("arm_command", 10 * MS, BUILD.joint_state(0, list(reversed(CONTRACT.robot.joints)), range(7)))
    assert joints.action(9 * MS) is None
    assert joints.action(9000 * MS).tolist() == [*range(6, -1, -1), 0.0]  # type: ignore[union-attr]
    poses = Aligner(changed_contract(arm_command={"type": "geometry_msgs/msg/PoseStamped"}))
    poses.push("arm_command", 0, pose_message((0.1, 0.2, 0.3), (0, 0, 0, 1)))
    assert poses.action(0) is None  # neither a gripper command nor a measured opening yet
    poses.push("gripper_command", 0, 0.5)
    assert poses.action(9000 * MS).tolist() == [0.1, 0.2, 0.3, 1, 0, 0, 0, 1, 0, 0.5]  # type: ignore[union-attr]
    for on_stale, later in (("drop", 0.0), ("hold", 1.0)):
        twists = Aligner(changed_contract(arm_command={"type": "geometry_msgs/msg/TwistStamped", "max_age_s": 0.2,
                                                       "on_stale": on_stale}))
        twists.push("gripper_command", 0, 0.5)
        twists.push("arm_command", 0, twist_message((1, 1, 1), (1, 1, 1)))
        assert twists.action(200 * MS).tolist() == [1.0] * 6 + [0.5]  # type: ignore[union-attr]
        assert twists.action(201 * MS).tolist() == [later] * 6 + [0.5]  # type: ignore[union-attr]
        twists.clear_commands()
        assert twists.action(201 * MS) is None


@pytest.mark.parametrize("kind,rest,small,large", [
    ("sensor_msgs/msg/JointState", [0.3] * 7, 0.004, 0.006), ("geometry_msgs/msg/Pose", [0.3] * 9, 0.001, 0.003),
    ("geometry_msgs/msg/Twist", [0.0] * 6, 0.004, 0.006)])
def test_an_idle_command_is_told_from_one_that_moves(kind: str, rest: list[float], small: float, large: float) -> None:
    robot, held = changed_contract(arm_command={"type": kind}), np.array([*rest, 0.5])
    for change, moves in ((0.0, False), (small, False), (large, True)):
        action = held.copy()
        action[1] += change
        assert command_moves(robot, action, held) is moves
    assert command_moves(robot, held + 0.1 * np.eye(len(held))[-1], held)
    assert not command_moves(robot, held, None)


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
