"""Checking a path with few collision queries, without missing what a query at every sample would find.

A joint that turns by dq moves no point of a body farther than dq times the body's reach from the joint's axis. So
where all bodies are farther apart at one configuration than they can move within a block of the path, the block is
free.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from corft_core.planning.interface import Array

_RIM = 24                # corners of the polygon around a swept circle
_CONTACT_M = 1e-5        # more than the accuracy of distances
_FIRST_BLOCK = 16


def first_hit(samples: Array, collides: Callable[[Array], bool],
              clear: Callable[[Array, Array], bool]) -> int | None:
    """Index of the first of ``samples`` (M, J) that collides, None when none does.

    ``clear(q, deviation)``: whether everything within ``deviation`` (J,) of ``q`` (J,) is surely free.
    """
    begin, size = 0, _FIRST_BLOCK
    while begin < len(samples):
        block = samples[begin:begin + size]
        if len(block) == 1:
            if collides(block[0]):
                return begin
            begin, size = begin + 1, 2
            continue
        low, high = block.min(axis=0), block.max(axis=0)
        if clear((low + high) / 2, (high - low) / 2):
            begin, size = begin + len(block), 2 * size
        else:
            size = 1 if len(block) == 2 else len(block) // 2
    return None


class MotionBounds:
    """Upper bounds on how much the distance of each collision pair changes with each joint.

    ``rates`` (P, J), m/rad or m/m, J in Pinocchio's order. The distance of two bodies changes with a joint between
    them no faster than either body's largest distance from the joint's axis; the smaller of both holds.
    """

    def __init__(self, model: Any, geometry: Any, robot: MotionBounds | None = None):
        """``robot``: bounds of the first geometries and pairs, known from before."""
        self._chain: _Chain = _Chain(model) if robot is None else robot._chain
        self._points: list[Array] = [] if robot is None else list(robot._points)
        self._outward: list[Array] = [] if robot is None else list(robot._outward)
        self._inward: dict[tuple[int, int], Array] = {} if robot is None else dict(robot._inward)
        self._joints = [item.parentJoint for item in geometry.geometryObjects]
        for item in list(geometry.geometryObjects)[len(self._points):]:
            self._points.append(_moved(item.placement, _points(item.geometry)))
            self._outward.append(self._chain.towards_root(item.parentJoint, self._points[-1]))
        pairs = [(pair.first, pair.second) for pair in geometry.collisionPairs]
        self._first, self._second = np.array(pairs, dtype=int).reshape(-1, 2).T
        known: Array = np.zeros((0, model.nv)) if robot is None else robot.rates
        new = [self._rate(a, b) for a, b in pairs[len(known):]]
        self.rates: Array = np.concatenate([known, np.reshape(new, (-1, model.nv))])
        self._margins = np.zeros((geometry.ngeoms, geometry.ngeoms))

    def margins(self, deviation: Array) -> Array:
        """(G, G): how much nearer each pair of geometries can come when joints move by ``deviation`` (J,) at most."""
        nearer = self.rates @ deviation + _CONTACT_M
        self._margins[self._first, self._second] = nearer
        self._margins[self._second, self._first] = nearer
        return self._margins

    def _rate(self, a: int, b: int) -> Array:
        of_a, of_b = self._chain.supports(self._joints[a]), self._chain.supports(self._joints[b])
        moved = np.zeros(len(self._outward[a]))
        for body, mine, other, others in ((a, of_a, b, of_b), (b, of_b, a, of_a)):
            only_mine = [joint for joint in mine if joint not in others]
            if not only_mine:
                continue
            seen = self._outward[body]
            if len(others) == len(mine) - len(only_mine):   # the other body's joint is an ancestor of this one's
                leaf = self._chain.leaf(self._joints[body])
                if (other, leaf) not in self._inward:
                    self._inward[other, leaf] = self._chain.towards_tip(self._joints[other], leaf, self._points[other])
                seen = np.minimum(seen, self._inward[other, leaf])
            moved[only_mine] = seen[only_mine]
        return self._chain.by_variable(moved)


class _Chain:
    """Joints as axes, and cylinders about the axes that hold what turns about them."""

    def __init__(self, model: Any):
        self._model = model
        self._axes: list[tuple[Array, bool]] = [(np.zeros(3), False)]   # by joint: direction, whether it turns
        self._rates = [0.0]   # by joint: its own motion for a unit of its variable
        for joint in list(model.joints)[1:]:
            data = joint.createData()
            joint.calc(data, pin.neutral(model))
            column = np.asarray(data.S).ravel()   # of a mimic: times its multiplier
            rate = float(np.linalg.norm(column))
            turns = bool(np.any(column[3:]))
            direction = column[3:] if turns else column[:3]
            self._axes.append((direction / rate if rate > 0 else np.array([0.0, 0.0, 1.0]), turns))
            self._rates.append(rate)
        self._supports = [[k for k in support if k > 0] for support in model.supports]
        self._children = [list(children) for children in model.children]

    def by_variable(self, moved: Array) -> Array:
        """(J,) of values by joint: those of mimics are added to their source's."""
        result = np.zeros(self._model.nv)
        for joint in range(1, self._model.njoints):
            result[self._model.joints[joint].idx_v] += self._rates[joint] * moved[joint]
        return result

    def supports(self, joint: int) -> list[int]:
        """Joints from the root to ``joint``."""
        return self._supports[joint]

    def leaf(self, joint: int) -> int:
        """A last joint beyond ``joint``."""
        while self._children[joint]:
            joint = self._children[joint][0]
        return joint

    def towards_root(self, joint: int, points: Array) -> Array:
        """By joint: reach of ``points`` (N, 3), fixed to ``joint``, from the axis of each joint that carries them."""
        reach = np.zeros(self._model.njoints)
        while joint > 0:
            reach[joint], cloud = self._swept(joint, points)
            points = _moved(self._model.jointPlacements[joint], cloud)
            joint = self._model.parents[joint]
        return reach

    def towards_tip(self, joint: int, tip: int, points: Array) -> Array:
        """By joint: the same from the axes after ``joint`` up to ``tip``, as the bodies there see ``points``."""
        reach = np.full(self._model.njoints, np.inf)
        path = [joint, *(k for k in self.supports(tip) if k not in self.supports(joint))]
        for _, child in pairwise(path):
            points = _moved(self._model.jointPlacements[child].inverse(), points)
            reach[child], points = self._swept(child, points)
        return reach

    def _swept(self, joint: int, points: Array) -> tuple[float, Array]:
        """Distance that ``points`` move for a unit of the joint, and points around all that the joint can make of
        them: a cylinder's rims, or the points moved to both ends of a slide."""
        axis, turns = self._axes[joint]
        if not turns:
            model = self._model.joints[joint]
            ends = self._model.lowerPositionLimit[model.idx_q], self._model.upperPositionLimit[model.idx_q]
            farthest = self._rates[joint] * max(map(abs, ends)) + abs(getattr(model.extract(), "offset", 0.0))
            return 1.0, np.concatenate([points + farthest * axis, points - farthest * axis])
        along = points @ axis
        radius = float(np.max(np.linalg.norm(points - along[:, None] * axis, axis=1)))
        first = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
        first /= np.linalg.norm(first)
        angles = 2 * np.pi * np.arange(_RIM) / _RIM
        rim = radius / np.cos(np.pi / _RIM) * (np.outer(np.cos(angles), first)
                                               + np.outer(np.sin(angles), np.cross(axis, first)))
        return radius, np.concatenate([rim + along.min() * axis, rim + along.max() * axis])


def _moved(placement: Any, points: Array) -> Array:
    return np.asarray(points @ placement.rotation.T + placement.translation)


def _points(shape: Any) -> Array:
    """Points (N, 3) whose convex hull holds the shape."""
    if isinstance(shape, coal.ConvexBase):
        return np.asarray(shape.points())
    if isinstance(shape, coal.BVHModelBase):
        return np.asarray(shape.vertices())
    shape.computeLocalAABB()
    low, high = shape.aabb_local.min_, shape.aabb_local.max_
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
