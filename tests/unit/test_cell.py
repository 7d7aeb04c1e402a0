"""The simulated cell: scenes, success by physics, what the cameras see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.cell import Cell, TrajectoryRejected, make_scene
from corft_core.cell.kinematics import TOOL_DOWN, ArmKinematics
from corft_core.cell.model import ARM_JOINTS, HOME_RAD
from corft_core.cell.tasks import cube_to_bin as layout
from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

numbers = st.integers(0, 10**9)


@pytest.fixture(scope="module")
def cell():
    cell = Cell()
    yield cell
    cell.close()


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics()


def go(cell, arm, xyz, gripper_m, seconds=1.0):
    """Move the tool there along a cubic and wait until it has settled."""
    joints = arm.solve(np.array(xyz), 0.0, cell.joint_positions, iterations=60)
    zeros = np.zeros((1, 7))
    cell.command_trajectory(JointPath(ARM_JOINTS, np.array([seconds]), joints[None], zeros))
    cell.step(seconds + 0.2)
    cell.command_gripper(gripper_m)
    cell.step(0.5)


def carry_to_bin(cell, arm, name, offset=0.0):
    x, y = cell.objects()[name][0][:2]
    bin_x, bin_y = layout.BIN_CENTRE_M
    for step in ([x, y, 0.12, 0.04], [x, y, 0.022, 0.0], [x, y, 0.15, 0.0], [bin_x, bin_y + offset, 0.15, 0.0],
                 [bin_x, bin_y + offset, 0.085, 0.0]):
        go(cell, arm, step[:3], step[3])


@settings(max_examples=100, deadline=None)
@given(split=st.sampled_from(layout.TASK.splits), number=numbers)
def test_a_scene_follows_from_its_id_and_lies_in_its_region(split, number):
    scene = make_scene(f"{split}/{number}")
    assert scene == make_scene(f"{split}/{number}")
    region = layout.UNSEEN_REGION_M if split == "ood" else layout.DEMONSTRATED_REGION_M
    x, y = scene.target_xy_m
    assert region[0] <= x <= region[1]
    assert region[2] <= y <= region[3]
    (xa, ya, _), (xb, yb, _) = scene.cubes
    assert abs(xa - xb) >= layout.CLEARANCE_M[0] or abs(ya - yb) >= layout.CLEARANCE_M[1]
    assert scene.instruction == f"pick up the {scene.target.split('_')[0]} cube and put it in the bin"


def test_unseen_targets_are_disjoint_from_demonstrated_ones():
    assert layout.UNSEEN_REGION_M[3] < layout.DEMONSTRATED_REGION_M[2]


def test_splits_share_no_scene():
    assert not {make_scene(f"demo/{i}").cubes for i in range(50)} & {make_scene(f"ind/{i}").cubes for i in range(50)}


@pytest.mark.parametrize("scene_id", ["demo", "demo/", "demo/-1", "demo/x", "test/3", "", "ind/1.5"])
def test_unknown_scenes_are_refused_with_an_example(scene_id):
    with pytest.raises(CorftError, match="demo/0"):
        make_scene(scene_id)


def test_a_reset_places_everything_and_repeats_exactly(cell):
    scene = make_scene("ind/3")
    cell.reset(scene)
    first = cell.render("front")
    state = cell.joint_positions
    cell.step(0.5)
    cell.reset(scene)
    assert cell.time_s == 0
    assert np.array_equal(cell.render("front"), first)
    assert np.array_equal(cell.joint_positions, state)
    assert np.abs(state - HOME_RAD).max() < 0.05
    for (x, y, _), name in zip(scene.cubes, layout.CUBES, strict=True):
        assert cell.objects()[name][0] == pytest.approx([x, y, layout.CUBE_HALF_M])


def test_the_target_in_the_bin_is_success_once_the_gripper_lets_go(cell, arm):
    scene = make_scene("demo/0")
    cell.reset(scene)
    cell.step(0.3)
    assert not cell.success
    carry_to_bin(cell, arm, scene.target)
    assert not cell.success
    assert cell.objects()[scene.target][0][2] > 0.05
    cell.command_gripper(0.04)
    cell.step(1.0)
    assert layout.cubes_in_bin(cell) == {scene.target}
    assert cell.success


def test_the_wrong_cube_in_the_bin_is_not_success(cell, arm):
    scene = make_scene("demo/0").with_target("blue_cube")
    cell.reset(scene)
    carry_to_bin(cell, arm, "red_cube")
    cell.command_gripper(0.04)
    cell.step(1.0)
    assert layout.cubes_in_bin(cell) == {"red_cube"}
    assert not cell.success


def test_the_target_dropped_beside_the_bin_is_not_success(cell, arm):
    scene = make_scene("demo/0")
    cell.reset(scene)
    carry_to_bin(cell, arm, scene.target, offset=-0.13)
    cell.command_gripper(0.04)
    cell.step(1.0)
    assert not cell.success


def test_the_arm_follows_a_trajectory_closely(cell):
    cell.reset(make_scene("ind/1"))
    goal = cell.joint_positions + np.array([0.4, -0.2, 0.2, 0.3, 0.2, -0.3, 0.4])
    cell.command_trajectory(JointPath(ARM_JOINTS, np.array([1.0]), goal[None], np.zeros((1, 7))))
    worst = 0.0
    for _ in range(20):
        cell.step(0.05)
        worst = max(worst, float(np.abs(cell.joint_positions - cell.controller.desired(cell.time_s).positions).max()))
    assert worst < 0.01
    cell.step(0.5)
    assert cell.joint_positions == pytest.approx(goal, abs=0.002)


def test_commands_that_are_not_finite_are_refused(cell):
    cell.reset(make_scene("ind/1"))
    with pytest.raises(CorftError, match="finite"):
        cell.command_gripper(float("nan"))
    with pytest.raises(ValueError, match="finite"):
        cell.command_trajectory(JointPath(ARM_JOINTS, np.ones(1), np.full((1, 7), np.nan)))
    with pytest.raises(TrajectoryRejected, match="missing joints"):
        cell.command_trajectory(JointPath(ARM_JOINTS[:3], np.ones(1), np.zeros((1, 3))))


def pixel_of(cell, camera, point):
    """Row and column where a camera, with the intrinsics that CameraInfo gives, sees a point of the base frame."""
    data, model = cell._data, cell._model
    number = model.camera(camera).id
    rotation, position = data.cam_xmat[number].reshape(3, 3), data.cam_xpos[number]
    x, y, z = rotation.T @ (np.asarray(point) - position)
    height, width = cell.image_size
    focal = height / 2 / np.tan(cell.field_of_view_rad(camera) / 2)
    return focal * -y / -z + (height - 1) / 2, focal * x / -z + (width - 1) / 2


@pytest.mark.parametrize("scene_id", ["demo/0", "demo/1", "ood/0", "ood/5"])
def test_the_front_camera_sees_each_colour_where_the_cube_is(cell, scene_id):
    cell.reset(make_scene(scene_id))
    image = cell.render("front").astype(int)
    assert image.shape == (128, 128, 3)
    for name, channel in (("red_cube", 0), ("blue_cube", 2)):
        others = np.delete(image, channel, axis=2).max(axis=2)
        rows, columns = np.nonzero(image[..., channel] > 1.8 * others)
        assert len(rows) > 60, f"{name} covers {len(rows)} pixels"
        row, column = pixel_of(cell, "front", cell.objects()[name][0])
        assert (rows.mean(), columns.mean()) == pytest.approx((row, column), abs=2.5)


def test_the_wrist_camera_sees_the_cube_between_the_fingers(cell, arm):
    scene = make_scene("demo/0")
    cell.reset(scene)
    x, y = scene.target_xy_m
    go(cell, arm, [x, y, 0.022], 0.0)
    image = cell.render("wrist").astype(int)
    rows, columns = np.nonzero(image[..., 0] > 1.8 * image[..., 1:].max(axis=2))
    assert len(rows) > 300
    assert columns.mean() == pytest.approx(63.5, abs=6)


def test_an_unknown_camera_is_refused(cell):
    with pytest.raises(CorftError, match="front, wrist, overview"):
        cell.render("side")


def test_images_of_other_sizes_can_be_asked_for(cell):
    cell.reset(make_scene("ind/0"))
    assert cell.render("overview", (120, 160)).shape == (120, 160, 3)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(0.38, 0.6), y=st.floats(-0.22, 0.28), z=st.floats(0.02, 0.3))
def test_inverse_kinematics_reaches_the_work_area_pointing_down(arm, x, y, z):
    joints = arm.solve(np.array([x, y, z]), 0.0, np.array(HOME_RAD), iterations=80)
    assert arm.tool_position(joints) == pytest.approx([x, y, z], abs=2e-3)
    assert arm.tool_rotation(joints) == pytest.approx(TOOL_DOWN, abs=2e-2)
