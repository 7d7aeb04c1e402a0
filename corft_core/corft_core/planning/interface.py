"""What every motion planner of corft offers, and the objects of its scene.

Joint vectors (J,) are in the order of ``Contract.robot.joints``, rad; poses are homogeneous 4x4 matrices in the
contract's base frame, m. Planning excludes the gripper: its joints are locked at one opening.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
COLLISION_STEP_RAD = 0.02
COLLISION_STEP_M = 0.005   # of a prismatic joint, in place of COLLISION_STEP_RAD


class PlanningError(CorftError):
    """No valid motion could be found, or a request that no motion can answer."""


@dataclass(frozen=True)
class Box:
    """Side lengths along x, y, z of the object's frame, which is at the box's centre."""

    size_m: tuple[float, float, float]


@dataclass(frozen=True)
class Cylinder:
    """Axis along z of the object's frame, which is at half its height."""

    radius_m: float
    height_m: float


@dataclass(frozen=True)
class Sphere:
    """Centre at the origin of the object's frame."""

    radius_m: float


@dataclass(frozen=True)
class Mesh:
    """A mesh file (STL, OBJ, DAE); its vertices are multiplied by ``scale``."""

    path: Path
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Triangles:
    """A mesh given by its corners: ``vertices_m`` (V, 3) and ``faces`` (F, 3), indices of vertices."""

    vertices_m: tuple[tuple[float, float, float], ...]
    faces: tuple[tuple[int, int, int], ...]


Shape = Box | Cylinder | Sphere | Mesh | Triangles


@dataclass(frozen=True)
class SceneObject:
    """Something the robot must not touch.

    ``pose``: 4x4, in the base frame, or in the frame of the link ``attached_to`` when that is set: the object then
    moves with the link, and never collides with it. ``touch_links`` are further links that may touch the object,
    ``touch_objects`` other objects that may, as when one is carried over another.
    Raises PlanningError when the pose is no rigid transform or a size isn't positive.
    """

    name: str
    shape: Shape
    pose: Array = field(default_factory=lambda: np.eye(4))
    attached_to: str | None = None
    touch_links: tuple[str, ...] = ()
    touch_objects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pose", check_pose(self.pose, f"scene object {self.name}"))
        if isinstance(self.shape, Box):
            sizes: Sequence[float] = self.shape.size_m
        elif isinstance(self.shape, Cylinder):
            sizes = (self.shape.radius_m, self.shape.height_m)
        elif isinstance(self.shape, Sphere):
            sizes = (self.shape.radius_m,)
        elif isinstance(self.shape, Mesh):
            sizes = self.shape.scale
        else:
            sizes = ()
            _check_triangles(self.shape, self.name)
        if not all(np.isfinite(size) and size > 0 for size in sizes):
            raise PlanningError(f"scene object {self.name}: sizes must be positive, got {tuple(sizes)}")


