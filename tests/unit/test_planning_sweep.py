"""The sweeping collision check: it finds exactly what a check of every sample finds, with fewer queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corft_core.contract import Contract
from corft_core.planning import Box, Cylinder, SceneObject, load_scene, pose_matrix
from corft_core.planning.description import RobotDescription
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.interface import COLLISION_STEP_RAD, densify
from corft_core.planning.sweep import first_hit

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
STICK = SceneObject("stick", Cylinder(0.01, 0.3), pose_matrix([0, 0, 0.2]), "panda_hand", ("panda_leftfinger",
                                                                                          "panda_rightfinger"))
POST = SceneObject("post", Box((0.05, 0.05, 0.8)), pose_matrix([0.45, 0.1, 0.4]))
SHEET = SceneObject("sheet", Box((0.6, 0.002, 0.6)), pose_matrix([0.5, -0.25, 0.4]))
moves = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(7)), elements=st.floats(-0.5, 0.5, width=32))


@pytest.fixture(scope="module")
def planner() -> EmbeddedPlanner:
    return EmbeddedPlanner(CONTRACT, scene=[*load_scene(CELL / "scene.yaml", "panda_link0"), POST, SHEET, STICK])


def every_sample(planner: EmbeddedPlanner, path: np.ndarray) -> int | None:
    samples, segments = densify(path, COLLISION_STEP_RAD)
    return next((int(segments[k]) for k, q in enumerate(samples) if planner.in_collision(q)), None)


@settings(max_examples=40, deadline=None)
@given(moves)
def test_it_finds_what_a_check_of_every_sample_finds(planner: EmbeddedPlanner, steps: np.ndarray) -> None:
    low, high = planner.position_limits
    path = np.clip(HOME + np.cumsum(np.vstack([np.zeros(7), steps]), axis=0), low, high)
    assert planner.first_collision(path) == every_sample(planner, path)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5))
def test_distances_change_no_faster_than_the_bounds_say(planner: EmbeddedPlanner, seed: int, size: float) -> None:
    arm, collision = planner._arm, planner._arm._collision
    world, scratch = collision._current()
    low, high = planner.position_limits
    random = np.random.default_rng(seed)
    q = random.uniform(low, high)
    moved = np.clip(q + size * random.uniform(-1, 1, 7), low, high)
    distances = []
    for configuration in (q, moved):
        pin.computeDistances(arm.model, scratch.model_data, world.geometry, scratch.exact, configuration)
        distances.append(np.array([result.min_distance for result in scratch.exact.distanceResults]))
    allowed = world.bounds.rates @ np.abs(moved - q)
    assert np.all(np.abs(distances[1] - distances[0]) <= allowed + 1e-5)


def test_a_path_through_open_space_takes_few_queries() -> None:
    planner = EmbeddedPlanner(CONTRACT, scene=load_scene(CELL / "scene.yaml", "panda_link0"))
    queries = []
    original = pin.computeCollisions
    path = HOME + np.linspace(0, 0.3, 60)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pin, "computeCollisions", lambda *a: queries.append(1) or original(*a))
        assert planner.first_collision(path) is None
    assert len(queries) <= 12


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms())
def test_the_search_finds_the_first_hit_whatever_is_surely_clear(hits: list[bool], random) -> None:
    samples = np.arange(float(len(hits)))[:, None]

    def clear(q: np.ndarray, deviation: np.ndarray) -> bool:
        low, high = round(q[0] - deviation[0]), round(q[0] + deviation[0])
        return not any(hits[low:high + 1]) and random.random() < 0.7   # may fail to see that it is clear

    expected = hits.index(True) if True in hits else None
    assert first_hit(samples, lambda q: hits[int(q[0])], clear) == expected


SLIDE = """<robot name="slide"><link name="rail"/>
<link name="carriage"><collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
<link name="pole"><collision><origin xyz="0.5 0 0"/><geometry><box size="1.0 0.05 0.05"/></geometry></collision></link>
<link name="tip"/>
<joint name="lift" type="prismatic"><parent link="rail"/><child link="carriage"/><axis xyz="0 0 1"/>
<limit lower="0" upper="1" effort="1" velocity="1"/></joint>
<joint name="turn" type="continuous"><parent link="carriage"/><child link="pole"/><axis xyz="0 0 1"/></joint>
<joint name="end" type="fixed"><parent link="pole"/><child link="tip"/><origin xyz="1 0 0"/></joint></robot>"""
NEIGHBOURS = """<robot name="slide"><disable_collisions link1="carriage" link2="pole"/></robot>"""


def test_sliding_and_endless_joints_are_checked_alike() -> None:
    limits = replace(CONTRACT.limits, velocity_rad_s=(1.0, 1.0), acceleration_rad_s2=(2.0, 2.0),
                     jerk_rad_s3=(50.0, 50.0))
    contract = replace(CONTRACT, robot=replace(CONTRACT.robot, joints=("turn", "lift"), base_frame="rail",
                                               tool_frame="tip", home_rad=(0.0, 0.0)), gripper=None, limits=limits)
    # 6 mm thin, so that steps of 0.02 m would jump over it.
    shelf = SceneObject("shelf", Box((0.2, 0.2, 0.006)), pose_matrix([0.8, 0.0, 0.5]))
    planner = EmbeddedPlanner(contract, RobotDescription(SLIDE, NEIGHBOURS), [shelf])
    rising, aside = np.array([[0.0, 0.0], [0.0, 0.9]]), np.array([[1.0, 0.0], [1.0, 0.9]])
    assert planner.first_collision(rising) == 0 and planner.first_collision(aside) is None
    np.testing.assert_allclose(planner.forward_kinematics(np.array([7.0, 0.3]))[:3, 3],
                               [np.cos(7.0), np.sin(7.0), 0.3], atol=1e-9)
    path = planner.plan(rising[0], rising[1])
    assert planner.first_collision(path.positions) is None
    np.testing.assert_allclose(path.positions[-1], rising[1], atol=1e-6)
