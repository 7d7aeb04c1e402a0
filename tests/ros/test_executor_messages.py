"""Messages in and out of the executor: any robot's units and names, Cartesian chunks, what a controller wants."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from corft_msgs.msg import ActionChunk, ExecutionStatus
from geometry_msgs.msg import PoseStamped, Twist
from ros.graph import CONTRACT
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectoryPoint

from corft.chunk_messages import chunk_message, duration_message, time_message
from corft.executor.controller_traits import Sending
from corft.executor.messages import (
    JointStates,
    chunk_from_message,
    pose_from_message,
    setpoint_from_message,
    stamp_ns,
    trajectory_message,
)
from corft.policy.executor_link import continued
from corft.policy.predictor import shifted
from corft_core.contract import Contract
from corft_core.data.messages import MessageError
from corft_core.execution import Command, Reason, RefusedError
from corft_core.poses import vectors_of
from corft_core.trajectory import JointPath

pytestmark = pytest.mark.ros
PLAIN = yaml.safe_load(CONTRACT.read_text())
STEP_NS = 100_000_000


def contract(**changes: Any) -> Contract:
    data = copy.deepcopy(PLAIN)
    for key, value in changes.items():
        if key == "gripper" and value is None:
            del data["gripper"], data["streams"]["gripper_command"]
        elif key in data["streams"]:
            data["streams"][key].update(value)
        else:
            data[key] = value
    return Contract.from_dict(data)


def message_of(robot: Contract, actions: np.ndarray) -> ActionChunk:
    return chunk_message(robot, 5_000_000_000, actions, chunk_number=3, policy_id="p", value=0.5, inference_s=0.01)


def test_joint_chunks_come_back_as_they_were() -> None:
    robot = contract()
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 8))
    actions[:, 7] = np.linspace(0, 1, 6)
    chunk = chunk_from_message(message_of(robot, actions), robot)
    np.testing.assert_allclose(chunk.positions, actions[:, :7])
    np.testing.assert_allclose(chunk.gripper, actions[:, 7])
    assert (chunk.stamp_ns, chunk.dt_s, chunk.number) == (5_000_000_000, 0.1, 3) and chunk.tool_poses is None


def test_a_robot_without_a_gripper_has_chunks_without_one() -> None:
    robot = contract(gripper=None)
    message = message_of(robot, np.zeros((4, 7)))
    assert len(message.gripper) == 0 and chunk_from_message(message, robot).gripper is None


def test_tool_poses_and_twists_come_back_as_they_were() -> None:
    angle = 0.4
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    pose[:3, 3] = (0.4, -0.1, 0.3)
    robot = contract(action_representation="absolute", arm_command={
        "topic": "servo/pose", "type": "geometry_msgs/msg/PoseStamped"})
    message = message_of(robot, np.tile(np.append(vectors_of(pose), 1.0), (5, 1)))
    assert not message.trajectory.joint_names and len(message.tool_poses) == 5
    chunk = chunk_from_message(message, robot)
    assert chunk.tool_poses is not None and chunk.positions.shape == (5, 0)
    np.testing.assert_allclose(chunk.tool_poses, np.tile(pose, (5, 1, 1)), atol=1e-12)
    message.header.frame_id = "camera"
    with pytest.raises(RefusedError, match="expected the base frame panda_link0"):
        chunk_from_message(message, robot)
    message.header.frame_id = ""
    message.tool_poses[2].orientation.w = 5.0
    with pytest.raises(RefusedError, match=r"pose 2.*expected 1"):
        chunk_from_message(message, robot)
    robot = contract(action_representation="absolute", arm_command={
        "topic": "servo/twist", "type": "geometry_msgs/msg/TwistStamped"})
    twists = np.arange(14.0).reshape(2, 7) / 20
    chunk = chunk_from_message(message_of(robot, twists), robot)
    assert chunk.tool_twists is not None
    np.testing.assert_allclose(chunk.tool_twists, twists[:, :6])


@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda m: m.trajectory.points.clear(), Reason.MALFORMED),
    (lambda m: m.trajectory.points[1].positions.pop(), Reason.MALFORMED),
    (lambda m: setattr(m.trajectory.points[2], "time_from_start", duration_message(1)), Reason.MALFORMED),
    (lambda m: setattr(m, "tool_twists", [Twist()] * 4), Reason.MALFORMED),
])
def test_what_makes_no_table_is_refused(spoil: Any, reason: Reason) -> None:
    robot = contract()
    message = message_of(robot, np.zeros((4, 8)))
    spoil(message)
    with pytest.raises(RefusedError) as caught:
        chunk_from_message(message, robot)
    assert caught.value.refusal.reason == reason


def test_a_target_pose_is_read_in_the_base_frame_only() -> None:
    target = PoseStamped()
    target.pose.orientation.w, target.pose.position.x = 1.0, 0.4
    np.testing.assert_allclose(pose_from_message(target, contract())[:3, 3], (0.4, 0, 0))
    target.header.frame_id = "tool"
    with pytest.raises(RefusedError):
        pose_from_message(target, contract())
    target.header.frame_id, target.pose.position.x = "", float("nan")
    with pytest.raises(RefusedError, match="not finite"):
        pose_from_message(target, contract())


def joint_state(names: list[str], positions: list[float], stamp: int) -> JointState:
    message = JointState(name=names, position=positions)
    message.header.stamp = time_message(stamp)
    return message


def test_joint_states_are_put_together_from_several_publishers_in_the_contracts_units() -> None:
    joints = list(contract().robot.joints)
    robot = contract(joint_state={"joints": {joints[0]: {"name": "base", "unit": "deg", "scale": -1.0, "offset": 0.5}}})
    states = JointStates(robot)
    assert states.update(joint_state(joints[1:4], [0.1, 0.2, 0.3], 3), 9) is None
    assert states.update(joint_state(["elsewhere"], [1.0], 4), 9) is None
    measured = states.update(joint_state(["base", *joints[4:]], [90.0, 0.4, 0.5, 0.6], 5), 9)
    assert measured is not None and measured.stamp_ns == 3, "as old as its oldest joint"
    np.testing.assert_allclose(measured.position, [0.5 - np.pi / 2, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    with pytest.raises(MessageError):
        states.update(joint_state(joints[1:3], [float("nan"), 0.0], 6), 9)


def command(joints: tuple[str, ...]) -> Command:
    times = np.array([0.0, 0.05, 0.1, 0.2])
    positions = np.outer(times**2 * (0.3 - times), np.ones(len(joints)))
    velocities = np.outer(0.6 * times - 3 * times**2, np.ones(len(joints)))
    accelerations = np.outer(0.6 - 6 * times, np.ones(len(joints)))
    return Command("chunk", JointPath(joints, times, positions, velocities, accelerations), 7_000_000_000,
                   7_060_000_000, 7_100_000_000)


def test_a_setpoint_is_read_in_any_order_and_from_the_field_of_every_distribution() -> None:
    robot = contract(arm_command={"joints": {"panda_joint1": {"name": "axis_1", "unit": "deg"}}})
    names = [*robot.robot.joints[:0:-1], "axis_1"]
    point = JointTrajectoryPoint(positions=[*np.arange(6, 0, -1) / 10, 90.0])
    header = JointState().header
    message = SimpleNamespace(header=header, joint_names=names, reference=point)
    assert setpoint_from_message(message, robot) is None, "it has no stamp"
    header.stamp = time_message(7)
    for field in ("reference", "desired"):
        found = setpoint_from_message(SimpleNamespace(**{**vars(message), "reference": None, field: point}), robot)
        assert found is not None and found.stamp_ns == 7
        np.testing.assert_allclose(found.position, [np.pi / 2, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        assert found.scaling == 1.0, "releases before Jazzy do not tell it"
    for told, meant in ((0.4, 0.4), (0.0, 0.0), (1.3, 1.0)):
        found = setpoint_from_message(SimpleNamespace(**vars(message), speed_scaling_factor=told), robot)
        assert found is not None and found.scaling == meant
    assert setpoint_from_message(SimpleNamespace(**vars(message), speed_scaling_factor=float("nan")), robot) is None
    for broken in ([], [*point.positions[:-1], float("nan")]):
        message.reference = JointTrajectoryPoint(positions=broken)
        assert setpoint_from_message(message, robot) is None
    message.reference, message.joint_names = point, ["other", *names[1:]]
    assert setpoint_from_message(message, robot) is None, "a joint is missing"


def test_a_trajectory_goes_out_in_the_controllers_names_and_units() -> None:
    joints = contract().robot.joints
    robot = contract(arm_command={"joints": {joints[6]: {"name": "wrist", "unit": "deg", "scale": 1.0, "offset": 0.1}}})
    sent = trajectory_message(command(joints), robot)
    assert list(sent.joint_names) == [*joints[:6], "wrist"]
    assert stamp_ns(sent.header.stamp) == 7_000_000_000
    assert [stamp_ns(p.time_from_start) for p in sent.points] == [50_000_000, 100_000_000, 200_000_000], "none at 0"
    expected = command(joints).path.positions[1]
    assert sent.points[0].positions[6] == pytest.approx(np.degrees(expected[6] - 0.1))
    assert sent.points[0].velocities[6] == pytest.approx(np.degrees(command(joints).path.velocities[1][6]))
    assert sent.points[0].positions[0] == pytest.approx(expected[0])


def test_a_bridged_motion_goes_out_from_its_hand_off_on() -> None:
    bridged = replace(command(contract().robot.joints), handoff_ns=7_100_000_000, bridged=True)
    sent = trajectory_message(bridged, contract())
    assert [stamp_ns(p.time_from_start) for p in sent.points] == [100_000_000, 200_000_000]


def test_what_the_controller_lacks_is_made_up_for() -> None:
    robot = contract()
    lead = trajectory_message(command(robot.robot.joints), robot, Sending(stamped=False, lead_in=True))
    assert stamp_ns(lead.header.stamp) == 0 and stamp_ns(lead.points[0].time_from_start) == 1_000_000
    dense = trajectory_message(command(robot.robot.joints), robot, Sending(step_s=0.01))
    assert len(dense.points) == 20 and stamp_ns(dense.points[-1].time_from_start) == 200_000_000
    times = np.array([stamp_ns(p.time_from_start) * 1e-9 for p in dense.points])
    np.testing.assert_allclose([p.positions[2] for p in dense.points],
                               command(robot.robot.joints).path.sample(times)[0][:, 2], atol=1e-12)


def test_a_policy_goes_on_from_what_the_executor_is_committed_to() -> None:
    status = ExecutionStatus(frozen_steps=3, committed_gripper=[1.0, 1.0, 0.0, 0.0, 0.0])
    status.committed.header.stamp = time_message(10_050_000_000)
    status.committed.points = [JointTrajectoryPoint(positions=[float(j), -float(j)],
                                                    time_from_start=duration_message((j + 1) * STEP_NS))
                               for j in range(5)]
    found = continued(status, 10_100_000_000, STEP_NS, 7)
    assert found is not None
    plan, frozen = found
    assert plan.shape == (7, 3) and frozen == 3
    np.testing.assert_allclose(plan[:, 0], [0.5, 1.5, 2.5, 3.5, 4, 4, 4], err_msg="half a step later, then the last")
    np.testing.assert_allclose(plan[:, 2], [1, 1, 0, 0, 0, 0, 0], err_msg="openings are held, never averaged")
    assert continued(status, 9_000_000_000, STEP_NS, 7) is None, "it begins after the chunk"
    assert continued(ExecutionStatus(), 10_100_000_000, STEP_NS, 7) is None


def test_a_chunk_is_continued_by_its_rest_and_its_last_action() -> None:
    actions = np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(shifted(actions, 3), np.tile([6.0, 7.0], (4, 1)))
    np.testing.assert_allclose(shifted(actions, 1), [[2, 3], [4, 5], [6, 7], [6, 7]])
    np.testing.assert_allclose(shifted(actions, 99), np.tile([6.0, 7.0], (4, 1)))
