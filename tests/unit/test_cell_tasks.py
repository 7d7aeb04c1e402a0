"""The cell's lifting tasks: scenes, success by physics, the operator, and the suite that offers them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.cell import STEADY, Cell, ImperfectOperator, make_scene
from corft_core.cell.kinematics import ArmKinematics, tool_orientation
from corft_core.cell.model import HOME_RAD
from corft_core.cell.scene import SPLITS, inside, scene_name
from corft_core.cell.suite import CellSuite
from corft_core.cell.tasks import LIFT_TASKS, TASKS, get_task, lift, shelf
from corft_core.contract import Contract
from corft_core.errors import CorftError

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics()


@pytest.fixture(scope="module", params=LIFT_TASKS)
def cell(request):
    cell = Cell(task=request.param)
    yield cell
    cell.close()


def drive(cell, arm, scene_id, seed, habits=None, on_step=lambda cell: None):
    """Success and length in s of an operator's episode, without images."""
    scene = make_scene(scene_id)
    cell.reset(scene)
    operator = ImperfectOperator(seed, habits=habits or cell.task.habits, kinematics=arm)
    while not (cell.success or operator.done) and cell.time_s < cell.task.time_limit_s:
        path, gripper_m = operator.command(cell.time_s, cell.joint_positions, cell.finger_position_m, cell.objects(),
                                           scene)
        cell.command_trajectory(path)
        cell.command_gripper(gripper_m)
        cell.step(0.1)
        on_step(cell)
    return cell.success, cell.time_s


@settings(max_examples=80, deadline=None)
@given(task=st.sampled_from(LIFT_TASKS), split=st.sampled_from(SPLITS), number=st.integers(0, 10**9))
def test_a_scene_lies_in_the_region_of_its_split(task, split, number):
    scene = make_scene(f"{task}/{split}/{number}")
    assert scene == make_scene(f"{task}/{split}/{number}")
    assert scene.task == task
    at = scene.target_xy_m
    # The shelf has a region of its own.
    layout = shelf if task == "shelf" else lift
    near, far = ((layout.REGION_M[0] - by, layout.REGION_M[1] + by, layout.REGION_M[2] - by, layout.REGION_M[3] + by)
                 for by in layout.STRIP_M)
    if split in ("demo", "ind"):
        assert inside(at, layout.REGION_M)
        assert not inside(at, layout.PATCH_M)
    elif split == "ood" and number % 2 == 0:
        assert inside(at, layout.PATCH_M)
    elif split == "ood":
        assert inside(at, far)
        assert not inside(at, near)
    else:
        x, y = lift.NOMINAL_XY_M
        nominal = (x + shelf.FIXED_SHIFT_M, y) if task == "shelf" else (x, y)
        assert math.dist(at, nominal) <= 1.5 * lift.NOMINAL_NOISE_M
        assert not inside(at, layout.PATCH_M)


def test_demonstrations_surround_the_patch_and_never_touch_what_is_unseen():
    assert inside(lift.NOMINAL_XY_M, lift.REGION_M)
    assert not inside(lift.NOMINAL_XY_M, lift.PATCH_M)
    seen = {make_scene(f"cup/demo/{i}").target_xy_m for i in range(200)}
    assert not seen & {make_scene(f"cup/ind/{i}").target_xy_m for i in range(200)}
    middle = np.array([sum(lift.PATCH_M[:2]), sum(lift.PATCH_M[2:])]) / 2
    directions = np.sign(np.array(sorted(seen)) - middle)
    assert len({tuple(direction) for direction in directions}) == 4


def test_names_of_scenes_are_read_back():
    assert scene_name("cube_to_bin", "ind", 7) == "ind/7"
    for task in TASKS:
        name = scene_name(task, "ind", 7)
        assert (make_scene(name).scene_id, make_scene(name).task) == (name, task)


@pytest.mark.parametrize("scene_id", ["cup/test/1", "cup/demo/-1", "kettle/demo/1", "cup/demo", "cup/a/demo/1"])
def test_unknown_tasks_and_splits_are_refused(scene_id):
    with pytest.raises(CorftError, match=r"no scene|no task"):
        make_scene(scene_id)


def test_a_scene_of_another_task_is_refused(cell):
    with pytest.raises(CorftError, match="cube_to_bin"):
        cell.reset(make_scene("demo/0"))


