"""Cartesian chunks, ways around obstacles, robots without a gripper, real-time chunking, and the verifier itself."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.execution import (
    Chunk,
    ChunkExecutor,
    Command,
    ExecutorOptions,
    Measured,
    Reason,
    Refusal,
    Supervisor,
    check_command,
)
from corft_core.execution.cartesian import rotation
from corft_core.planning import Box, Cylinder, PlanningError, SceneObject, Triangles, make_planner, pose_matrix
from corft_core.trajectory import JointPath

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
NAMES = CONTRACT.robot.joints
HOME = np.array(CONTRACT.robot.home_rad)
NOW = 10**12
STILL = Measured(NOW, HOME, np.zeros(7))


@functools.cache
def planner(obstacle: bool = False):
    pose = np.eye(4)
    pose[:3, 3] = (0.335, 0.19, 0.3)
    return make_planner("embedded", CONTRACT, [SceneObject("post", Box((0.04, 0.04, 0.8)), pose)] if obstacle else [])


def joint_chunk(targets: np.ndarray, stamp_ns: int = NOW, **more) -> Chunk:
    return Chunk(stamp_ns, NAMES, targets, np.ones(len(targets)), 0.1, **more)


def tool_chunk(**values) -> Chunk:
    count = len(next(iter(values.values())))
    return Chunk(NOW, (), np.zeros((count, 0)), np.ones(count), 0.1, **values)


def accepted(executor: ChunkExecutor, chunk: Chunk, now_ns: int = NOW) -> Command:
    before = executor.running
    command = executor.accept(chunk, now_ns, STILL)
    assert isinstance(command, Command), command
    assert check_command(command, before, executor.limits, planner()) == []
    return command


def test_tool_poses_are_followed_by_the_tool():
    start = planner().forward_kinematics(HOME)
    poses = np.repeat(start[None], 10, axis=0)
    poses[:, 1, 3] += 0.012 * np.arange(1, 11)
    for row in range(10):
        poses[row, :3, :3] = rotation(np.array([0.0, 0.0, 0.02 * (row + 1)])) @ start[:3, :3]
    executor = ChunkExecutor(CONTRACT, planner())
    command = accepted(executor, tool_chunk(tool_poses=poses))
    reached = planner().forward_kinematics(command.state(command.content_end_ns).position)
    np.testing.assert_allclose(reached[:3, 3], poses[-1, :3, 3], atol=0.004)
    np.testing.assert_allclose(reached[:3, :3], poses[-1, :3, :3], atol=0.02)


def test_tool_twists_are_integrated_from_the_commanded_pose():
    start = planner().forward_kinematics(HOME)
    twists = np.repeat([[0.0, 0.0, -0.1, 0.0, 0.0, 0.3]], 10, axis=0)
    executor = ChunkExecutor(CONTRACT, planner())
    command = accepted(executor, tool_chunk(tool_twists=twists))
    lasted_s = (command.content_end_ns - command.handoff_ns) * 1e-9
    reached = planner().forward_kinematics(command.state(command.content_end_ns).position)
    np.testing.assert_allclose(reached[:3, 3], start[:3, 3] + [0, 0, -0.1 * lasted_s], atol=0.004)
    np.testing.assert_allclose(reached[:3, :3], rotation(np.array([0, 0, 0.3 * lasted_s])) @ start[:3, :3], atol=0.02)


def test_a_pose_out_of_reach_cuts_or_refuses_the_chunk():
    poses = np.repeat(planner().forward_kinematics(HOME)[None], 8, axis=0)
    far = poses.copy()
    far[:, 0, 3] = 2.0
    refused = ChunkExecutor(CONTRACT, planner()).accept(tool_chunk(tool_poses=far), NOW, STILL)
    assert isinstance(refused, Refusal) and refused.reason is Reason.UNREACHABLE and "(2.000," in refused.message
    poses[5:, 0, 3] = 2.0
    command = accepted(ChunkExecutor(CONTRACT, planner()), tool_chunk(tool_poses=poses))
    assert command.truncated.reason is Reason.UNREACHABLE and command.used < 6


@pytest.mark.parametrize(("values", "reason"), [
    ({"tool_poses": np.full((4, 4, 4), np.nan)}, Reason.NOT_FINITE),
    ({"tool_poses": np.ones((4, 4, 4))}, Reason.MALFORMED),
    ({"tool_poses": np.repeat(np.eye(4)[None], 3, axis=0), "tool_twists": np.zeros((3, 6))}, Reason.MALFORMED),
    ({"tool_twists": np.zeros((4, 5))}, Reason.MALFORMED),
])
def test_a_tool_chunk_that_means_nothing_is_refused(values, reason):
    refused = ChunkExecutor(CONTRACT, planner()).accept(tool_chunk(**values), NOW, STILL)
    assert isinstance(refused, Refusal) and refused.reason is reason


def through_the_post() -> Chunk:
    """Joint 1 sweeps the hand through the post, and on to free space behind it."""
    targets = np.repeat(HOME[None], 14, axis=0)
    targets[:, 0] += np.linspace(0.075, 1.05, 14)
    return joint_chunk(targets)


def test_a_chunk_into_an_obstacle_is_cut_before_it():
    executor = ChunkExecutor(CONTRACT, planner(True))
    command = executor.accept(replace(through_the_post(), dt_s=0.2), NOW, STILL)
    assert isinstance(command, Command), command
    assert check_command(command, None, executor.limits, planner(True)) == []
    assert command.truncated.reason is Reason.COLLISION and "post" in command.truncated.message
    assert command.path.positions[-1, 0] < HOME[0] + 0.5 and command.detour is None


def corner() -> Triangles:
    """A slab of two triangles where the hand sweeps by."""
    return Triangles(((0.335, 0.19, 0.0), (0.335, 0.24, 0.0), (0.335, 0.24, 0.8), (0.335, 0.19, 0.8)),
                     ((0, 1, 2), (0, 2, 3)))


@pytest.mark.parametrize("scene", [
    [SceneObject("slab", corner())],
    [SceneObject("pole", Cylinder(0.01, 0.5), pose_matrix([0, 0, 0.3]), "panda_hand"),
     SceneObject("stub", Box((0.04, 0.04, 0.1)), pose_matrix([0.335, 0.19, 0.05]))]], ids=["mesh", "attached"])
def test_meshes_and_what_the_hand_holds_cut_a_chunk(scene):
    free, in_the_way = make_planner("embedded", CONTRACT, []), make_planner("embedded", CONTRACT, scene)
    chunk = replace(through_the_post(), dt_s=0.2)
    whole = ChunkExecutor(CONTRACT, free).accept(chunk, NOW, STILL)
    assert isinstance(whole, Command) and whole.truncated is None
    command = ChunkExecutor(CONTRACT, in_the_way).accept(chunk, NOW, STILL)
    assert isinstance(command, Command), command
    assert command.truncated is not None and scene[0].name in command.truncated.message
    assert check_command(command, None, ChunkExecutor(CONTRACT, in_the_way).limits, in_the_way) == []


def test_with_replanning_the_arm_goes_around_the_obstacle_once_it_stands():
    sent: list[Command] = []
    supervisor = Supervisor(CONTRACT, planner(True), ExecutorOptions(on_collision="replan"), sent.append,
                            lambda *_: None)
    supervisor.joint_state(STILL, NOW)
    assert supervisor.enable(NOW)[0]
    cut = supervisor.chunk(replace(through_the_post(), dt_s=0.2), NOW)
    assert isinstance(cut, Command) and cut.truncated.reason is Reason.COLLISION and cut.detour is not None
    assert not supervisor.move_due(NOW)
    then = cut.end_ns + 1
    supervisor.joint_state(Measured(then, cut.path.positions[-1], np.zeros(7)), then)
    again = supervisor.chunk(joint_chunk(cut.path.positions[-1:].repeat(5, axis=0), then), then)
    assert isinstance(again, Refusal) and again.reason is Reason.BUSY
    assert supervisor.move_due(then)
    ok, text = supervisor.plan_pending(then)
    assert ok, text
    detour = sent[-1]
    assert check_command(detour, cut, supervisor.executor.limits, planner(True)) == []
    np.testing.assert_allclose(detour.path.positions[-1], cut.detour, atol=1e-3)
    assert detour.path.positions[-1, 0] > HOME[0] + 0.6 and supervisor.counts["detours"] == 1


@pytest.mark.parametrize(("kind", "goal_rad", "refused"), [
    ("approach", 1.0, True), ("home", 1.0, False), ("approach", 0.1, False), ("recover", 1.0, False)])
def test_a_planned_move_keeps_the_tool_in_the_workspace(kind, goal_rad, refused):
    tool = planner().poses(HOME[None])[0, :3, 3]
    contract = replace(CONTRACT, workspace=replace(CONTRACT.workspace, max_m=(2.0, tool[1] + 0.15, 2.0)))
    sent: list[Command] = []
    supervisor = Supervisor(contract, planner(), ExecutorOptions(), sent.append, lambda *_: None)
    supervisor.joint_state(STILL, NOW)
    assert supervisor.enable(NOW)[0]
    goal = HOME.copy()
    goal[0] += goal_rad
    supervisor._planned = lambda *_: planner().plan(HOME, goal, velocity_scale=0.5, acceleration_scale=0.5)
    assert supervisor.request_move(kind, NOW)[0]
    done, text = supervisor.plan_pending(NOW)
    assert (done, len(sent)) == ((False, 0) if refused else (True, 1)), text
    assert not refused or "workspace" in text


def test_recovery_out_of_a_collision_keeps_the_speed_scale():
    tool = planner().forward_kinematics(HOME)[:3, 3]
    plate = SceneObject("plate", Box((0.3, 0.3, 0.02)), pose_matrix([tool[0], 0.0, tool[2] - 0.015]))
    durations = []
    for speed_scale in (1.0, 0.5):
        sent: list[Command] = []
        supervisor = Supervisor(CONTRACT, make_planner("embedded", CONTRACT, [plate]),
                                ExecutorOptions(speed_scale=speed_scale), sent.append, lambda *_: None)
        supervisor.joint_state(STILL, NOW)
        assert supervisor.enable(NOW)[0] and supervisor.request_move("recover", NOW)[0]
        assert supervisor.plan_pending(NOW)[0]
        durations.append(sent[0].path.duration_s)
    assert durations[1] > 1.3 * durations[0]


def moving(planner, reports: list[Refusal]) -> tuple[Supervisor, Command, int]:
    """A supervisor whose arm follows a chunk towards where the post would be, and a time on the way."""
    supervisor = Supervisor(CONTRACT, planner, ExecutorOptions(), lambda _: None,
                            lambda _, event: reports.append(event))
    supervisor.joint_state(STILL, NOW)
    assert supervisor.enable(NOW)[0]
    command = supervisor.chunk(replace(through_the_post(), dt_s=0.2), NOW)
    assert isinstance(command, Command) and command.truncated is None
    then = NOW + 200_000_000
    supervisor.joint_state(Measured(then, command.state(then).position, np.zeros(7)), then)
    return supervisor, command, then


def test_an_object_that_comes_into_the_way_stops_the_running_motion_before_it():
    reports: list[Refusal] = []
    changing = make_planner("embedded", CONTRACT)
    supervisor, command, then = moving(changing, reports)
    supervisor.recheck(then)
    assert supervisor.executor.running is command and reports == []
    changing.set_scene(planner(True).scene)
    supervisor.recheck(then)
    stop = supervisor.executor.running
    assert stop.kind == "hold" and reports[0].reason is Reason.SCENE_CHANGED and "post" in reports[0].message
    assert check_command(stop, command, supervisor.executor.limits, planner(True)) == []
    assert stop.end_ns < command.end_ns - 500_000_000
    supervisor.recheck(then)
    assert supervisor.executor.running is stop and supervisor.counts["stops"] == 1


def test_an_object_behind_the_arm_or_beyond_its_motion_does_not_stop_it():
    reports: list[Refusal] = []
    changing = make_planner("embedded", CONTRACT)
    supervisor, command, _ = moving(changing, reports)
    tool = planner().forward_kinematics(command.path.positions[0])
    changing.set_scene([SceneObject("behind", Box((0.03, 0.12, 0.06)), tool)])
    assert changing.in_collision(command.path.positions[0])
    late = command.content_end_ns - 400_000_000
    supervisor.joint_state(Measured(late, command.state(late).position, np.zeros(7)), late)
    supervisor.recheck(late)
    assert supervisor.executor.running is command and reports == []


def test_a_planned_move_is_stopped_too_but_not_one_that_begins_in_contact_to_leave_it():
    for in_contact in (False, True):
        reports: list[Refusal] = []
        changing = make_planner("embedded", CONTRACT, planner(True).scene if in_contact else [])
        supervisor = Supervisor(CONTRACT, changing, ExecutorOptions(), lambda _: None,
                                lambda _, event, reports=reports: reports.append(event))
        supervisor.joint_state(STILL, NOW)
        assert supervisor.enable(NOW)[0]
        targets = through_the_post().positions
        if in_contact:  # it begins where the post is
            targets = targets[np.argmax([bool(changing.in_collision(q)) for q in targets]):]
        path = changing.time_parametrise(np.vstack([targets[:1] if in_contact else HOME[None], targets[1:]]), None, 0.3,
                                         0.3)
        with supervisor.lock:
            assert isinstance(supervisor.executor.move(path, NOW), Command)
        supervisor.recheck(NOW + 10_000_000)
        changing.set_scene(planner(True).scene)
        supervisor.recheck(NOW + 20_000_000)
        assert [event.reason for event in reports] == ([] if in_contact else [Reason.SCENE_CHANGED])


def test_a_planner_that_can_no_longer_check_the_motion_stops_it():
    class Dying:
        dead = False

        def __getattr__(self, name: str):
            if self.dead and name == "first_collision":
                raise PlanningError("the planner process ended")
            return getattr(planner(), name)

    reports: list[Refusal] = []
    dying = Dying()
    supervisor, _, then = moving(dying, reports)
    dying.dead = True
    supervisor.recheck(then)
    assert supervisor.executor.running.kind == "hold" and reports[0].reason is Reason.PLANNING_FAILED


def test_a_robot_without_a_gripper_takes_chunks_without_openings():
    bare = replace(CONTRACT, gripper=None, gripper_command=None)
    executor = ChunkExecutor(bare, planner())
    chunk = replace(joint_chunk(HOME + 0.01 * np.arange(1, 9)[:, None]), gripper=None)
    command = executor.accept(chunk, NOW, STILL)
    assert isinstance(command, Command) and command.gripper == ()
    assert executor.committed_actions(NOW, 0.1, 4).gripper is None
    with_openings = replace(chunk, gripper=np.ones(8), stamp_ns=NOW + 1)
    refused = executor.accept(with_openings, NOW, STILL)
    assert isinstance(refused, Refusal) and "names no gripper" in refused.message
    refused = ChunkExecutor(CONTRACT, planner()).accept(chunk, NOW, STILL)
    assert isinstance(refused, Refusal) and "has no gripper openings" in refused.message


def test_what_is_committed_is_what_is_executed():
    executor = ChunkExecutor(CONTRACT, planner(), ExecutorOptions(mode="rtc", execute_steps=4))
    assert executor.committed_actions(NOW, 0.1, 10) is None
    chunk = joint_chunk(HOME + 0.02 * np.arange(1, 11)[:, None] * np.array([1, 0, 0, 0, 0, 0, 1]))
    chunk.gripper[5:] = 0.0
    command = accepted(executor, chunk)
    stamp_ns = NOW + 300_000_000
    committed = executor.committed_actions(stamp_ns, 0.1, 10)
    assert len(committed.positions) == 7  # as many as the running chunk still has
    for row, position in enumerate(committed.positions):
        np.testing.assert_array_equal(position, command.state(stamp_ns + (row + 1) * 100_000_000).position)
    np.testing.assert_array_equal(committed.gripper, [1, 1, 0, 0, 0, 0, 0])
    # The next chunk is 0.15 s on its way: with the hand-off two of its actions are over.
    late = executor.accept(replace(joint_chunk(chunk.positions[-1:] + 0.0 * chunk.positions), stamp_ns=stamp_ns,
                                   number=1), stamp_ns + 150_000_000, STILL)
    assert isinstance(late, Command) and late.delay_steps == 2
    assert executor.committed_actions(stamp_ns + 10**8, 0.1, 10).frozen == 2


def test_real_time_chunking_keeps_what_the_old_chunk_was_about_to_do():
    def second(mode: str) -> tuple[Command, Command]:
        executor = ChunkExecutor(CONTRACT, planner(), ExecutorOptions(mode=mode, execute_steps=5, blend_s=0.0))
        first = accepted(executor, joint_chunk(HOME + 0.02 * np.arange(1, 13)[:, None] * np.eye(7)[0]))
        later = NOW + 300_000_000
        aside = HOME + 0.02 * np.arange(4, 16)[:, None] * np.eye(7)[0] + 0.05 * np.eye(7)[1]
        return first, accepted(executor, joint_chunk(aside, later), later + 50_000_000)

    away = {}
    for mode in ("rtc", "splice"):
        first, command = second(mode)
        soon_ns = command.handoff_ns + 200_000_000
        away[mode] = abs(command.state(soon_ns).position[1] - first.state(soon_ns).position[1])
        assert command.path.positions[-1, 1] == pytest.approx(HOME[1] + 0.05, abs=0.005)
    assert away["rtc"] < 0.8 * away["splice"]


def test_the_verifier_sees_each_kind_of_violation():
    executor = ChunkExecutor(CONTRACT, planner(True))
    before = accepted(executor, joint_chunk(HOME + 0.02 * np.arange(1, 13)[:, None] * np.eye(7)[0]))
    good = executor.accept(joint_chunk(HOME + 0.02 * np.arange(3, 15)[:, None] * np.eye(7)[0], NOW + 200_000_000),
                           NOW + 250_000_000, STILL)
    limits, path = executor.limits, good.path

    def found(bad: Command) -> set[str]:
        return {violation.quantity for violation in check_command(bad, before, limits, planner(True))}

    def changed(**fields) -> Command:
        return replace(good, path=replace(path, **fields))

    assert found(good) == set()
    assert "seam" in found(changed(positions=path.positions + 0.01))
    assert "seam" in found(replace(good, start_ns=good.start_ns + 5_000_000))
    moving = path.velocities.copy()
    moving[-1, 2] = 0.01
    assert "rest" in found(changed(velocities=moving))
    assert "position" in found(changed(positions=path.positions + np.linspace(0, 9, len(path.times_s))[:, None]))
    fast = replace(good, path=JointPath(NAMES, path.times_s / 12, path.positions, path.velocities * 12,
                                        path.accelerations * 144))
    assert {"velocity", "acceleration", "jerk"} <= found(fast)
    bumped = path.accelerations.copy()
    bumped[len(bumped) // 2] += 2.0
    assert "jerk" in found(changed(accelerations=bumped))
    sweep = np.linspace(0, 0.8, len(path.times_s))[:, None] * np.eye(7)[0]
    assert "collision" in found(changed(positions=HOME + sweep))
