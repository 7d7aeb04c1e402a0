"""What every motion planner of corft offers, and the objects of its scene.

Joint vectors (J,) are in the order of ``Contract.robot.joints``, rad; poses are homogeneous 4x4 matrices in the
contract's base frame, m. Planning excludes the gripper: its joints are locked at one opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
COLLISION_STEP_RAD = 0.02


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
class Mesh:
    """A mesh file (STL, OBJ, DAE); its vertices are multiplied by ``scale``."""

    path: Path
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class SceneObject:
    """Something the robot must not touch.

    ``pose``: 4x4, in the base frame, or in the frame of the link ``attached_to`` when that is set: the object then
    moves with the link, and never collides with it. ``touch_links`` are further links that may touch the object.
    Raises PlanningError when the pose is no rigid transform or a size isn't positive.
    """

    name: str
    shape: Box | Cylinder | Mesh
    pose: Array = field(default_factory=lambda: np.eye(4))
    attached_to: str | None = None
    touch_links: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pose", check_pose(self.pose, f"scene object {self.name}"))
        if isinstance(self.shape, Box):
            sizes: Sequence[float] = self.shape.size_m
        elif isinstance(self.shape, Cylinder):
            sizes = (self.shape.radius_m, self.shape.height_m)
        else:
            sizes = self.shape.scale
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

    def forward_kinematics(self, q: Array, frame: str | None = None) -> Array:
        """Pose 4x4 of a frame (default: the contract's tool frame) at joint positions ``q`` (J,)."""

    def inverse_kinematics(self, pose: Array, seed: Array, frame: str | None = None) -> Array | None:
        """Joint positions (J,) within the limits that put ``frame`` at ``pose``, near ``seed``; None if not found."""

    def in_collision(self, q: Array) -> list[tuple[str, str]]:
        """Colliding pairs at ``q``: two links, or a link and a scene object. Empty when free."""

    def first_collision(self, path: Array, step_rad: float = COLLISION_STEP_RAD) -> int | None:
        """Index k of the first segment, waypoint k to k+1, of ``path`` (N, J) that collides; None when it is free.

        Segments are straight in joint space and checked every ``step_rad`` of the joint that moves most. The
        waypoints before k, ``path[:k]``, and their segments are free. A single waypoint counts as segment 0.
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
        """Shortest motion through ``waypoints`` (N, J) within the velocity and acceleration limits, ending at rest.

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
    bad = [name for name, column in zip(names, matrix.T, strict=True) if not np.all(np.isfinite(column))]
    if bad:
        raise PlanningError(f"{what} is not finite for {', '.join(bad)}")
    return matrix


def check_scene(objects: Sequence[SceneObject]) -> None:
    """Raise PlanningError when two objects share a name."""
    names = [item.name for item in objects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanningError(f"scene objects need distinct names, {', '.join(twice)} is given more than once")


def densify(waypoints: Array, spacing_rad: float) -> Array:
    """Waypoints (N, J) with further ones on each straight segment, at most ``spacing_rad`` apart in any joint."""
    points = [waypoints[:1]]
    for a, b in pairwise(waypoints):
        steps = max(1, int(np.ceil(np.max(np.abs(b - a)) / spacing_rad)))
        points.append(a + (b - a) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(points)


def check_within(q: Array, limits: Array, names: Sequence[str], what: str) -> None:
    """Raise PlanningError naming each joint of ``q`` (J,) outside ``limits`` (2, J)."""
    outside = [f"{name} = {value:.4f} rad, allowed {low:.4f} to {high:.4f}"
               for name, value, low, high in zip(names, q, *limits, strict=True) if not low <= value <= high]
    if outside:
        raise PlanningError(f"{what} is outside the position limits: {'; '.join(outside)}")
