"""The tasks scanner, cube and shelf: who holds the object as asked succeeds, and nobody else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from corft_core.cell import Cell, make_scene
from corft_core.cell.habits import STEADY
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.tasks import cube as cube_task
from corft_core.cell.tasks import get_task
from corft_core.cell.tasks import scanner as scanner_task
from corft_core.cell.tasks import shelf as shelf_task
from corft_core.cell.tasks.lift import Grip
from corft_core.cell.teleoperator import ImperfectOperator

TASKS = ("scanner", "cube", "shelf")


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics()


@pytest.fixture(scope="module")
def cells():
    cells = {name: Cell(task=name) for name in TASKS}
    yield cells
    for cell in cells.values():
        cell.close()


def perform(cell, arm, scene_id, seed=0, habits=None, until=lambda cell: cell.success):
    """Let the operator work; the commanded joints (steps, 7)."""
    scene = make_scene(scene_id)
    cell.reset(scene)
    operator = ImperfectOperator(seed, habits=habits or cell.task.habits, kinematics=arm)
    joints = []
    while not (until(cell) or operator.done) and cell.time_s < cell.task.time_limit_s:
        path, gripper_m = operator.command(cell.time_s, cell.joint_positions, cell.finger_position_m, cell.objects(),
                                           scene)
        cell.command_trajectory(path)
        cell.command_gripper(gripper_m)
        cell.step(0.1)
        joints.append(path.positions[-1])
    return np.array(joints)


def grips_elsewhere(monkeypatch, cell, offset_m, **changes):
    """Let the operator take the object this far from where it should."""
    right = type(cell.task).grip

    def wrong(task, hand) -> Grip:
        grip = right(task, hand)
        return replace(grip, position_m=grip.position_m + np.array(offset_m), **changes)

    monkeypatch.setattr(type(cell.task), "grip", wrong)


ONCE = replace(STEADY, attempts=1)


@pytest.mark.parametrize("name", TASKS)
def test_the_operator_succeeds_wherever_the_object_is(cells, arm, name):
    cell, lengths = cells[name], []
    for seed, split in enumerate(("demo", "ind", "ood", "ood", "fixed_demo", "fixed_ind")):
        perform(cell, arm, f"{name}/{split}/{seed}", seed)
        assert cell.success, f"{split}/{seed}"
        lengths.append(cell.time_s)
    assert 3.0 < np.mean(lengths) < 10.0
    assert max(lengths) > 1.3 * min(lengths)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_the_same_episode(cells, arm, name):
    first, again = (perform(cells[name], arm, f"{name}/demo/2", seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    other = perform(cells[name], arm, f"{name}/demo/2", seed=4)
    assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.parametrize("name", TASKS)
def test_an_object_that_nobody_touches_stays_where_it_is(cells, name):
    cell, scene = cells[name], make_scene(f"{name}/ind/1")
    cell.reset(scene)
    cell.step(1.5)
    assert not cell.success
    x, y, _ = cell.position_m(cell.task.target)
    assert (x, y) == pytest.approx(scene.target_xy_m, abs=1e-3)
    assert abs(cell.risen_m(cell.task.target)) < 2e-3


@pytest.mark.parametrize("name", TASKS)
def test_a_lifted_object_that_is_dropped_at_once_is_no_success(cells, arm, name):
    cell = cells[name]
    perform(cell, arm, f"{name}/demo/1", habits=STEADY, until=lambda cell: cell.risen_m(cell.task.target) > 0.065)
    assert not cell.success
    cell.command_gripper(0.04)
    for _ in range(10):
        cell.step(0.1)
        assert not cell.success


def test_a_scanner_is_not_held_by_its_head(cells, arm, monkeypatch):
    cell = cells["scanner"]
    grips_elsewhere(monkeypatch, cell, [scanner_task.HEAD_X_M - scanner_task.GRIP_X_M, 0.0, 0.0])
    perform(cell, arm, "scanner/fixed_ind/0", habits=ONCE)
    assert not cell.success


def test_the_tool_turns_with_the_scanner(cells, arm):
    cell = cells["scanner"]
    yaws = []
    for number in range(8):
        scene = make_scene(f"scanner/ind/{number}")
        yaws.append(dict(scene.places)["scanner"][2])
    turned = int(np.argmax(np.abs(yaws)))
    assert abs(yaws[turned]) > 0.2
    perform(cell, arm, f"scanner/ind/{turned}", habits=STEADY)
    turn = arm.tool_rotation(cell.joint_positions)
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(yaws[turned], abs=0.05)


@pytest.mark.parametrize(("error_m", "succeeds"), [(0.006, True), (0.012, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_the_cube_wants_precision_across_the_fingers(cells, arm, monkeypatch, error_m, succeeds, side):
    cell = cells["cube"]
    grips_elsewhere(monkeypatch, cell, [0.0, side * error_m, 0.0])
    perform(cell, arm, "cube/fixed_ind/1", habits=ONCE)
    assert cell.success == succeeds


def test_the_rack_stands_around_the_cube(cells):
    for number in range(5):
        scene = make_scene(f"cube/demo/{number}")
        places = dict(scene.places)
        assert places["rack"] == places["cube"]
        cells["cube"].reset(scene)
        cells["cube"].step(0.1)
        assert cells["cube"].touching("cube") == {"rack"}
    assert cube_task.CUBE_HALF_M < cube_task.BLOCK_GAP_M


@pytest.mark.parametrize(("name", "error_m"), [("scanner", 0.02), ("shelf", 0.015)])
@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_scanner_and_mug_forgive_a_rough_aim(cells, arm, monkeypatch, name, error_m, direction):
    cell = cells[name]
    grips_elsewhere(monkeypatch, cell, [*(error_m * np.array(direction)), 0.0])
    perform(cell, arm, f"{name}/fixed_ind/2", habits=ONCE)
    assert cell.success


def test_a_mug_lifted_where_it_stands_meets_the_board(cells, arm, monkeypatch):
    cell = cells["shelf"]
    monkeypatch.setattr(type(cell.task), "lift", get_task("scanner").lift.__func__)
    perform(cell, arm, "shelf/fixed_ind/0", habits=ONCE)
    assert not cell.success
    assert cell.position_m("mug")[2] < shelf_task.FLOOR_M + shelf_task.UNDER_M


def test_an_upright_hand_cannot_reach_under_the_board(cells, arm, monkeypatch):
    cell = cells["shelf"]
    deep = next(f"shelf/ind/{i}" for i in range(50) if make_scene(f"shelf/ind/{i}").target_xy_m[0] > 0.57)
    grips_elsewhere(monkeypatch, cell, [0.0, 0.0, 0.0], pitch_rad=0.0, approach_m=np.array([0.0, 0.0, 0.2]))
    perform(cell, arm, deep, habits=ONCE)
    assert not cell.success


def test_mugs_stand_in_the_shelf_and_unseen_ones_apart_from_seen_ones():
    low_x, high_x, low_y, high_y = shelf_task.REGION_M
    for number in range(40):
        for split in ("demo", "ind", "fixed_demo"):
            x, y = make_scene(f"shelf/{split}/{number}").target_xy_m
            assert low_x <= x <= high_x
            assert low_y <= y <= high_y
            a, b, c, d = shelf_task.PATCH_M
            assert split.startswith("fixed") or not (a <= x <= b and c <= y <= d)
        x, y = make_scene(f"shelf/ood/{number}").target_xy_m
        assert (abs(y) <= 0.025) if number % 2 == 0 else (0.01 <= abs(y) - high_y <= 0.04)
    assert make_scene("shelf/demo/1").places != make_scene("shelf/ind/1").places


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_the_robots_cameras_see_where_the_object_is(cells, name, camera):
    """Two scenes whose objects lie apart differ in many pixels."""
    cell = cells[name]
    pictures = []
    for number in (0, 1):
        scene = replace(make_scene(f"{name}/ind/{number}"), joint_noise_rad=(0.0,) * 7, light=1.0)
        cell.reset(scene)
        pictures.append(cell.render(camera).astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(axis=2) > 40).sum() > 100
