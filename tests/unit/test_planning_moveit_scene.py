"""Scenes that MoveIt or RViz wrote: both text formats, PlanningScene messages and their printed form."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.contract import Contract
from corft_core.planning import (
    Box,
    Cylinder,
    PlanningError,
    SceneObject,
    Sphere,
    Triangles,
    load_scene,
    make_planner,
    pose_matrix,
)
from corft_core.planning.moveit_scene import scene_from_message, scene_from_text
from corft_core.planning.scene import scene_from_dict
from corft_core.poses import quaternion_of

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
NEW = """my scene
* table top
0.5 0 0.1
0 0 0.7071068 0.7071068
2
box
1 0.5 0.02
0 0 0
0 0 0 1
0 0 0 0
cylinder
0.03 0.4
0.1 0 -0.2
0 0 0 1
0.5 0.5 0.5 1
1
grasp point
0 0 0
0 0 0 1
* part
1 2 3
0 0 0 1
1
mesh
4 2
0 0 0
1 0 0
0 1 0
0 0 1
0 1 2
0 2 3
0 0 0
0 0 0 1
0 0 0 0
0
.
"""
OLD = """old scene
* ball
1
sphere
0.05
0.4 0.1 0.2
0 0 0 1
0 0 0 0
.
"""


def test_the_newer_text_format_is_read() -> None:
    top, leg, part = scene_from_text(NEW)
    assert [top.name, leg.name, part.name] == ["table top", "table top#1", "part"]
    assert top.shape == Box((1.0, 0.5, 0.02)) and leg.shape == Cylinder(0.03, 0.4)
    np.testing.assert_allclose(leg.pose[:3, 3], [0.5, 0.1, -0.1], atol=1e-6)   # turned with its object
    assert isinstance(part.shape, Triangles) and part.shape.faces == ((0, 1, 2), (0, 2, 3))
    np.testing.assert_allclose(part.pose[:3, 3], [1, 2, 3])


def test_the_older_text_format_is_read_and_moved_into_the_base_frame() -> None:
    ball, = scene_from_text(OLD, base=pose_matrix([0.4, 0.0, 0.2]))
    assert ball.shape == Sphere(0.05)
    np.testing.assert_allclose(ball.pose[:3, 3], [0.0, 0.1, 0.0], atol=1e-12)


@pytest.mark.parametrize("text, message", [
    (NEW.replace("box", "torus"), r"line 6: shape 'torus' is not one of sphere"),
    (NEW.replace("1 0.5 0.02", "1 0.5"), "line 7: expected 3 finite numbers, got '1 0.5'"),
    (NEW.replace("1 0.5 0.02", "1 nan 2"), "expected 3 finite numbers"),
    (NEW.replace("0 0 0.7071068 0.7071068", "0 0 0 0"), "length 0.000, expected 1"),
    (NEW[:-3], "the file ends"),
    ("", "the file ends"),
    ("name\nbox\n", "expected an object, . NAME"),
])
def test_damage_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        scene_from_text(text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(NEW) - 3), st.text(max_size=3))
def test_any_damage_is_an_error_or_a_scene(position: int, put: str) -> None:
    with contextlib.suppress(PlanningError):
        scene_from_text(NEW[:position] + put + NEW[position + 2:])


positions = st.tuples(*[st.floats(-2, 2)] * 3)
sizes = st.floats(0.001, 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(sizes, sizes, sizes, positions, positions), max_size=4))
def test_what_is_written_in_the_format_is_read_back(boxes: list) -> None:
    lines = ["scene"]
    for k, (x, y, z, position, rpy) in enumerate(boxes):
        turned = quaternion_of(pose_matrix([0, 0, 0], rpy))
        lines += [f"* box {k}", " ".join(map(repr, position)), " ".join(repr(float(v)) for v in turned), "1", "box",
                  f"{x!r} {y!r} {z!r}", "0 0 0", "0 0 0 1", "0 0 0 0", "0"]
    read = scene_from_text("\n".join([*lines, ".", ""]))
    assert [item.shape for item in read] == [Box((x, y, z)) for x, y, z, _, _ in boxes]
    for item, (_, _, _, position, rpy) in zip(read, boxes, strict=True):
        np.testing.assert_allclose(item.pose, pose_matrix(position, rpy), atol=1e-9)


ECHOED = """
robot_state:
  attached_collision_objects:
  - link_name: panda_hand
    touch_links: [panda_hand, panda_leftfinger]
    object:
      header: {frame_id: panda_hand}
      id: cup
      primitives: [{type: 3, dimensions: [0.1, 0.03]}]
      primitive_poses: [{position: {x: 0.0, y: 0.0, z: 0.1}, orientation: {x: 0.0, y: 0.0, z: 0.0, w: 1.0}}]
allowed_collision_matrix:
  entry_names: [cup, panda_link7, shelf, panda_link0, panda_link1]
  entry_values:
  - enabled: [false, true, true, false, false]
  - enabled: [true, false, false, false, false]
  - enabled: [true, false, false, true, false]
  - enabled: [false, false, true, false, true]
  - enabled: [false, false, false, true, false]
