"""Discrete moves: where they end, that they are free and within limits, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.planning import Box, PlanningError, SceneObject, load_scene, pose_matrix
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.interface import MotionPlanner, curve_of
from corft_core.planning.moves import approach, attach, detach, home, joined, park, plan_between, recover
from corft_core.planning.timing import RISE_S, peaks
from corft_core.trajectory import JointPath

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
SIDE = np.array([0.9, 0, 0, 0, 0, 0, 0])
POST = SceneObject("post", Box((0.1, 0.1, 0.8)), pose_matrix([0.37, 0.0, 0.4]))
SCENE = load_scene(CELL / "scene.yaml", CONTRACT.robot.base_frame)
V_MAX, A_MAX, J_MAX = (np.array(getattr(CONTRACT.limits, key)) for key in
                       ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"))


class BlindPlanner(EmbeddedPlanner):
    """Cannot tell how deep a contact is, as MoveIt can't."""

    def penetration_m(self, q: np.ndarray) -> float | None:
        return None if self.in_collision(q) else 0.0


@pytest.fixture(scope="module", params=[EmbeddedPlanner, BlindPlanner], ids=["depth known", "depth unknown"])
def shared(request: pytest.FixtureRequest) -> EmbeddedPlanner:
    return request.param(CONTRACT)


@pytest.fixture
def planner(shared: EmbeddedPlanner) -> EmbeddedPlanner:
    shared.set_scene(SCENE)
    return shared


def assert_keeps_limits(path: JointPath, scale: float) -> None:
    velocity, acceleration, jerk = peaks(path)
    assert np.all(velocity <= scale * V_MAX * (1 + 1e-4)) and np.all(acceleration <= scale * A_MAX * (1 + 1e-6))
    assert np.all(jerk <= np.minimum(J_MAX, A_MAX / RISE_S) * (1 + 1e-6))
    assert path.velocities is not None
    np.testing.assert_allclose(path.velocities[-1], 0.0, atol=1e-9)


def pressed(planner: MotionPlanner, depth_m: float) -> np.ndarray:
    """The fingers ``depth_m`` in the table, which they reach 9.5 mm below the tool frame."""
    touching = planner.inverse_kinematics(pose_matrix([0.5, 0.0, 0.02], [np.pi, 0, 0]), HOME)
    assert touching is not None
    q = planner.inverse_kinematics(pose_matrix([0.5, 0.0, 0.0095 - depth_m], [np.pi, 0, 0]), touching)
    assert q is not None and planner.in_collision(q)
    return q


def test_home_and_park_end_where_the_contract_says(planner: MotionPlanner) -> None:
    parked = replace(CONTRACT, robot=replace(CONTRACT.robot, park_rad=tuple(HOME + 0.1)))
    path = park(planner, parked, HOME + SIDE)
    np.testing.assert_allclose(path.positions[-1], HOME + 0.1, atol=1e-9)
    assert_keeps_limits(path, 0.5)
    np.testing.assert_allclose(park(planner, CONTRACT, HOME + SIDE).positions[-1], HOME, atol=1e-9)
    np.testing.assert_allclose(home(planner, CONTRACT, HOME + SIDE).positions[-1], HOME, atol=1e-9)


def test_an_approach_ends_in_a_straight_line_along_the_tool(planner: MotionPlanner) -> None:
    pose = pose_matrix([0.5, -0.1, 0.05], [np.pi, 0.0, 0.3])
    path = approach(planner, HOME, pose, straight_m=0.12)
    tools = planner.poses(curve_of(path))
    np.testing.assert_allclose(tools[-1], pose, atol=1e-4)
    low = tools[tools[:, 2, 3] < 0.05 + 0.115]
    last = low[np.argmax(low[:, 2, 3]):]
    np.testing.assert_allclose(last[:, :2, 3], np.broadcast_to([0.5, -0.1], (len(last), 2)), atol=2e-3)
    assert planner.first_collision(curve_of(path)) is None
    assert_keeps_limits(path, 0.5)


def test_an_approach_into_an_obstacle_is_refused(planner: MotionPlanner) -> None:
    with pytest.raises(PlanningError, match=r"no approach .* the straight line to it is not free"):
        approach(planner, HOME, pose_matrix([0.5, 0.0, -0.02], [np.pi, 0.0, 0.0]))
    with pytest.raises(PlanningError, match="out of reach"):
        approach(planner, HOME, pose_matrix([2.0, 0.0, 0.3], [np.pi, 0.0, 0.0]))