@runtime_checkable
class MotionPlanner(Protocol):
    """Kinematics, collision checks, planning and time parametrisation of one arm."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in the contract's order."""

    @property
    def position_limits(self) -> Array:
        """(2, J): lower and upper limits of the description, drawn in by the contract's ``position_margin_rad``."""

    @property
    def alive(self) -> bool:
        """Whether the planner can answer: False once the process that it runs in has ended."""

    @property
    def hard_limits(self) -> Array:
        """(2, J): lower and upper limits of the description itself."""

    @property
    def scene(self) -> tuple[SceneObject, ...]:
        """The objects given to :meth:`set_scene`. MoveIt may know of more."""

    def forward_kinematics(self, q: Array, frame: str | None = None) -> Array:
        """Pose 4x4 of a frame (default: the contract's tool frame) at joint positions ``q`` (J,)."""

    def poses(self, path: Array, frame: str | None = None) -> Array:
        """Poses (N, 4, 4) of a frame along ``path`` (N, J); :meth:`forward_kinematics` in one call."""

    def inverse_kinematics(self, pose: Array, seed: Array, frame: str | None = None, *,
                           near: bool = False) -> Array | None:
        """Joint positions (J,) within the limits that put ``frame`` at ``pose``, near ``seed``; None if not found.

        ``near``: start from the seed only, so that an answer, or none, comes within a millisecond or two.
        """

    def in_collision(self, q: Array) -> list[tuple[str, str]]:
        """Colliding pairs at ``q``: two links, or a link and a scene object. Empty when free."""

    def penetration_m(self, q: Array) -> float | None:
        """Depth of the deepest contact at ``q`` (J,); 0 when free, None when the planner can't tell."""

    def first_collision(self, path: Array, step_rad: float = COLLISION_STEP_RAD) -> int | None:
        """Index k of the first segment, waypoint k to k+1, of ``path`` (N, J) that collides; None when it is free.

        Segments are straight in joint space and checked every ``step_rad`` of the joint that moves most (prismatic
        joints: every COLLISION_STEP_M for each COLLISION_STEP_RAD), or surely as well. The waypoints before k,
        ``path[:k]``, and their segments are free. A single waypoint counts as segment 0.
        """

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace all scene objects. Raises PlanningError on duplicate names or unknown links."""

    def plan(self, start: Array, goal: Array, *, velocity_scale: float = 1.0, acceleration_scale: float = 1.0,
             planning_time_s: float = 5.0) -> JointPath:
        """Collision-free motion at rest at both ends, within the contract's limits, checked densely.

        ``goal`` is joint positions (J,) or a pose (4, 4) of the tool frame. Raises PlanningError.
        """

    def time_parametrise(self, waypoints: Array, start_velocity: Array | None = None, velocity_scale: float = 1.0,
                         acceleration_scale: float = 1.0) -> JointPath:
        """Fast motion through ``waypoints`` (N, J) within velocity, acceleration and jerk limits, ending at rest.

        ``start_velocity`` (J,) in rad/s, default rest. Raises PlanningError when it can't be met.
        """

    def execute(self, path: JointPath) -> bool:
        """Execute a discrete motion, blocking; whether it succeeded. PlanningError where not supported."""

    def close(self) -> None:
        """Release what the planner holds; it can't be used afterwards."""


def check_pose(pose: Array, what: str) -> Array:
    """``pose`` as float64 4x4. Raises PlanningError unless it is a rigid transform (finite, orthonormal)."""
    matrix = np.asarray(pose, dtype=np.float64)
    rigid = (matrix.shape == (4, 4) and bool(np.all(np.isfinite(matrix)))
             and np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0))
             and np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
             and np.linalg.det(matrix[:3, :3]) > 0)
    if not rigid:
        raise PlanningError(f"{what}: the pose must be a 4x4 rigid transform (rotation and translation in m), "
                            f"got shape {matrix.shape}: {matrix.tolist()}")
    return matrix


def check_joints(q: Array, names: Sequence[str], what: str) -> Array:
    """``q`` as float64 (J,). Raises PlanningError on a wrong shape or a value that is not finite, naming the joint."""
    vector = np.asarray(q, dtype=np.float64)
    if vector.shape != (len(names),):
        raise PlanningError(f"{what} must have {len(names)} values ({', '.join(names)}), got shape {vector.shape}")
    bad = [name for name, value in zip(names, vector, strict=True) if not np.isfinite(value)]
    if bad:
        raise PlanningError(f"{what} is not finite for {', '.join(bad)}")
    return vector


