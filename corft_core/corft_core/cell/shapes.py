"""Building blocks of the tasks' objects, added to the cell's ``MjSpec`` before it is compiled.

Everything is made of boxes, cylinders and capsules with few faces: they look clear at 128 × 128 and render fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from corft_core.cell.backend import mujoco

# Contact bits: the robot touches the surroundings, not itself (the planner's job is to keep it from that). What rests
# on a surface may do so on a few small balls (SUPPORT_BIT): a tenth of the contacts of its walls, and of their cost.
ROBOT_BIT, WORLD_BIT, SUPPORT_BIT = 2, 1, 4
Rgba = tuple[float, float, float, float]
# A firm, grippy surface: contacts that settle in 6 ms and resist twisting.
GRIPPY: dict[str, Any] = {"condim": 4, "friction": [1.0, 0.01, 0.0005], "solref": [0.006, 1.0]}
# Touches only the robot; whatever has such a surface rests on :func:`bumpers`.
GRASPED_ONLY: dict[str, Any] = {"contype": 0, "conaffinity": ROBOT_BIT, **GRIPPY}
BUMPER_M = 0.004


def free_body(spec: Any, name: str, height_m: float = 0.0) -> Any:
    """A body that can move, with a free joint of its name; its origin rests ``height_m`` above the table."""
    body = spec.worldbody.add_body(name=name, pos=[0.5, 0.0, height_m])
    body.add_freejoint(name=name)
    return body


def box(body: Any, name: str, size: Sequence[float], position: Sequence[float], rgba: Rgba, yaw_rad: float = 0.0,
        **options: Any) -> Any:
    """Add a box of half lengths ``size`` (3,) [m] at ``position`` (3,) in the body's frame, turned about z."""
    quaternion = [math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2)]
    return _geom(body, name, mujoco.mjtGeom.mjGEOM_BOX, rgba, options, size=size, pos=position, quat=quaternion)


def cylinder(body: Any, name: str, radius_m: float, low_m: float, high_m: float, rgba: Rgba, **options: Any) -> Any:
    """Add an upright cylinder on the body's axis between two heights."""
    return _geom(body, name, mujoco.mjtGeom.mjGEOM_CYLINDER, rgba, options,
                 size=[radius_m, (high_m - low_m) / 2, 0.0], pos=[0.0, 0.0, (low_m + high_m) / 2])


def rod(body: Any, name: str, radius_m: float, start: Sequence[float], end: Sequence[float], rgba: Rgba,
        **options: Any) -> Any:
    """Add a capsule between two points (3,) of the body's frame."""
    return _geom(body, name, mujoco.mjtGeom.mjGEOM_CAPSULE, rgba, options, size=[radius_m, 0.0, 0.0],
                 fromto=np.concatenate([start, end]))


def bumpers(body: Any, points: Sequence[Sequence[float]]) -> None:
    """Let a body rest on hidden balls of radius :data:`BUMPER_M` around points (3,) of its frame, and on nothing else:
    balls at the corners of its bottom, and at those of its top in case it falls over."""
    for point in points:
        geom = body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[BUMPER_M, 0, 0],
                             pos=point, contype=SUPPORT_BIT, conaffinity=0, group=3, mass=0.0)
        geom.friction = [0.8, 0.01, 0.0005]
        geom.solref = [0.006, 1.0]


def ring_of_points(radius_m: float, height_m: float, count: int) -> list[list[float]]:
    """Points (3,) on a horizontal circle around the body's axis."""
    angles = [2 * math.pi * (i + 0.5) / count for i in range(count)]
    return [[radius_m * math.cos(angle), radius_m * math.sin(angle), height_m] for angle in angles]


def _geom(body: Any, name: str, kind: Any, rgba: Rgba, options: dict[str, Any], **placing: Any) -> Any:
    geom = body.add_geom(name=name, type=kind, rgba=rgba, contype=WORLD_BIT,
                         conaffinity=WORLD_BIT | ROBOT_BIT | SUPPORT_BIT, **placing)
    for key, value in options.items():
        setattr(geom, key, value)
    return geom