def test_an_untouched_object_stays_and_is_no_success(cell):
    name = cell.task.name
    scene = make_scene(f"{name}/ind/5")
    cell.reset(scene)
    cell.step(1.0)
    assert not cell.success
    assert cell.position_m(scene.target)[:2] == pytest.approx(scene.target_xy_m, abs=0.004)
    assert abs(cell.risen_m(scene.target)) < 0.004


def test_the_operator_succeeds_and_lengths_vary(cell, arm):
    name = cell.task.name
    results = [drive(cell, arm, f"{name}/{split}/{i}", seed=i) for split in ("demo", "ood") for i in range(3)]
    lengths = np.array([length for success, length in results if success])
    assert len(lengths) >= 5
    assert 3.5 < lengths.mean() < 9.0
    assert lengths.max() > 1.5 * lengths.min()


def test_a_faulty_operator_fails_now_and_then(cell, arm):
    habits = replace(cell.task.faulty_habits, give_up=1.0)
    results = [drive(cell, arm, f"{cell.task.name}/demo/{i}", i, habits)[0] for i in range(4)]
    assert sum(results) < 4


def test_success_comes_with_the_hold_and_goes_with_the_drop(cell, arm):
    held: list[bool] = []
    success, _ = drive(cell, arm, f"{cell.task.name}/demo/2", 0, STEADY,
                       on_step=lambda cell: held.append(cell.task.achieved(cell)))
    assert success
    assert held[-4:] == [True] * 4  # 0.3 s at 10 Hz
    cell.command_gripper(0.04)
    cell.step(1.0)
    assert not cell.success


@pytest.mark.parametrize("yaw, pitch", [(0.4, 0.0), (-0.4, 0.0), (0.0, 0.6), (0.3, 0.4)])
def test_the_tool_can_be_turned_and_leant(arm, yaw, pitch):
    position = np.array([0.45, 0.0, 0.2])
    joints = arm.solve(position, yaw, np.array(HOME_RAD), iterations=80, pitch_rad=pitch)
    assert arm.tool_position(joints) == pytest.approx(position, abs=2e-3)
    assert arm.tool_rotation(joints) == pytest.approx(tool_orientation(yaw, pitch), abs=2e-2)


def test_a_leant_tool_points_forward_and_a_turned_one_to_the_left():
    assert tool_orientation(0.0, math.pi / 2)[:, 2] == pytest.approx([1, 0, 0], abs=1e-12)
    assert tool_orientation(math.pi / 2)[:, 0] == pytest.approx([0, 1, 0], abs=1e-12)


def test_the_suite_gives_equal_demonstrations_for_equal_seeds_and_fewer_are_the_first_of_more():
    suite = CellSuite(CONTRACT)
    (first,) = suite.demonstrate("bottle", 1, seed=3)
    again = suite.demonstrate("bottle", 2, seed=3)
    first.validate()
    assert first.success
    assert first.instruction == get_task("bottle").instruction
    assert np.array_equal(first.action, again[0].action)
    assert np.array_equal(first.images["front"], again[0].images["front"])
    assert again[0].scene_id != again[1].scene_id
    (other,) = suite.demonstrate("bottle", 1, seed=4, start="fixed")
    assert other.scene_id.startswith("bottle/fixed_demo/")


def test_the_suite_names_scenes_and_kinds_of_unseen_ones():
    suite = CellSuite(CONTRACT)
    assert suite.scene_ids("cup", "ood", 2, first=4) == ["cup/ood/4", "cup/ood/5"]
    assert [suite.unseen_kind(scene) for scene in ("cup/ood/4", "cup/ood/5", "cup/ind/4")] == [
        "surrounded", "beyond", ""]
    with pytest.raises(CorftError, match="no scene"):
        suite.scene_ids("cup", "none", 1)
    with pytest.raises(CorftError, match="random, fixed"):
        suite.demonstrate("cup", 1, 0, start="anywhere")


def test_an_environment_follows_an_episodes_actions_to_success():
    suite = CellSuite(CONTRACT)
    (episode,) = suite.demonstrate("ring", 1, seed=1)
    environment = suite.environment("ring")
    try:
        environment.reset(episode.scene_id)
        images, state = environment.observe()
        assert np.array_equal(images["wrist"], episode.images["wrist"][0])
        assert state == pytest.approx(episode.state[0])
        actions = episode.action.astype(np.float64)
        for step in range(len(actions)):
            if step % 5 == 0:
                environment.start_chunk(actions[step:step + 10])
            environment.step(actions[step])
        assert environment.success
    finally:
        environment.close()
