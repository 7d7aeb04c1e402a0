"""A camera that repeats one frame while the arm moves is told from one that sees a resting arm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ros.graph import CONTRACT

from corft.policy.frozen_images import FrozenImages
from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation

pytestmark = pytest.mark.ros
STEP_NS = 500_000_000
LIMIT_RAD = 0.2
ROBOT = Contract.load(CONTRACT)
ARM = len(ROBOT.robot.joints)


def pictures(count: int, *, same: bool) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), np.uint8)
    return [noise[0].copy() for _ in range(count)] if same else list(noise)


def observed(k: int, pixels: np.ndarray, moved_rad: float, *, image_age_ns: int = 0) -> AlignedObservation:
    """The observation of tick k; the other cameras work."""
    tick_ns = (k + 1) * STEP_NS
    fresh = np.random.default_rng(k + 1).integers(0, 255, (16, 16, 3), np.uint8)
    first, *others = ROBOT.cameras
    joints = np.zeros(ARM + 1)
    joints[2] = moved_rad
    return AlignedObservation(
        tick_ns, {"joint_state": joints, first.name: pixels} | {camera.name: fresh for camera in others},
        {"joint_state": tick_ns, first.name: tick_ns - image_age_ns} | {camera.name: tick_ns for camera in others})


def verdicts(images: list[np.ndarray], motion_rad: list[float], limit_rad: float = LIMIT_RAD) -> list[str]:
    check = FrozenImages(ROBOT, limit_rad)
    return [check.check(observed(k, *each)) for k, each in enumerate(zip(images, motion_rad, strict=True))]


def test_the_camera_is_named_with_how_long_and_how_far_the_arm_moved() -> None:
    *before, told = verdicts(pictures(4, same=True), [0.0, 0.1, 0.15, 0.25])
    assert before == ["", "", ""]
    assert told.startswith(f"{ROBOT.cameras[0].name} has shown the same picture for 1.5 s while a joint moved 0.25 rad")


@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_one_frame_is_told_exactly_when_the_arm_moved_further_than_allowed(motion_rad: list[float]) -> None:
    told = verdicts(pictures(len(motion_rad), same=True), motion_rad)
    for k, text in enumerate(told):
        assert bool(text) == (np.ptp(motion_rad[:k + 1]) > LIMIT_RAD)
    assert not any(verdicts(pictures(len(motion_rad), same=False), motion_rad)), "a working camera"
    assert not any(verdicts(pictures(len(motion_rad), same=True), motion_rad, 0.0)), "switched off"


def test_a_renderer_that_sees_a_resting_arm_is_no_frozen_camera() -> None:
    assert not any(verdicts(pictures(20, same=True), [0.7] * 20))


def test_motion_after_the_last_image_does_not_count() -> None:
    check, pixels = FrozenImages(ROBOT, LIMIT_RAD), pictures(1, same=True)[0]
    assert not check.check(observed(0, pixels, 0.0))
    assert not check.check(observed(1, pixels, 1.0, image_age_ns=STEP_NS // 10)), "taken before the arm moved"
    assert check.check(observed(2, pixels, 1.0, image_age_ns=STEP_NS // 10))


def test_images_of_one_colour_stand_in_for_a_camera() -> None:
    assert not any(verdicts([np.full((16, 16, 3), (0, 90, 255), np.uint8)] * 5, [0.0, 0.5, 1.0, 1.5, 2.0]))


def test_a_new_goal_begins_anew() -> None:
    check, pixels = FrozenImages(ROBOT, LIMIT_RAD), pictures(1, same=True)[0]
    assert not check.check(observed(0, pixels, 0.0))
    check.reset()
    assert not check.check(observed(1, pixels, 1.0))
