"""Scenes that several tests of the planners use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from corft_core.planning import Box, Cylinder, SceneObject, pose_matrix
from corft_core.planning.interface import MotionPlanner


def check_that_objects_may_touch_where_the_scene_says_so(planner: MotionPlanner, q: np.ndarray) -> list[SceneObject]:
    """A stick in the hand reaches into a wall; returns both, as they must not touch."""
    wall = SceneObject("wall", Box((0.2, 0.2, 0.02)), planner.forward_kinematics(q) @ pose_matrix([0, 0, 0.15]))
    stick = SceneObject("stick", Cylinder(0.01, 0.3), pose_matrix([0, 0, 0.2]), "panda_hand",
                        ("panda_leftfinger", "panda_rightfinger"))
    planner.set_scene([wall, stick])
    assert {frozenset(pair) for pair in planner.in_collision(q)} == {frozenset(("stick", "wall"))}
    planner.set_scene([wall, replace(stick, touch_objects=("wall",))])
    assert planner.in_collision(q) == []
    return [wall, stick]
