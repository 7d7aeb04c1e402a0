"""Collision geometry of one arm and its scene on Coal.

Collision pairs are all pairs of links less those that the SRDF disables, as in MoveIt; links that the arm can't move
are not checked against fixed objects, as when MoveIt checks its planning group.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from corft_core.planning.interface import (
    Array,
    Box,
    Cylinder,
    Mesh,
    PlanningError,
    SceneObject,
    Sphere,
    Triangles,
    check_scene,
)
from corft_core.planning.sweep import MotionBounds, first_hit

# A mesh is taken as convex when its hull is larger by no more than this share of its volume.
_CONVEX_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _World:
    """Geometry of the robot and its scene; never changed once made. ``pairs`` are the names behind each pair."""

    geometry: Any
    pairs: tuple[tuple[str, str], ...]
    bounds: MotionBounds


class _Scratch(threading.local):
    """Working memory of one thread, so that checks may run beside a plan in another thread."""

    world: _World | None = None
    model_data: Any = None
    exact: Any = None   # pairs collide when they touch
    wide: Any = None    # pairs collide when they are nearer than a margin


class CollisionWorld:
    """Collision queries of a robot in a scene that can be replaced; safe to use from several threads.

    ``robot``: the arm's collision geometry with its pairs. ``base``: the base frame in Pinocchio's world.
    Configurations ``q`` (J,) are in Pinocchio's order.
    """

    def __init__(self, model: Any, robot: Any, base: Any):
        for item in robot.geometryObjects:
            item.geometry = convex_where_it_is(item.geometry)
        self._model, self._robot, self._base = model, robot, base
        self._links = {frame.name for frame in model.frames if frame.type == pin.FrameType.BODY}
        self._scratch = _Scratch()
        self.objects: tuple[SceneObject, ...] = ()
        self._robot_bounds = MotionBounds(model, robot)
        self._world = self._with_objects(())

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace the scene's objects; checks already running finish with the old scene."""
        check_scene(objects, self._links)
        self._world = self._with_objects(objects)
        self.objects = tuple(objects)

    def collides(self, q: Array) -> bool:
        """Whether anything collides at ``q``; faster than :meth:`colliding_pairs`."""
        world, scratch = self._current()
        return bool(pin.computeCollisions(self._model, scratch.model_data, world.geometry, scratch.exact, q, True))

    def colliding_pairs(self, q: Array) -> list[tuple[str, str]]:
        """All colliding pairs (names of links and scene objects) at ``q``, sorted."""
        world, scratch = self._current()
        pin.computeCollisions(self._model, scratch.model_data, world.geometry, scratch.exact, q, False)
        found = {world.pairs[k] for k, result in enumerate(scratch.exact.collisionResults) if result.isCollision()}
        return sorted(found)

    def penetration_m(self, q: Array) -> float:
        """Depth of the deepest contact at ``q``; 0 when nothing collides."""
        world, scratch = self._current()
        pin.computeCollisions(self._model, scratch.model_data, world.geometry, scratch.exact, q, False)
        deepest = 0.0
        for k, result in enumerate(scratch.exact.collisionResults):
            if result.isCollision():
                distance = pin.computeDistance(world.geometry, scratch.exact, k).min_distance
                deepest = max(deepest, -float(distance))
        return deepest

    def first_hit(self, samples: Array) -> int | None:
        """Index of the first of ``samples`` (M, J) that collides, None when none does."""
        world, scratch = self._current()

        def clear(q: Array, deviation: Array) -> bool:
            scratch.wide.setSecurityMargins(world.geometry, world.bounds.margins(deviation), True, True)
            return not pin.computeCollisions(self._model, scratch.model_data, world.geometry, scratch.wide, q, True)

        return first_hit(samples, self.collides, clear)

    def _current(self) -> tuple[_World, _Scratch]:
        """The scene of this moment and this thread's working memory for it."""
        world, scratch = self._world, self._scratch
        if scratch.world is not world:
            if scratch.model_data is None:
                scratch.model_data = self._model.createData()
            scratch.exact, scratch.wide = world.geometry.createData(), world.geometry.createData()
            scratch.world = world
        return world, scratch

    def _with_objects(self, objects: Sequence[SceneObject]) -> _World:
        geometry = self._robot.copy()
        links = [self._model.frames[item.parentFrame].name for item in geometry.geometryObjects]
        placed: list[tuple[int, SceneObject]] = []
        for item in objects:
            local = pin.SE3(item.pose[:3, :3], item.pose[:3, 3])
            if item.attached_to is None:
                joint, placement = 0, self._base.act(local)
            else:
                frame = self._model.frames[self._model.getFrameId(item.attached_to, pin.FrameType.BODY)]
                joint, placement = frame.parentJoint, frame.placement.act(local)
            body = pin.GeometryObject(f"scene/{item.name}", joint, 0, placement, _coal_shape(item))
            placed.append((geometry.addGeometryObject(body), item))
        for index, item in placed:
            for k, link in enumerate(links):
                # No motion of the arm changes how its fixed links stand to fixed objects.
                both_fixed = item.attached_to is None and geometry.geometryObjects[k].parentJoint == 0
                if not both_fixed and link != item.attached_to and link not in item.touch_links:
                    geometry.addCollisionPair(pin.CollisionPair(k, index))
        # Fixed objects may overlap each other; one carried by the arm may not touch another.
        for a, (first, one) in enumerate(placed):
            for second, other in placed[a + 1:]:
                may_touch = other.name in one.touch_objects or one.name in other.touch_objects
                if one.attached_to != other.attached_to and not may_touch:
                    geometry.addCollisionPair(pin.CollisionPair(first, second))
        names = links + [item.name for _, item in placed]
        pairs = tuple((names[pair.first], names[pair.second]) for pair in geometry.collisionPairs)
        return _World(geometry, pairs, MotionBounds(self._model, geometry, self._robot_bounds))


def convex_where_it_is(shape: Any) -> Any:
    """The convex hull of a mesh where that is the same body: checks are several times faster."""
    if not isinstance(shape, coal.BVHModelBase):
        return shape
    shape.buildConvexRepresentation(False)
    same = shape.convex.computeVolume() <= (1 + _CONVEX_TOLERANCE) * shape.computeVolume()
    return shape.convex if same else shape


def _coal_shape(item: SceneObject) -> Any:
    shape = item.shape
    if isinstance(shape, Box):
        return coal.Box(*shape.size_m)
    if isinstance(shape, Cylinder):
        return coal.Cylinder(shape.radius_m, shape.height_m)
    if isinstance(shape, Sphere):
        return coal.Sphere(shape.radius_m)
    if isinstance(shape, Triangles):
        return convex_where_it_is(_mesh(shape))
    assert isinstance(shape, Mesh)
    return convex_where_it_is(mesh_of_file(shape, item.name))


def mesh_of_file(mesh: Mesh, name: str) -> Any:
    """Coal's mesh of a file. Raises PlanningError naming the scene object."""
    try:
        return coal.MeshLoader().load(str(mesh.path), np.array(mesh.scale))
    except (ValueError, RuntimeError) as error:
        raise PlanningError(f"scene object {name}: the mesh {mesh.path} cannot be read: {error}") from error


def _mesh(shape: Triangles) -> Any:
    mesh = coal.BVHModelOBBRSS()
    mesh.beginModel(len(shape.faces), len(shape.vertices_m))
    mesh.addVertices(np.array(shape.vertices_m, dtype=np.float64))
    mesh.addTriangles(np.array(shape.faces))
    mesh.endModel()
    return mesh
