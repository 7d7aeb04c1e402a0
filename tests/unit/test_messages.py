"""Messages of every accepted type are read by name or by field path, calibrated, and refused with the reason."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE, Messages

from corft_core.contract import Contract, field_path
from corft_core.data.messages import (
    MessageError,
    joint_readings,
    make_gripper_position,
    make_reader,
    sample_stamp_ns,
    write_fields,
)
from corft_core.poses import pose_matrices, pose_vector, quaternion_of, vectors_of
from corft_core.trajectory import JointPath

BUILD = Messages()
T = BUILD.t
FINGER = "panda_finger_joint1"


def contract(absolute: bool = True, **streams: dict[str, Any]) -> Contract:
    """The cell's contract with changed streams."""
    plain = yaml.safe_load(CONTRACT_FILE.read_text())
    for name, changes in streams.items():
        plain["streams"][name] |= changes
    if absolute:
        plain["action_representation"] = "absolute"
    return Contract.from_dict(plain)


CELL = contract()
ARM = list(CELL.robot.joints)


def array(values: Any) -> Any:
    return T["std_msgs/msg/Float64MultiArray"](layout=T["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0),
                                               data=np.asarray(values, np.float64))


def pose_message(position: Any, quaternion: Any, frame: str = "panda_link0", stamped: bool = True) -> Any:
    pose = T["geometry_msgs/msg/Pose"](position=T["geometry_msgs/msg/Point"](*map(float, position)),
                                       orientation=T["geometry_msgs/msg/Quaternion"](*map(float, quaternion)))
    if not stamped:
        return pose
    header = BUILD.header(0)
    header.frame_id = frame
    return T["geometry_msgs/msg/PoseStamped"](header=header, pose=pose)


def twist_message(linear: Any, angular: Any, frame: str = "") -> Any:
    vector = T["geometry_msgs/msg/Vector3"]
    header = BUILD.header(0)
    header.frame_id = frame
    return T["geometry_msgs/msg/TwistStamped"](header=header, twist=T["geometry_msgs/msg/Twist"](
        linear=vector(*map(float, linear)), angular=vector(*map(float, angular))))


@given(order=st.permutations(range(8)), extra=st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_the_order_of_joints_in_a_message_changes_nothing(order: list[int], extra: int) -> None:
    names, values = [*ARM, FINGER], [0.1 * k for k in range(7)] + [0.01]
    mixed = [names[k] for k in order]
    mixed.insert(extra, "another_joint")
    positions = [values[k] for k in order]
    positions.insert(extra, 99.0)
    state = make_reader(CELL, "joint_state")(BUILD.joint_state(0, mixed, positions))
    assert np.array_equal(state, [*values[:7], 0.25])
    trajectory = make_reader(CELL, "arm_command")(BUILD.trajectory(mixed, [(0.5, positions)]))
    assert isinstance(trajectory, JointPath) and np.array_equal(trajectory.positions[0], values[:7])
    leader = contract(arm_command={"type": "sensor_msgs/msg/JointState"},
                      gripper_command={"type": "sensor_msgs/msg/JointState"})
    message = BUILD.joint_state(0, mixed, positions)
    assert np.array_equal(make_reader(leader, "arm_command")(message), values[:7])
    assert make_reader(leader, "gripper_command")(message) == 0.25


def test_a_joint_state_of_some_joints_leaves_the_others_open() -> None:
    read = make_reader(CELL, "joint_state")
    state = read(BUILD.joint_state(0, [FINGER, "panda_joint2"], [0.04, 0.5]))
    assert state[1] == 0.5 and state[-1] == 1.0 and np.isnan(state).sum() == 6
    with pytest.raises(MessageError, match="no joint of the contract, it has wheel"):
        read(BUILD.joint_state(0, ["wheel"], [1.0]))


def test_units_names_scales_and_offsets_of_a_stream() -> None:
    robot = contract(
        joint_state={"joints": {"panda_joint1": {"name": "j1", "unit": "deg", "scale": -1.0, "offset": 0.1},
                                FINGER: {"unit": "mm"}}},
        arm_command={"joints": {"panda_joint1": {"name": "j1", "unit": "deg"}}},
        gripper_command={"joints": {FINGER: {"scale": 0.04 / 255}}})
    names = ["j1", *ARM[1:], FINGER]
    state = make_reader(robot, "joint_state")(BUILD.joint_state(0, names, [90.0, 0, 0, 0, 0, 0, 0, 20.0]))
    assert state[0] == pytest.approx(0.1 - np.pi / 2) and state[-1] == pytest.approx(0.5)
    path = make_reader(robot, "arm_command")(BUILD.trajectory(names, [(1.0, [180.0] + [0.0] * 7)]))
    assert path.names == robot.robot.joints and path.positions[0, 0] == pytest.approx(np.pi)
    assert make_reader(robot, "gripper_command")(array([255.0])) == pytest.approx(1.0)
    assert make_gripper_position(robot)(array([510.0])) == pytest.approx(0.08)  # past its end, as the report wants it
    message = BUILD.joint_state(0, names, [90.0, 0, 0, 0, 0, 0, 0, 20.0])
    message.velocity = np.array([10.0, 0, 0, 0, 0, 0, 0, 0])
    positions, velocities = joint_readings(message, robot)
    assert positions[0] == state[0] and velocities[0] == pytest.approx(-np.pi / 18) and len(positions) == 7
    assert np.isnan(joint_readings(BUILD.joint_state(0, names[1:], [0.0] * 7), robot)[1]).all()


def test_arrays_and_field_paths() -> None:
    plain = contract(arm_command={"type": "std_msgs/msg/Float64MultiArray"})
    assert make_reader(plain, "arm_command")(array(range(7))).tolist() == list(range(7))
    with pytest.raises(MessageError, match="8 values for the arm's 7 joints"):
        make_reader(plain, "arm_command")(array(range(8)))
    both = contract(arm_command={"type": "std_msgs/msg/Float64MultiArray", "fields": ["data[0:7]"]},
                    gripper_command={"fields": ["data[7]"]})
    message = array([*range(7), 0.02])
    assert make_reader(both, "arm_command")(message).tolist() == list(range(7))
    assert make_reader(both, "gripper_command")(message) == pytest.approx(0.5)
    with pytest.raises(MessageError, match=r"data has no \[3\]; the contract asks for data\[0\]"):
        make_reader(both, "arm_command")(array(range(3)))
    with pytest.raises(MessageError, match=r"data\[2\] is not finite"):
        make_reader(both, "arm_command")(array([0, 0, np.nan, 0, 0, 0, 0]))
    own = contract(joint_state={"type": "my/msg/Arm", "fields": [*(f"arm.q[{i}]" for i in range(7)), "grip.width"]})
    state = make_reader(own, "joint_state")(SimpleNamespace(arm=SimpleNamespace(q=[0.5] * 7),
                                                            grip=SimpleNamespace(width=0.01)))
    assert state.tolist() == [0.5] * 7 + [0.25]
    with pytest.raises(MessageError, match=r"SimpleNamespace has no arm"):
        make_reader(own, "joint_state")(SimpleNamespace())


def test_extra_observations_are_scaled_fields() -> None:
    plain = CELL.to_dict() | {"observations": [{
        "name": "wrench", "topic": "w", "type": "geometry_msgs/msg/Wrench", "stamp": "receive", "max_age_s": 1.0,
        "fields": ["force.x", "torque.z"], "scale": 2.0, "offset": 1.0}]}
    vector = T["geometry_msgs/msg/Vector3"]
    message = T["geometry_msgs/msg/Wrench"](force=vector(1.0, 2.0, 3.0), torque=vector(4.0, 5.0, 6.0))
    assert make_reader(Contract.from_dict(plain), "wrench")(message).tolist() == [3.0, 13.0]


unit = st.floats(-1, 1)


@given(position=st.tuples(unit, unit, unit), raw=st.tuples(unit, unit, unit, unit), stamped=st.booleans())
@settings(max_examples=100, deadline=None)
def test_poses_and_their_vectors_are_inverse(position: tuple[float, ...], raw: tuple[float, ...],
                                             stamped: bool) -> None:
    length = float(np.linalg.norm(raw))
    quaternion = np.array(raw) / length if length > 1e-3 else np.array([0.0, 0.0, 0.0, 1.0])
    robot = contract(arm_command={"type": f"geometry_msgs/msg/Pose{'Stamped' if stamped else ''}"})
    vector = make_reader(robot, "arm_command")(pose_message(position, quaternion * 1.001, stamped=stamped))
    matrix = pose_matrices(vector)
    assert matrix[:3, :3] @ matrix[:3, :3].T == pytest.approx(np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)
    assert matrix[:3, 3] == pytest.approx(position) and vectors_of(matrix) == pytest.approx(vector)
    again = quaternion_of(matrix)
    assert min(np.abs(again - quaternion).max(), np.abs(again + quaternion).max()) < 1e-6
    probe = np.array([0.3, -0.2, 0.9])
    x, w = quaternion[:3], quaternion[3]
    rotated = probe + 2 * np.cross(x, np.cross(x, probe) + w * probe)
    assert matrix[:3, :3] @ probe == pytest.approx(rotated, abs=1e-9)


def test_poses_and_twists_that_mean_nothing_are_refused() -> None:
    read = make_reader(contract(arm_command={"type": "geometry_msgs/msg/PoseStamped"}), "arm_command")
    for quaternion in ((0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, float("nan"))):
        with pytest.raises(MessageError, match=r"expected 1|not finite"):
            read(pose_message((0, 0, 0), quaternion))
    with pytest.raises(MessageError, match="frame_id is 'camera_link'"):
        read(pose_message((0, 0, 0), (0, 0, 0, 1), frame="camera_link"))
    assert len(read(pose_message((0, 0, 0), (0, 0, 0, 1), frame="/panda_link0"))) == 9
    twist = make_reader(contract(arm_command={"type": "geometry_msgs/msg/TwistStamped"}), "arm_command")
    assert twist(twist_message((1, 2, 3), (4, 5, 6))).tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(MessageError, match="frame_id is 'tool'"):
        twist(twist_message((0, 0, 0), (0, 0, 0), frame="tool"))
    with pytest.raises(MessageError, match="vy is not finite"):
        twist(twist_message((0, np.inf, 0), (0, 0, 0)))
    with pytest.raises(ValueError, match="defines no rotation"):
        pose_matrices(np.zeros(9))
    assert pose_vector((0, 0, 0), (0, 0, 0, 1)).tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0]


@given(st.recursive(st.none() | st.floats() | st.text(max_size=3),
                    lambda inner: st.dictionaries(st.sampled_from(["name", "position", "data", "points", "pose", "x"]),
                                                  inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=8))
@settings(max_examples=150, deadline=None)
def test_any_other_object_gives_a_message_error_and_nothing_else(data: Any) -> None:
    message = SimpleNamespace(**data) if isinstance(data, dict) else SimpleNamespace(data=data)
    for kind in ("trajectory_msgs/msg/JointTrajectory", "sensor_msgs/msg/JointState", "geometry_msgs/msg/Pose",
                 "std_msgs/msg/Float64MultiArray", "geometry_msgs/msg/Twist"):
        robot = contract(arm_command={"type": kind})
        for name in ("joint_state", "arm_command", "gripper_command"):
            with contextlib.suppress(MessageError):
                make_reader(robot, name)(message)


def test_fields_are_written_where_they_are_read() -> None:
    message = SimpleNamespace(data=[], pose=SimpleNamespace(x=0.0), on=False, count=3)
    write_fields(message, ["data[2]", "pose.x", "on", "count"], [5.0, 1.5, 1.0, 7.0])
    assert message.data == [0.0, 0.0, 5.0] and message.pose.x == 1.5 and message.on is True and message.count == 7
    assert field_path.read(message, "data[2]") == 5.0
    for path in ("pose.y", "none.x"):
        with pytest.raises(MessageError, match="cannot be filled"):
            write_fields(message, [path], [1.0])


def test_the_stamp_of_a_sample() -> None:
    stamped, unset = BUILD.joint_state(5, ARM, [0.0] * 7), BUILD.joint_state(0, ARM, [0.0] * 7)
    assert sample_stamp_ns(CELL.joint_state, stamped, 9) == 5 and sample_stamp_ns(CELL.joint_state, unset, 9) == 9
    assert sample_stamp_ns(CELL.stream("gripper_command"), stamped, 9) == 9  # receive
    assert sample_stamp_ns(CELL.joint_state, array([1.0]), 9) == 9