def check_path(path: Array, names: Sequence[str], what: str) -> Array:
    """``path`` as float64 (N, J), N >= 1. Raises PlanningError as :func:`check_joints` does."""
    matrix = np.asarray(path, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) == 0 or matrix.shape[1] != len(names):
        raise PlanningError(f"{what} must have the shape (N, {len(names)}), one column a joint "
                            f"({', '.join(names)}), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        bad = [name for name, column in zip(names, matrix.T, strict=True) if not np.all(np.isfinite(column))]
        raise PlanningError(f"{what} is not finite for {', '.join(bad)}")
    return matrix


def check_distinct(objects: Sequence[SceneObject]) -> None:
    """Raise PlanningError when two objects share a name."""
    names = [item.name for item in objects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanningError(f"scene objects need distinct names, {', '.join(twice)} is given more than once")


def check_scene(objects: Sequence[SceneObject], links: Collection[str]) -> None:
    """Raise PlanningError when two objects share a name, or one names a link or object that isn't there."""
    check_distinct(objects)
    names = [item.name for item in objects]
    for item in objects:
        named = {*item.touch_links, *([item.attached_to] if item.attached_to else [])}
        unknown = sorted(named - set(links))
        if unknown:
            raise PlanningError(f"scene object {item.name} names the link {', '.join(unknown)}, which the robot "
                                f"lacks; its links: {', '.join(sorted(links))}")
        unknown = sorted(set(item.touch_objects) - set(names))
        if unknown:
            raise PlanningError(f"scene object {item.name} may touch {', '.join(unknown)}, which is not in the scene; "
                                f"its objects: {', '.join(names)}")


def _check_triangles(shape: Triangles, name: str) -> None:
    vertices, faces = np.array(shape.vertices_m, dtype=np.float64), np.array(shape.faces)
    good = (vertices.ndim == 2 and vertices.shape[1] == 3 and bool(np.all(np.isfinite(vertices)))
            and faces.ndim == 2 and faces.shape[1] == 3 and bool(np.all((faces >= 0) & (faces < len(vertices)))))
    if not good:
        raise PlanningError(f"scene object {name}: a mesh needs finite vertices (V, 3) and faces (F, 3) that index "
                            f"them, got {vertices.shape} and {faces.shape}")


def collision_spacing(step_rad: float, prismatic: NDArray[np.bool_]) -> Array:
    """(J,): how far apart configurations are checked, in rad or m. ``prismatic`` (J,) says which joints slide."""
    return np.where(prismatic, step_rad * COLLISION_STEP_M / COLLISION_STEP_RAD, step_rad)


def densify(waypoints: Array, spacing: float | Array) -> tuple[Array, Array]:
    """Waypoints (N, J) with further ones on each straight segment, at most ``spacing`` (a number or (J,)) apart.

    Also the segment k (waypoint k to k+1) that each belongs to; the first waypoint belongs to segment 0.
    """
    if len(waypoints) == 1:
        return waypoints, np.zeros(1, dtype=int)
    moves = np.diff(waypoints, axis=0)
    steps = np.maximum(1, np.ceil(np.max(np.abs(moves) / spacing, axis=1)).astype(int))
    segments = np.repeat(np.arange(len(steps)), steps)
    first = np.cumsum(steps) - steps
    share = (np.arange(1, len(segments) + 1) - first[segments]) / steps[segments]
    inner = waypoints[segments] + share[:, None] * moves[segments]
    inner[np.cumsum(steps) - 1] = waypoints[1:]
    return np.concatenate([waypoints[:1], inner]), np.concatenate([[0], segments])


def curve_of(path: JointPath) -> Array:
    """Positions (M, J) along a path, at its points and half-way between them."""
    return path.sample(np.sort(np.concatenate([path.times_s, (path.times_s[1:] + path.times_s[:-1]) / 2])))[0]


def thinned(positions: Array, spacing_rad: float) -> Array:
    """Those of ``positions`` (N, J) that are at least ``spacing_rad`` apart in some joint, both ends included."""
    kept = [positions[0]]
    for point in positions[1:-1]:
        if np.max(np.abs(point - kept[-1])) >= spacing_rad and np.max(np.abs(point - positions[-1])) >= spacing_rad:
            kept.append(point)
    return np.stack([*kept, positions[-1]])


def check_within(q: Array, limits: Array, names: Sequence[str], what: str) -> None:
    """Raise PlanningError naming each joint of ``q`` (J,) outside ``limits`` (2, J)."""
    outside = [f"{name} = {value:.4f} rad, allowed {low:.4f} to {high:.4f}"
               for name, value, low, high in zip(names, q, *limits, strict=True) if not low <= value <= high]
    if outside:
        raise PlanningError(f"{what} is outside the position limits: {'; '.join(outside)}")