world:
  collision_objects:
  - header: {frame_id: world}
    id: shelf
    pose: {position: {x: 0.5, y: 0.0, z: 0.0}, orientation: {x: 0.0, y: 0.0, z: 0.0, w: 0.0}}
    primitives: [{type: 1, dimensions: [0.2, 0.3, 0.4]}]
    primitive_poses: [{position: {x: 0.0, y: 0.0, z: 0.2}, orientation: {x: 0.0, y: 0.0, z: 0.0, w: 1.0}}]
  - header: {frame_id: panda_link0}
    id: floor
    planes: [{coef: [0.0, 0.0, 2.0, 1.0]}]
    plane_poses: [{position: {x: 0.0, y: 0.0, z: 0.0}, orientation: {x: 0.0, y: 0.0, z: 0.0, w: 1.0}}]
---
"""


def message(value):
    """The printed form as attributes, as a message has them."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: message(item) for key, item in value.items()})
    return [message(item) for item in value] if isinstance(value, list) else value


def test_a_printed_planning_scene_is_read(tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(ECHOED)
    shelf, floor, cup = load_scene(tmp_path / "echo.yaml", "panda_link0", pose_matrix([0.0, 0.0, 0.1]))
    assert shelf.shape == Box((0.2, 0.3, 0.4)) and cup.shape == Cylinder(0.03, 0.1)
    np.testing.assert_allclose(shelf.pose[:3, 3], [0.5, 0.0, 0.1])     # the base stands 0.1 m above the world's origin
    assert isinstance(floor.shape, Box)
    np.testing.assert_allclose(floor.pose[:3, 3], [0.0, 0.0, -0.5])
    assert cup.attached_to == "panda_hand" and cup.touch_links == ("panda_leftfinger", "panda_link7")
    assert cup.touch_objects == ("shelf",) and shelf.touch_links == ("panda_link0",)


def test_a_message_that_carries_meshes_is_read_like_its_printed_form() -> None:
    data = {"world": {"collision_objects": [{
        "header": {"frame_id": "panda_link0"}, "id": "part", "primitives": [], "primitive_poses": [], "planes": [],
        "plane_poses": [], "mesh_poses": [], "pose": None,
        "meshes": [{"vertices": [{"x": 0.0, "y": 0.0, "z": float(k)} for k in range(3)],
                    "triangles": [{"vertex_indices": [0, 1, 2]}]}]}]},
            "robot_state": {"attached_collision_objects": []},
            "allowed_collision_matrix": {"entry_names": [], "entry_values": []}}
    from_message, = scene_from_message(message(data), "panda_link0")
    from_mapping, = scene_from_message(data, "panda_link0")
    assert from_message.shape == from_mapping.shape == Triangles(((0, 0, 0), (0, 0, 1), (0, 0, 2)), ((0, 1, 2),))
    data["world"]["collision_objects"][0]["meshes"][0]["vertices"].append("...")   # type: ignore[index]
    with pytest.raises(PlanningError, match="add --full-length"):
        scene_from_message(data, "panda_link0")


def test_objects_may_touch_as_the_scene_file_allows(tmp_path: Path) -> None:
    data = yaml.safe_load("""
        frame: panda_link0
        objects:
          - {name: table, box_m: [1, 1, 0.1], position_m: [0.6, 0, -0.05]}
          - {name: cube, box_m: [0.04, 0.04, 0.04], attached_to: panda_hand}
          - {name: ball, sphere_m: 0.1, position_m: [0, 0, 2]}
        allowed: [[cube, table], [panda_link7, cube]]""")
    table, cube, ball = scene_from_dict(data, "panda_link0")
    assert cube.touch_objects == ("table",) and cube.touch_links == ("panda_link7",)
    assert table == replace(table, touch_objects=()) and ball.shape == Sphere(0.1)
    for allowed, expected in (([["panda_link1", "panda_link3"]], "belong into the SRDF"),
                              ([["cube"]], "pairs of names")):
        with pytest.raises(PlanningError, match=expected):
            scene_from_dict({**data, "allowed": allowed}, "panda_link0")
    with pytest.raises(PlanningError, match="may touch lid, which is not in the scene; its objects: cube"):
        make_planner("embedded", CONTRACT, [SceneObject("cube", Box((1, 1, 1)), pose_matrix([0, 0, 9]),
                                                        touch_objects=("lid",))])


def test_the_embedded_planner_keeps_clear_of_a_moveit_scene(tmp_path: Path) -> None:
    planner = make_planner("embedded", CONTRACT)
    tool = planner.forward_kinematics(np.array(CONTRACT.robot.home_rad))[:3, 3]
    (tmp_path / "ball.scene").write_text(OLD.replace("0.4 0.1 0.2", " ".join(map(str, tool))))
    (tmp_path / "cell.stl").write_text("")
    met = make_planner("embedded", CONTRACT, tmp_path / "ball.scene").in_collision(np.array(CONTRACT.robot.home_rad))
    assert ("panda_hand", "ball") in met
    planner.set_scene([SceneObject("wedge", Triangles(
        ((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1)),
        ((0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3))), pose_matrix(tool - 0.02))])
    assert any("wedge" in pair for pair in planner.in_collision(np.array(CONTRACT.robot.home_rad)))
