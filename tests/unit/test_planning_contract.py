"""One suite for every planner that can be imported here: embedded, embedded in its own process, MoveIt."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from planning_scenes import check_that_objects_may_touch_where_the_scene_says_so

from corft_core.contract import Contract
from corft_core.planning import (
    Box,
    Cylinder,
    Mesh,
    MotionPlanner,
    PlanningError,
    SceneObject,
    Sphere,
    Triangles,
    make_planner,
    pose_matrix,
)
from corft_core.planning.process import ProcessPlanner

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
LEFT = HOME + np.array([0.9, 0, 0, 0, 0, 0, 0])
RIGHT = HOME - np.array([0.9, 0, 0, 0, 0, 0, 0])
V_MAX = np.array(CONTRACT.limits.velocity_rad_s)
A_MAX = np.array(CONTRACT.limits.acceleration_rad_s2)
POST = SceneObject("post", Box((0.1, 0.1, 0.8)), pose_matrix([0.37, 0.0, 0.4]))
HAS_MOVEIT = importlib.util.find_spec("moveit") is not None


@pytest.fixture(scope="module", params=[
    "embedded", "embedded in a process",
    pytest.param("moveit", marks=pytest.mark.skipif(not HAS_MOVEIT, reason="moveit_py is not installed"))])
def shared_planner(request: pytest.FixtureRequest) -> Iterator[MotionPlanner]:
    if request.param == "embedded":
        planner = make_planner("embedded", CONTRACT)
    elif request.param == "moveit":
        planner = make_planner("moveit", CONTRACT, config=CELL / "moveit")
    else:
        planner = ProcessPlanner("embedded", CONTRACT)
    yield planner
    planner.close()
    if isinstance(planner, ProcessPlanner):
        assert planner._process.returncode == 0


@pytest.fixture
def planner(shared_planner: MotionPlanner) -> MotionPlanner:
    shared_planner.set_scene([])
    return shared_planner


def random_configurations(planner: MotionPlanner, count: int, seed: int = 0) -> np.ndarray:
    low, high = planner.position_limits
    return np.random.default_rng(seed).uniform(low, high, size=(count, len(low)))


def peaks(path) -> tuple[np.ndarray, np.ndarray]:
    """Largest velocity and acceleration on the curve that a trajectory controller makes of the path."""
    times = np.linspace(0.0, path.duration_s, 2000)
    samples = np.array([path.sample(time)[1:] for time in times])
    return np.abs(samples[:, 0]).max(axis=0), np.abs(samples[:, 1]).max(axis=0)


def test_it_is_a_motion_planner_for_the_contracts_joints(planner: MotionPlanner) -> None:
    assert isinstance(planner, MotionPlanner)
    assert planner.joint_names == CONTRACT.robot.joints
    low, high = planner.position_limits
    np.testing.assert_allclose(low[:2], [-2.8973 + 0.02, -1.7628 + 0.02])
    np.testing.assert_allclose(high[3], -0.0698 - 0.02)


def test_forward_kinematics_of_known_poses(planner: MotionPlanner) -> None:
    # Stretched up: 0.333 + 0.316 + 0.384 m, then 0.088 forward and 0.107 + 0.1034 down, by the data sheet's DH table.
    up = planner.forward_kinematics(np.array([0, 0, 0, 0, 0, 0, 0.0]))
    np.testing.assert_allclose(up[:3, 3], [0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], atol=1e-6)
    np.testing.assert_allclose(up[:3, 2], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(planner.forward_kinematics(HOME, "panda_link0"), np.eye(4), atol=1e-9)


def test_limits_of_the_description_lie_beyond_the_margin(planner: MotionPlanner) -> None:
    margin = CONTRACT.limits.position_margin_rad
    np.testing.assert_allclose(planner.position_limits - planner.hard_limits,
                               np.broadcast_to([[margin], [-margin]], (2, 7)))
    assert planner.alive and planner.scene == ()


def test_poses_along_a_path_are_those_at_its_points(planner: MotionPlanner) -> None:
    path = random_configurations(planner, 4)
    np.testing.assert_allclose(planner.poses(path), [planner.forward_kinematics(q) for q in path], atol=1e-9)
    np.testing.assert_allclose(planner.poses(path, "panda_link3")[2], planner.forward_kinematics(path[2],
                                                                                                 "panda_link3"))


def test_inverse_kinematics_near_the_seed_finds_small_steps(planner: MotionPlanner) -> None:
    pose = planner.forward_kinematics(HOME)
    pose[:3, 3] += (0.01, -0.005, 0.01)
    found = planner.inverse_kinematics(pose, HOME, near=True)
    assert found is not None and np.max(np.abs(found - HOME)) < 0.2
    np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=2e-4)
    pose[0, 3] = 2.0
    assert planner.inverse_kinematics(pose, HOME, near=True) is None


def test_every_shape_is_hit_and_its_depth_is_told_or_unknown(planner: MotionPlanner, tmp_path: Path) -> None:
    at = planner.forward_kinematics(HOME)
    (tmp_path / "part.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n")
    corners = ((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1))
    for shape in (Box((0.1, 0.1, 0.1)), Cylinder(0.05, 0.1), Sphere(0.05), Mesh(tmp_path / "part.obj", (0.1, 0.1, 0.1)),
                  Triangles(corners, ((0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)))):
        planner.set_scene([SceneObject("thing", shape, at @ pose_matrix([-0.02, -0.02, -0.02]))])
        assert any("thing" in pair for pair in planner.in_collision(HOME)), shape
        depth = planner.penetration_m(HOME)
        assert depth is None or 0.0 < depth < 0.2
        assert [item.shape for item in planner.scene] == [shape]
    planner.set_scene([])
    assert planner.penetration_m(HOME) == 0.0


def test_objects_that_may_touch_each_other_do_not_collide(planner: MotionPlanner) -> None:
    check_that_objects_may_touch_where_the_scene_says_so(planner, HOME)


def test_inverse_kinematics_undoes_forward_kinematics(planner: MotionPlanner) -> None:
    random = np.random.default_rng(1)
    low, high = planner.position_limits
    for q in random_configurations(planner, 20):
        pose = planner.forward_kinematics(q)
        found = planner.inverse_kinematics(pose, np.clip(q + random.normal(0, 0.1, 7), low, high))
        assert found is not None
        assert np.all(found >= low) and np.all(found <= high)
        np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=2e-4)


def test_inverse_kinematics_stays_near_the_seed(planner: MotionPlanner) -> None:
    pose = planner.forward_kinematics(HOME)
    pose[0, 3] += 0.01
    found = planner.inverse_kinematics(pose, HOME)
    assert found is not None
    assert np.max(np.abs(found - HOME)) < 0.15


def test_inverse_kinematics_of_a_pose_out_of_reach_is_none(planner: MotionPlanner) -> None:
    pose = planner.forward_kinematics(HOME)
    pose[0, 3] = 2.0
    assert planner.inverse_kinematics(pose, HOME) is None


def test_home_is_free_and_a_folded_arm_hits_itself(planner: MotionPlanner) -> None:
    assert planner.in_collision(HOME) == []
    folded = np.array([0.0, 1.0, 0.0, -3.05, 0.0, 0.0025, 0.0])
    assert planner.in_collision(folded)


def test_collision_verdicts_name_the_links_and_the_object(planner: MotionPlanner) -> None:
    planner.set_scene([POST])
    pairs = planner.in_collision(HOME)
    assert ("panda_hand", "post") in pairs
    assert all("post" in pair for pair in pairs)
    assert planner.in_collision(LEFT) == []
    planner.set_scene([])
    assert planner.in_collision(HOME) == []


def test_objects_may_touch_the_links_they_are_allowed_to(planner: MotionPlanner) -> None:
    hit = {link for link, _ in _with_scene(planner, POST).in_collision(HOME)}
    tolerant = SceneObject("post", POST.shape, POST.pose, touch_links=tuple(sorted(hit)))
    assert _with_scene(planner, tolerant).in_collision(HOME) == []


def test_an_attached_object_moves_with_the_hand(planner: MotionPlanner) -> None:
    wall = SceneObject("wall", Box((0.02, 0.6, 0.6)), pose_matrix([0.6, 0.0, 0.42]))
    stick = SceneObject("stick", Cylinder(0.01, 0.3), pose_matrix([0.0, 0.0, 0.2]), attached_to="panda_hand",
                        touch_links=("panda_leftfinger", "panda_rightfinger"))
    assert _with_scene(planner, wall).in_collision(HOME) == []
    # Tilted forward, the hand points the stick at the wall.
    tilted = HOME + np.array([0, 0, 0, 0, 0, 1.2, 0])
    assert _with_scene(planner, wall).in_collision(tilted) == []
    assert _with_scene(planner, stick).in_collision(tilted) == []
    planner.set_scene([wall, stick])
    assert {frozenset(pair) for pair in planner.in_collision(tilted)} == {frozenset(("stick", "wall"))}


def _with_scene(planner: MotionPlanner, *objects: SceneObject) -> MotionPlanner:
    planner.set_scene(objects)
    return planner


def test_the_cells_scene_leaves_room_to_grasp_a_cube_on_the_table() -> None:
    planner = make_planner("embedded", CONTRACT, scene=CELL / "scene.yaml")
    assert planner.in_collision(HOME) == []
    pose = pose_matrix([0.5, 0.0, 0.02], [np.pi, 0.0, 0.0])
    grasp = planner.inverse_kinematics(pose, HOME)
    assert grasp is not None and planner.in_collision(grasp) == []
    pose[2, 3] = 0.005   # the fingertips reach 9.5 mm beyond the tool frame
    pressed = planner.inverse_kinematics(pose, grasp)
    assert pressed is not None
    assert planner.in_collision(pressed) == [("panda_leftfinger", "table"), ("panda_rightfinger", "table")]


def test_first_collision_names_the_segment(planner: MotionPlanner) -> None:
    path = np.linspace(LEFT, RIGHT, 5)
    assert planner.first_collision(path) is None
    planner.set_scene([POST])
    # Waypoint 2 is home, which collides, so the segment that leads to it does.
    assert planner.first_collision(path) == 1
    assert planner.first_collision(path[2:]) == 0
    assert planner.first_collision(path[:2]) is None
    assert planner.first_collision(HOME[None]) == 0


def test_the_dense_check_finds_a_thin_obstacle_between_waypoints(planner: MotionPlanner) -> None:
    planner.set_scene([SceneObject("sheet", Box((0.3, 0.002, 0.3)), pose_matrix([0.37, 0.0, 0.35]))])
    path = np.stack([LEFT, RIGHT])
    assert planner.in_collision(LEFT) == [] and planner.in_collision(RIGHT) == []
    assert planner.first_collision(path, step_rad=2.0) is None
    assert planner.first_collision(path) == 0


def test_a_free_plan_ends_at_the_goal_at_rest_within_the_limits(planner: MotionPlanner) -> None:
    path = planner.plan(LEFT, RIGHT)
    np.testing.assert_allclose(path.positions[[0, -1]], [LEFT, RIGHT], atol=1e-3)
    np.testing.assert_allclose(path.velocities[[0, -1]], 0.0, atol=1e-6)
    fastest, _ = peaks(path)
    assert np.all(fastest <= V_MAX * 1.001)
    assert path.duration_s < 2.0


def test_plans_go_around_a_box(planner: MotionPlanner) -> None:
    planner.set_scene([POST])
    for _ in range(3):
        path = planner.plan(LEFT, RIGHT)
        assert planner.first_collision(path.positions) is None
        np.testing.assert_allclose(path.positions[[0, -1]], [LEFT, RIGHT], atol=1e-3)
        low, high = planner.position_limits
        assert np.all(path.positions >= low - 1e-3) and np.all(path.positions <= high + 1e-3)


def test_a_plan_to_a_pose_puts_the_tool_there(planner: MotionPlanner) -> None:
    goal = pose_matrix([0.45, -0.2, 0.15], [np.pi, 0.0, 0.0])
    path = planner.plan(HOME, goal)
    np.testing.assert_allclose(planner.forward_kinematics(path.positions[-1]), goal, atol=2e-3)


def test_slower_plans_take_longer(planner: MotionPlanner) -> None:
    fast = planner.plan(LEFT, RIGHT)
    slow = planner.plan(LEFT, RIGHT, velocity_scale=0.2, acceleration_scale=0.2)
    assert slow.duration_s > 1.5 * fast.duration_s
    assert np.all(peaks(slow)[0] <= 0.2 * V_MAX * 1.01)


def test_times_keep_velocity_and_acceleration_limits(planner: MotionPlanner) -> None:
    waypoints = HOME + 0.2 * np.random.default_rng(3).uniform(-1, 1, size=(6, 7))
    path = planner.time_parametrise(waypoints)
    fastest, _ = peaks(path)
    assert np.all(fastest <= V_MAX * 1.01)
    np.testing.assert_allclose(path.positions[[0, -1]], waypoints[[0, -1]], atol=1e-3)
    np.testing.assert_allclose(path.velocities[[0, -1]], 0.0, atol=1e-6)


def test_times_start_from_a_given_velocity(planner: MotionPlanner) -> None:
    waypoints = HOME + np.linspace(0, 0.5, 8)[:, None]
    velocity = np.full(7, 0.4)
    path = planner.time_parametrise(waypoints, start_velocity=velocity)
    np.testing.assert_allclose(path.velocities[0], velocity, atol=1e-6)
    np.testing.assert_allclose(path.velocities[-1], 0.0, atol=1e-9)
    assert path.duration_s < planner.time_parametrise(waypoints).duration_s
    fastest, hardest = peaks(path)
    assert np.all(fastest <= V_MAX * (1 + 1e-6)) and np.all(hardest <= A_MAX * (1 + 1e-6))


def test_one_waypoint_takes_no_time(planner: MotionPlanner) -> None:
    path = planner.time_parametrise(np.stack([HOME, HOME])[:1])
    assert path.duration_s == 0.0 and len(path.positions) == 1


@pytest.mark.parametrize("call, message", [
    (lambda p: p.plan(HOME[:6], LEFT), "start must have 7 values"),
    (lambda p: p.plan(HOME, np.where(np.arange(7) == 2, np.nan, HOME)), "goal is not finite for panda_joint3"),
    (lambda p: p.plan(HOME, HOME + np.array([0, 0, 0, 3.0, 0, 0, 0])), "panda_joint4 = 0.6000 rad, allowed"),
    (lambda p: p.plan(HOME, pose_matrix([3.0, 0.0, 0.5])), "cannot reach"),
    (lambda p: p.forward_kinematics(HOME, "elbow"), "no frame 'elbow'"),
    (lambda p: p.inverse_kinematics(np.zeros((4, 4)), HOME), "rigid transform"),
    (lambda p: p.first_collision(np.zeros((0, 7))), "shape"),
    (lambda p: p.time_parametrise(np.stack([HOME, LEFT]), np.full(7, 9.0)), "start velocity exceeds"),
    (lambda p: p.set_scene([POST, POST]), "post is given more than once"),
    (lambda p: p.set_scene([SceneObject("tool", Box((0.1, 0.1, 0.1)), attached_to="claw")]), "claw"),
])
def test_bad_requests_say_what_is_wrong(planner: MotionPlanner, call, message: str) -> None:
    with pytest.raises(PlanningError, match=re.escape(message)):
        call(planner)


def test_plans_refuse_ends_in_collision(planner: MotionPlanner) -> None:
    planner.set_scene([POST])
    with pytest.raises(PlanningError, match=r"start is in collision: .*panda_hand with post"):
        planner.plan(HOME, LEFT)
    with pytest.raises(PlanningError, match="goal is in collision"):
        planner.plan(LEFT, HOME)


def test_no_plan_within_the_time_is_an_error(planner: MotionPlanner) -> None:
    # Walls ahead and behind: the way round leads over the arm's own base and takes far longer to find than this.
    planner.set_scene([SceneObject("wall_ahead", Box((1.2, 0.02, 2.4)), pose_matrix([0.75, 0.0, 1.2])),
                       SceneObject("wall_behind", Box((1.2, 0.02, 2.4)), pose_matrix([-0.75, 0.0, 1.2]))])
    with pytest.raises(PlanningError, match="no plan from start to goal"):
        planner.plan(LEFT, RIGHT, planning_time_s=0.002)
