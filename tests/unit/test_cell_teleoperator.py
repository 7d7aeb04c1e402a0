"""The imperfect operator and the demonstrations it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corft_core.cell import STEADY, Cell, Habits, ImperfectOperator, demonstrate, make_scene
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.picture import contact_sheet
from corft_core.cell.tasks.cube_to_bin import cubes_in_bin
from corft_core.contract import Contract

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")


@pytest.fixture(scope="module")
def cell():
    cell = Cell()
    yield cell
    cell.close()


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics()


def drive(cell, arm, scene_id, seed, habits=None, limit_s=40.0):
    """Success, length in s, and whether the fingers ever closed on nothing; no images."""
    scene = make_scene(scene_id)
    cell.reset(scene)
    operator = ImperfectOperator(seed, habits=habits, kinematics=arm)
    missed = False
    while not (cell.success or operator.done) and cell.time_s < limit_s:
        path, gripper_m = operator.command(cell.time_s, cell.joint_positions, cell.finger_position_m, cell.objects(),
                                           scene)
        cell.command_trajectory(path)
        cell.command_gripper(gripper_m)
        cell.step(0.1)
        missed |= cell.finger_position_m < 0.005
    return cell.success, cell.time_s, missed


def test_most_demonstrations_succeed_and_their_lengths_differ_widely(cell, arm):
    results = [drive(cell, arm, f"{split}/{i}", seed=i) for i in range(5) for split in ("demo", "ood")]
    lengths = np.array([length for success, length, _ in results if success])
    assert len(lengths) >= 0.85 * len(results)
    assert 7.0 < lengths.mean() < 14.0
    assert lengths.max() > 1.5 * lengths.min()


def test_a_steady_operator_is_quick(cell, arm):
    success, length, missed = drive(cell, arm, "demo/1", 0, STEADY)
    assert success
    assert not missed
    assert 4.0 < length < 7.5


def test_the_same_scene_is_shown_fast_and_slow(cell, arm):
    fast = drive(cell, arm, "demo/4", 0, Habits(speed=(1.0, 1.0)))[1]
    slow = drive(cell, arm, "demo/4", 0, Habits(speed=(0.35, 0.35)))[1]
    assert slow > 1.6 * fast


def test_a_missed_grasp_is_repeated_until_it_holds(cell, arm):
    always_misses_first = Habits(aim_error=0.0, miss=1.0, pause=0.0, detour=0.0)
    for scene_id in ("demo/2", "demo/3"):
        success, _, missed = drive(cell, arm, scene_id, 1, always_misses_first)
        assert missed
        assert success


def test_the_wrong_instruction_gives_the_wrong_cube(cell, arm):
    scene = make_scene("demo/6")
    cell.reset(scene)
    operator = ImperfectOperator(0, habits=STEADY, kinematics=arm)
    asked_otherwise = scene.with_target("blue_cube")
    while not operator.done and cell.time_s < 20:
        path, gripper_m = operator.command(cell.time_s, cell.joint_positions, cell.finger_position_m, cell.objects(),
                                           asked_otherwise)
        cell.command_trajectory(path)
        cell.command_gripper(gripper_m)
        cell.step(0.1)
    assert cubes_in_bin(cell) == {"blue_cube"}
    assert not cell.success


def test_demonstrations_are_episodes_on_the_contracts_grid():
    episode, again = (next(demonstrate(CONTRACT, ["demo/0"], seed=5)) for _ in range(2))
    episode.validate()
    assert episode.success
    assert episode.reward[-1] == 1
    assert episode.instruction == "pick up the red cube and put it in the bin"
    assert set(episode.images) == {"front", "wrist"}
    assert np.array_equal(episode.action, again.action)
    assert np.array_equal(episode.images["wrist"], again.images["wrist"])
    # The action of a tick is where the arm is one tick later.
    assert np.abs(episode.action[:-1, :7] - episode.state[1:, :7]).max() < 0.05
    assert set(np.unique(episode.action[:, 7])) == {0.0, 1.0}
    assert contact_sheet(episode, 4).shape == (256, 512, 3)


def test_failures_are_given_too():
    (episode,) = demonstrate(CONTRACT, ["demo/0"], time_limit_s=1.0)
    assert not episode.success
    assert len(episode) == 10
    assert episode.truncated[-1]