@pytest.mark.parametrize("depth_m", [0.002, 0.01, 0.02])
def test_recovery_only_leaves_the_collision(planner: EmbeddedPlanner, depth_m: float) -> None:
    q = pressed(planner, depth_m)
    path = recover(planner, q)
    np.testing.assert_allclose(path.positions[0], q, atol=1e-9)
    assert planner.in_collision(path.positions[-1]) == []
    assert np.max(np.abs(path.positions - q)) <= 0.41
    assert_keeps_limits(path, 0.1)
    depths = [planner._arm.penetration_m(position) for position in curve_of(path)]
    assert np.all(np.diff(depths) < 1e-3)
    pairs = [set(planner.in_collision(position)) for position in curve_of(path)]
    assert all(later <= earlier for earlier, later in pairwise(pairs))


def test_recovery_comes_back_within_the_position_limits(planner: MotionPlanner) -> None:
    q = HOME.copy()
    q[3] = planner.hard_limits[1, 3] + 0.01
    path = recover(planner, q)
    low, high = planner.position_limits
    assert np.all(path.positions[-1] >= low) and np.all(path.positions[-1] <= high)
    q[3] = planner.position_limits[1, 3] + 0.5
    with pytest.raises(PlanningError, match=r"panda_joint4 is 0\.500 rad outside its limits"):
        recover(planner, q)


def test_recovery_refuses_what_is_too_deep_or_not_needed(planner: EmbeddedPlanner) -> None:
    with pytest.raises(PlanningError, match="nothing to recover from"):
        recover(planner, HOME)
    planner.set_scene([POST])
    known = planner.penetration_m(HOME) is not None
    with pytest.raises(PlanningError, match=r"94 mm deep" if known else "no way out of the collision within 0.05"):
        recover(planner, HOME, max_move_rad=0.05)


def test_a_way_around_starts_with_the_running_velocity(planner: MotionPlanner) -> None:
    planner.set_scene([SceneObject("sheet", Box((0.5, 0.01, 0.5)), pose_matrix([0.4, 0.0, 0.25]))])
    start, goal = HOME + SIDE, HOME - SIDE
    assert planner.first_collision(np.stack([start, goal])) == 0
    velocity = np.array([-0.8, 0.2, 0, 0.1, 0, 0, 0.3])
    path = plan_between(planner, start, goal, velocity, planning_time_s=6.0)
    np.testing.assert_allclose(path.positions[0], start, atol=1e-9)
    np.testing.assert_allclose(path.velocities[0], velocity, atol=1e-9)
    np.testing.assert_allclose(path.positions[-1], goal, atol=1e-6)
    assert planner.first_collision(curve_of(path)) is None
    assert_keeps_limits(path, 1.0)
    with pytest.raises(PlanningError, match="no way around in motion: the way ahead"):
        plan_between(planner, HOME + SIDE * 0.35, goal, np.array([-2.0, 0, 0, 0, 0, 0, 0]))


def test_an_attached_object_goes_along_and_stays_where_it_is_let_go(planner: MotionPlanner) -> None:
    cube = SceneObject("cube", Box((0.04, 0.04, 0.04)), planner.forward_kinematics(HOME), touch_links=(
        "panda_hand", "panda_leftfinger", "panda_rightfinger"))
    planner.set_scene([*SCENE, cube])
    attach(planner, "cube", "panda_hand", HOME, ("panda_leftfinger", "panda_rightfinger"))
    carried = next(item for item in planner.scene if item.name == "cube")
    assert carried.attached_to == "panda_hand" and carried.touch_links == ("panda_leftfinger", "panda_rightfinger")
    assert planner.in_collision(HOME) == [] and planner.in_collision(HOME + SIDE) == []
    detach(planner, "cube", HOME + SIDE)
    left = next(item for item in planner.scene if item.name == "cube")
    np.testing.assert_allclose(left.pose, planner.forward_kinematics(HOME + SIDE), atol=1e-9)
    assert left.attached_to is None and left.touch_links == ()
    with pytest.raises(PlanningError, match="no object 'ball'; its objects: table"):
        attach(planner, "ball", "panda_hand", HOME)


def test_joined_paths_must_meet() -> None:
    one = JointPath(("a",), np.array([0.0, 1.0]), np.array([[0.0], [1.0]]))
    two = JointPath(("a",), np.array([0.0, 2.0]), np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(joined(one, two).times_s, [0.0, 1.0, 3.0])
    with pytest.raises(PlanningError, match="does not begin where the first ends"):
        joined(two, one)
