"""Scenes as MoveIt writes them: ``.scene`` files (RViz, "Export") and moveit_msgs/PlanningScene.

An object of several shapes becomes several objects: ``name``, ``name#1``, … A cone is taken as the cylinder around it,
a plane as a thin box 20 m wide. Octomaps, subframes and colours are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from corft_core.planning.interface import (
    Array,
    Box,
    Cylinder,
    PlanningError,
    SceneObject,
    Shape,
    Sphere,
    Triangles,
    check_distinct,
)
from corft_core.planning.scene import with_allowed
from corft_core.poses import pose_matrices, pose_vector

_PLANE_M = (20.0, 20.0, 0.002)
_PRIMITIVES = {1: "box", 2: "sphere", 3: "cylinder", 4: "cone"}   # shape_msgs/SolidPrimitive


def scene_from_text(text: str, base: Array | None = None) -> list[SceneObject]:
    """Objects of a ``.scene`` file, of both MoveIt's formats (with and without a pose of the whole object).

    ``base``: pose 4x4 of the contract's base frame in MoveIt's planning frame. Raises PlanningError naming the line.
    """
    reader = _Reader(text)
    to_base = np.eye(4) if base is None else np.linalg.inv(base)
    objects: list[SceneObject] = []
    reader.line("the scene's name")
    while (marker := reader.line("an object or the end, .")) != ".":
        if not marker.startswith("*"):
            raise reader.error(f"expected an object, * NAME, or the end, ., got {marker!r}")
        name = marker[1:].strip()
        # The newer format begins with the object's pose, the older with the number of shapes.
        placed = len(reader.peek().split()) > 1
        pose = reader.pose() if placed else np.eye(4)
        shapes: list[tuple[Shape, Array]] = []
        for _ in range(reader.integer("the number of shapes")):
            kind = reader.line("a shape")
            if kind == "mesh":
                vertices, faces = reader.integers(2)
                shape, local = _triangles([reader.numbers(3) for _ in range(vertices)],
                                          [reader.integers(3) for _ in range(faces)]), np.eye(4)
            else:
                sizes = {"sphere": 1, "box": 3, "cylinder": 2, "cone": 2, "plane": 4}
                if kind not in sizes:
                    raise reader.error(f"shape {kind!r} is not one of {', '.join(sizes)}, mesh")
                values = reader.numbers(sizes[kind])
                shape, local = _text_shape(kind, values)
            shapes.append((shape, reader.pose() @ local))
            reader.numbers(4)   # colour
        if placed:
            for _ in range(reader.integer("the number of subframes")):
                reader.line("a subframe's name")
                reader.pose()
        objects += _objects(name, shapes, to_base @ pose)
    check_distinct(objects)
    return objects


def scene_from_message(message: Any, base_frame: str, base: Array | None = None) -> list[SceneObject]:
    """Objects of a moveit_msgs/PlanningScene, as a message or as the mapping that ``ros2 topic echo`` prints.

    Poses may be in the base frame, or in any other fixed frame, which is then taken as the planning frame. Raises
    PlanningError.
    """
    to_base = np.eye(4) if base is None else np.linalg.inv(base)
    objects: list[SceneObject] = []
    for item in _get(message, "world", "collision_objects"):
        frame = _get(item, "header", "frame_id")
        objects += _objects(_get(item, "id"), _message_shapes(item),
                            (np.eye(4) if frame in ("", base_frame) else to_base) @ _message_pose(item))
    state = _get(message, "robot_state")
    for carried in _get(state, "attached_collision_objects") if state else ():
        link, item = _get(carried, "link_name"), _get(carried, "object")
        frame = _get(item, "header", "frame_id")
        if frame not in ("", link):
            raise PlanningError(f"the attached object {_get(item, 'id')} is given in the frame {frame}; expected that "
                                f"of its link, {link}")
        objects += _objects(_get(item, "id"), _message_shapes(item), _message_pose(item), link,
                            tuple(name for name in _get(carried, "touch_links") if name != link))
    check_distinct(objects)
    return with_allowed(objects, list(_allowed(_get(message, "allowed_collision_matrix"), objects)))


def _objects(name: str, shapes: list[tuple[Shape, Array]], pose: Array, link: str | None = None,
             touch_links: tuple[str, ...] = ()) -> list[SceneObject]:
    return [SceneObject(name if k == 0 else f"{name}#{k}", shape, pose @ local, link, touch_links)
            for k, (shape, local) in enumerate(shapes)]


def _text_shape(kind: str, values: tuple[float, ...]) -> tuple[Shape, Array]:
    if kind == "sphere":
        return Sphere(values[0]), np.eye(4)
    if kind == "box":
        return Box((values[0], values[1], values[2])), np.eye(4)
    if kind == "plane":
        return _plane(values)
    return Cylinder(values[0], values[1]), np.eye(4)   # a cone's radius and length too


def _triangles(vertices: Iterable[Sequence[float]], faces: Iterable[Sequence[int]]) -> Shape:
    return Triangles(tuple((x, y, z) for x, y, z in vertices), tuple((int(a), int(b), int(c)) for a, b, c in faces))


def _plane(coefficients: Any) -> tuple[Shape, Array]:
    """Thin box in the plane a x + b y + c z + d = 0."""
    normal = np.array(coefficients[:3], dtype=np.float64)
    length = float(np.linalg.norm(normal))
    if not length > 0:
        raise PlanningError(f"a plane needs a normal, got {tuple(coefficients)}")
    z = normal / length
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = -float(coefficients[3]) / length * z
    return Box(_PLANE_M), pose


def _message_shapes(item: Any) -> list[tuple[Shape, Array]]:
    shapes: list[tuple[Shape, Array]] = []
    name = _get(item, "id")
    for primitive, pose in _paired(item, "primitives", "primitive_poses"):
        kind = _PRIMITIVES.get(_get(primitive, "type"))
        size = [float(value) for value in _get(primitive, "dimensions")]
        if kind is None:
            raise PlanningError(f"object {name}: primitive of type {_get(primitive, 'type')} is not supported")
        if kind in ("cylinder", "cone"):
            size = [size[1], size[0]]   # height and radius in the message
        shape, _ = _text_shape(kind, tuple(size))
        shapes.append((shape, pose))
    for mesh, pose in _paired(item, "meshes", "mesh_poses"):
        vertices = [[float(_get(vertex, key)) for key in "xyz"] for vertex in _complete(_get(mesh, "vertices"), name)]
        faces = [_get(face, "vertex_indices") for face in _complete(_get(mesh, "triangles"), name)]
        shapes.append((_triangles(vertices, faces), pose))
    for plane, pose in _paired(item, "planes", "plane_poses"):
        shape, local = _plane([float(value) for value in _get(plane, "coef")])
        shapes.append((shape, pose @ local))
    return shapes


def _complete(values: Any, name: str) -> Any:
    if any(isinstance(value, str) for value in values):
        raise PlanningError(f"object {name}: its mesh was cut short when it was printed; add --full-length to "
                            "ros2 topic echo")
    return values


def _paired(item: Any, shapes: str, poses: str) -> Iterator[tuple[Any, Array]]:
    """Shapes and their poses; a single shape may come without one."""
    found, placed = list(_get(item, shapes)), list(_get(item, poses))
    for k, shape in enumerate(found):
        yield shape, _pose(placed[k]) if k < len(placed) else np.eye(4)


def _message_pose(item: Any) -> Array:
    pose = _get(item, "pose")
    return np.eye(4) if pose is None else _pose(pose)


def _pose(message: Any) -> Array:
    p, q = _get(message, "position"), _get(message, "orientation")
    quaternion = [float(_get(q, key)) for key in "xyzw"]
    if not any(quaternion):
        quaternion[3] = 1.0   # MoveIt reads four zeros as no rotation
    return _pose_of([float(_get(p, key)) for key in "xyz"], quaternion)


def _pose_of(position: Sequence[float], quaternion_xyzw: Sequence[float]) -> Array:
    try:
        return pose_matrices(pose_vector(position, quaternion_xyzw))
    except ValueError as error:
        raise PlanningError(str(error)) from error


def _allowed(matrix: Any, objects: list[SceneObject]) -> Iterator[list[str]]:
    """Pairs that an AllowedCollisionMatrix lets touch and that name one of ``objects``."""
    if not matrix:
        return
    names = list(_get(matrix, "entry_names"))
    ours = {item.name for item in objects}
    for i, row in enumerate(_get(matrix, "entry_values")):
        for j, allowed in enumerate(_get(row, "enabled")):
            if allowed and i < j and (names[i] in ours or names[j] in ours):
                yield [names[i], names[j]]


def _get(item: Any, *path: str) -> Any:
    """Field of a message or key of a mapping; an empty list or None where a mapping lacks it."""
    for key in path:
        if isinstance(item, dict):
            item = item.get(key, [] if key.endswith("s") else "" if key == "frame_id" else None)
        elif item is not None:
            item = getattr(item, key)
    return item


class _Reader:
    """Lines of a ``.scene`` file, blank ones left out."""

    def __init__(self, text: str):
        self._lines = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
        self._next = 0

    def error(self, message: str) -> PlanningError:
        number = self._lines[min(self._next, len(self._lines)) - 1][0] if self._lines else 0
        return PlanningError(f"line {number}: {message}")

    def peek(self) -> str:
        if self._next >= len(self._lines):
            raise self.error("the file ends in the middle; it must end with a line that holds only a full stop")
        return self._lines[self._next][1]

    def line(self, what: str) -> str:
        if self._next >= len(self._lines):
            raise self.error(f"expected {what}, the file ends; it must end with a line that holds only a full stop")
        self._next += 1
        return self._lines[self._next - 1][1]

    def numbers(self, count: int) -> tuple[float, ...]:
        words = self.line(f"{count} numbers").split()
        try:
            values = tuple(float(word) for word in words)
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(value) for value in values):
            raise self.error(f"expected {count} finite numbers, got {' '.join(words)!r}")
        return values

    def integers(self, count: int) -> tuple[int, ...]:
        values = self.numbers(count)
        if any(value != int(value) or value < 0 for value in values):
            raise self.error(f"expected {count} whole numbers, got {values}")
        return tuple(int(value) for value in values)

    def integer(self, what: str) -> int:
        self.peek()
        try:
            return self.integers(1)[0]
        except PlanningError as error:
            raise PlanningError(f"{error} ({what})") from None

    def pose(self) -> Array:
        position = self.numbers(3)
        try:
            return _pose_of(position, self.numbers(4))
        except PlanningError as error:
            raise self.error(str(error)) from error
