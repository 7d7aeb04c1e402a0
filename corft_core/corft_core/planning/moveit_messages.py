"""Conversions between corft's types and the ROS messages that moveit_py takes.

The only place in ``corft_core`` that touches ROS messages: moveit_py takes nothing else. They are looked up when they
are used, in MoveIt's process, so that the library itself needs no ROS.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from corft_core.planning.interface import Array, Box, Cylinder, Mesh, PlanningError, SceneObject, Sphere, Triangles
from corft_core.poses import pose_matrices, pose_vector, quaternion_of
from corft_core.trajectory import JointPath


def pose(matrix_4x4: Array) -> Any:
    """geometry_msgs/Pose of a homogeneous matrix."""
    message = _ros("geometry_msgs", "Pose")()
    message.position.x, message.position.y, message.position.z = (float(value) for value in matrix_4x4[:3, 3])
    q = message.orientation
    q.x, q.y, q.z, q.w = quaternion_of(matrix_4x4).tolist()
    return message


def matrix(message: Any) -> Array:
    """Homogeneous matrix of a geometry_msgs/Pose."""
    p, q = message.position, message.orientation
    return pose_matrices(pose_vector((p.x, p.y, p.z), (q.x, q.y, q.z, q.w)))


def scene_object(item: SceneObject, base_frame: str, remove: bool = False) -> tuple[Any, Any | None]:
    """moveit_msgs CollisionObject, and AttachedCollisionObject when a link carries it or links may touch it."""
    primitive = _ros("shape_msgs", "SolidPrimitive")
    message = _ros("moveit_msgs", "CollisionObject")(id=item.name)
    message.header.frame_id = item.attached_to or base_frame
    message.operation = message.REMOVE if remove else message.ADD
    if not remove:
        if isinstance(item.shape, Box):
            message.primitives = [primitive(type=primitive.BOX, dimensions=list(item.shape.size_m))]
        elif isinstance(item.shape, Cylinder):
            size = [item.shape.height_m, item.shape.radius_m]
            message.primitives = [primitive(type=primitive.CYLINDER, dimensions=size)]
        elif isinstance(item.shape, Sphere):
            message.primitives = [primitive(type=primitive.SPHERE, dimensions=[item.shape.radius_m])]
        else:
            message.meshes = [_mesh(item)]
        if message.primitives:
            message.primitive_poses = [pose(item.pose)]
        else:
            message.mesh_poses = [pose(item.pose)]
    if item.attached_to is None and not item.touch_links:
        return message, None
    attached = _ros("moveit_msgs", "AttachedCollisionObject")(link_name=item.attached_to or base_frame, object=message)
    attached.touch_links = sorted({attached.link_name, *item.touch_links})
    return message, attached


def object_names(scene: Any) -> set[str]:
    """Names of all objects in a moveit_msgs/PlanningScene, those that links carry included."""
    return ({item.id for item in scene.world.collision_objects}
            | {item.object.id for item in scene.robot_state.attached_collision_objects})


def allowed_pairs(matrix: Any) -> set[frozenset[str]]:
    """Pairs that a moveit_msgs/AllowedCollisionMatrix lets touch; the SRDF's are among them in MoveIt's scene."""
    names = list(matrix.entry_names)
    return {frozenset((names[i], names[j])) for i, row in enumerate(matrix.entry_values)
            for j, allowed in enumerate(row.enabled) if allowed and i < j}


def allow(matrix: Any, pairs: set[frozenset[str]], allowed: bool) -> None:
    """Set entries of a moveit_msgs/AllowedCollisionMatrix, which grows as needed."""
    entry = _ros("moveit_msgs", "AllowedCollisionEntry")
    rows = {name: list(row.enabled) for name, row in zip(matrix.entry_names, matrix.entry_values, strict=True)}
    names = [*rows, *sorted({name for pair in pairs for name in pair} - set(rows))]
    table = [rows.get(name, []) + [False] * (len(names) - len(rows.get(name, []))) for name in names]
    for first, second in map(sorted, pairs):
        i, j = names.index(first), names.index(second)
        table[i][j] = table[j][i] = allowed
    matrix.entry_names = names
    matrix.entry_values = [entry(enabled=row) for row in table]


def matrix_difference(matrix: Any) -> Any:
    """moveit_msgs/PlanningScene that changes nothing but the allowed collisions."""
    message = _ros("moveit_msgs", "PlanningScene")(is_diff=True, allowed_collision_matrix=matrix)
    message.robot_state.is_diff = True
    return message


def trajectory(names: Sequence[str], positions: Array) -> Any:
    """moveit_msgs/RobotTrajectory of waypoints (N, J) without times."""
    point = _ros("trajectory_msgs", "JointTrajectoryPoint")
    message = _ros("moveit_msgs", "RobotTrajectory")()
    message.joint_trajectory.joint_names = list(names)
    message.joint_trajectory.points = [point(positions=[float(v) for v in row]) for row in positions]
    return message


def trajectory_of(path: JointPath) -> Any:
    """moveit_msgs/RobotTrajectory of a path with its times, velocities and accelerations."""
    message = trajectory(path.names, path.positions)
    for k, point in enumerate(message.joint_trajectory.points):
        nanoseconds = round(float(path.times_s[k]) * 1e9)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(nanoseconds, 10**9)
        if path.velocities is not None:
            point.velocities = [float(value) for value in path.velocities[k]]
        if path.accelerations is not None:
            point.accelerations = [float(value) for value in path.accelerations[k]]
    return message


def joint_path(message: Any, names: Sequence[str]) -> JointPath:
    """JointPath of a moveit_msgs/RobotTrajectory, joints by name. Points that share a time are merged."""
    source = message.joint_trajectory
    missing = [name for name in names if name not in source.joint_names]
    if missing or not source.points:
        raise PlanningError(f"MoveIt's trajectory has {len(source.points)} points and lacks the joints {missing}")
    order = [list(source.joint_names).index(name) for name in names]
    times = np.array([point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in source.points])
    kept = np.concatenate([[True], np.diff(times) > 1e-9])

    def column(values: list[Any]) -> Array | None:
        complete = all(len(value) == len(source.joint_names) for value in values)
        return np.array(values, dtype=np.float64)[kept][:, order] if complete else None

    positions = column([point.positions for point in source.points])
    assert positions is not None
    velocities = column([point.velocities for point in source.points])
    accelerations = column([point.accelerations for point in source.points]) if velocities is not None else None
    return JointPath(tuple(names), times[kept], positions, velocities, accelerations)


def _ros(package: str, name: str) -> Any:
    """A ROS message class."""
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _mesh(item: SceneObject) -> Any:
    """shape_msgs/Mesh of a mesh file or of given triangles."""
    if isinstance(item.shape, Triangles):
        vertices, faces = list(item.shape.vertices_m), list(item.shape.faces)
    else:
        assert isinstance(item.shape, Mesh)
        from corft_core.planning.collision import mesh_of_file

        mesh = mesh_of_file(item.shape, item.name)
        vertices = mesh.vertices().tolist()
        corners = [mesh.tri_indices(k) for k in range(mesh.num_tris)]
        faces = [(int(face[0]), int(face[1]), int(face[2])) for face in corners]
    point, triangle = _ros("geometry_msgs", "Point"), _ros("shape_msgs", "MeshTriangle")
    message = _ros("shape_msgs", "Mesh")()
    message.vertices = [point(x=float(x), y=float(y), z=float(z)) for x, y, z in vertices]
    message.triangles = [triangle(vertex_indices=[int(k) for k in face]) for face in faces]
    return message
