"""Kinematics and collision geometry of one arm on Pinocchio and Coal.

All joints but the arm's are locked: the gripper at one opening, mimics of it alike, any other at its neutral
position. Collision pairs are all pairs of links less those that the SRDF disables, as in MoveIt; links that the arm
can't move are not checked against fixed objects, as when MoveIt checks its planning group.
"""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from corft_core.contract import Contract
from corft_core.planning.description import RobotDescription
from corft_core.planning.interface import Array, Box, Cylinder, PlanningError, SceneObject, check_scene

# A mesh is taken as convex when its hull is larger by no more than this share of its volume.
_CONVEX_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _World:
    """Geometry of the robot and its scene; never changed once made. ``pairs`` are the names behind each pair."""

    geometry: Any
    pairs: tuple[tuple[str, str], ...]


class _Scratch(threading.local):
    """Working memory of one thread, so that checks may run beside a plan in another thread."""

    model_data: Any = None
    world: _World | None = None
    geometry_data: Any = None


class ArmModel:
    """Forward kinematics, Jacobians and collision queries; safe to use from several threads."""

    def __init__(self, contract: Contract, description: RobotDescription, gripper_position_m: float | None = None):
        self.joint_names = contract.robot.joints
        self._base_frame = contract.robot.base_frame
        full = pin.buildModelFromXML(description.urdf)
        try:
            geometry = pin.buildGeomFromUrdfString(full, description.urdf, pin.GeometryType.COLLISION)
        except ValueError as error:
            raise PlanningError(f"a collision mesh of the robot description cannot be read: {error}") from error
        missing = [name for name in self.joint_names if not full.existJointName(name)]
        if missing:
            raise PlanningError(f"the robot description has no joint {', '.join(missing)} (robot.joints of the "
                                f"contract); its joints: {', '.join(list(full.names)[1:])}")
        locked = [index for index in range(1, full.njoints) if full.names[index] not in self.joint_names]
        opening = contract.gripper.open_position if gripper_position_m is None else gripper_position_m
        reference = _locked_configuration(full, description.urdf, contract.gripper.joint, opening)
        self.model, robot = pin.buildReducedModel(full, geometry, locked, reference)
        if self.model.nq != len(self.joint_names) or self.model.nv != len(self.joint_names):
            raise PlanningError("every arm joint must be a revolute joint with limits or a prismatic one; "
                                "continuous and multi-axis joints are not supported")
        self._links = {frame.name for frame in self.model.frames if frame.type == pin.FrameType.BODY}
        self._base_id = self._frame_id(self._base_frame)
        # Contract order to Pinocchio's order of configurations.
        order = np.array([self.model.joints[self.model.getJointId(name)].idx_q for name in self.joint_names])
        self._from_contract = np.argsort(order)
        self.limits = np.stack([self.model.lowerPositionLimit, self.model.upperPositionLimit])[:, order]
        self._order = order
        for item in robot.geometryObjects:
            _make_convex(item)
        robot.addAllCollisionPairs()
        pin.removeCollisionPairsFromXML(self.model, robot, description.srdf)
        self._robot = robot
        self._scratch = _Scratch()
        self._world = self._with_objects(())

    @property
    def links(self) -> frozenset[str]:
        """Names of the robot's links."""
        return frozenset(self._links)

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace the scene's objects; checks already running finish with the old scene."""
        check_scene(objects)
        self._world = self._with_objects(objects)

    def forward_kinematics(self, q: Array, frame: str) -> Array:
        """Pose 4x4 of ``frame`` in the base frame at ``q`` (J,)."""
        data = self._data()
        index = self._frame_id(frame)
        pin.forwardKinematics(self.model, data, q[self._from_contract])
        placement = pin.updateFramePlacement(self.model, data, index)
        base = pin.updateFramePlacement(self.model, data, self._base_id)
        return np.array(base.actInv(placement).homogeneous)

    def error_and_jacobian(self, q: Array, frame: str, target: Array) -> tuple[Array, Array]:
        """Twist (6,) in ``frame`` from its pose at ``q`` to ``target`` (4x4, base frame), and its Jacobian (6, J)."""
        data = self._data()
        index = self._frame_id(frame)
        pin.computeJointJacobians(self.model, data, q[self._from_contract])
        jacobian = pin.getFrameJacobian(self.model, data, index, pin.ReferenceFrame.LOCAL)
        placement = pin.updateFramePlacement(self.model, data, index)
        base = pin.updateFramePlacement(self.model, data, self._base_id)
        wanted = base.act(pin.SE3(target[:3, :3], target[:3, 3]))
        error = pin.log6(placement.actInv(wanted)).vector
        return error, jacobian[:, self._order]

    def colliding_pairs(self, q: Array) -> list[tuple[str, str]]:
        """All colliding pairs (names of links and scene objects) at ``q`` (J,), sorted."""
        world, data = self._current()
        pin.computeCollisions(self.model, self._data(), world.geometry, data, q[self._from_contract], False)
        found = {world.pairs[k] for k, result in enumerate(data.collisionResults) if result.isCollision()}
        return sorted(found)

    def collides(self, q: Array) -> bool:
        """Whether anything collides at ``q`` (J,); faster than :meth:`colliding_pairs`."""
        world, data = self._current()
        return bool(pin.computeCollisions(self.model, self._data(), world.geometry, data, q[self._from_contract], True))

    def _data(self) -> Any:
        if self._scratch.model_data is None:
            self._scratch.model_data = self.model.createData()
        return self._scratch.model_data

    def _current(self) -> tuple[_World, Any]:
        """The scene of this moment and this thread's working memory for it."""
        world = self._world
        if self._scratch.world is not world:
            self._scratch.geometry_data = world.geometry.createData()
            self._scratch.world = world
        return world, self._scratch.geometry_data

    def _frame_id(self, frame: str) -> int:
        if not self.model.existFrame(frame):
            names = ", ".join(sorted(self._links))
            raise PlanningError(f"the robot has no frame {frame!r}; its links: {names}")
        return int(self.model.getFrameId(frame))

    def _with_objects(self, objects: Sequence[SceneObject]) -> _World:
        geometry = self._robot.copy()
        count = geometry.ngeoms
        links = [self.model.frames[item.parentFrame].name for item in geometry.geometryObjects]
        base = self._base_placement()
        placed: list[tuple[int, SceneObject]] = []
        for item in objects:
            unknown = sorted({*item.touch_links, *([item.attached_to] if item.attached_to else [])} - self._links)
            if unknown:
                raise PlanningError(f"scene object {item.name} names the link {', '.join(unknown)}, which the robot "
                                    f"lacks; its links: {', '.join(sorted(self._links))}")
            local = pin.SE3(item.pose[:3, :3], item.pose[:3, 3])
            if item.attached_to is None:
                joint, placement = 0, base.act(local)
            else:
                frame = self.model.frames[self._frame_id(item.attached_to)]
                joint, placement = frame.parentJoint, frame.placement.act(local)
            body = pin.GeometryObject(f"scene/{item.name}", joint, 0, placement, _coal_shape(item))
            placed.append((geometry.addGeometryObject(body), item))
        for index, item in placed:
            for k in range(count):
                # No motion of the arm changes how its fixed links stand to fixed objects.
                both_fixed = item.attached_to is None and geometry.geometryObjects[k].parentJoint == 0
                if not both_fixed and links[k] != item.attached_to and links[k] not in item.touch_links:
                    geometry.addCollisionPair(pin.CollisionPair(k, index))
        # Fixed objects may overlap each other; one carried by the arm may not touch another.
        for a, (first, one) in enumerate(placed):
            for second, other in placed[a + 1:]:
                if one.attached_to != other.attached_to:
                    geometry.addCollisionPair(pin.CollisionPair(first, second))
        names = links + [item.name for _, item in placed]
        pairs = tuple((names[pair.first], names[pair.second]) for pair in geometry.collisionPairs)
        return _World(geometry, pairs)

    def _base_placement(self) -> Any:
        """Base frame in Pinocchio's world. It must not move with the arm."""
        frame = self.model.frames[self._base_id]
        if frame.parentJoint != 0:
            raise PlanningError(f"the base frame {self._base_frame} moves with the joint "
                                f"{self.model.names[frame.parentJoint]}; name the arm's fixed link")
        return frame.placement


def _locked_configuration(model: Any, urdf: str, gripper_joint: str, position_m: float) -> Array:
    """Neutral configuration with the gripper joint, and every joint that mimics it, at ``position_m``."""
    if not model.existJointName(gripper_joint):
        raise PlanningError(f"the robot description has no joint {gripper_joint} (gripper.joint of the contract)")
    reference = np.array(pin.neutral(model))
    reference[model.joints[model.getJointId(gripper_joint)].idx_q] = position_m
    for joint in ElementTree.fromstring(urdf).findall("joint"):
        mimic = joint.find("mimic")
        if mimic is not None and mimic.get("joint") == gripper_joint and model.existJointName(joint.get("name", "")):
            value = float(mimic.get("multiplier", "1")) * position_m + float(mimic.get("offset", "0"))
            reference[model.joints[model.getJointId(joint.get("name", ""))].idx_q] = value
    return reference


def _make_convex(item: Any) -> None:
    """Replace a mesh by its convex hull where that is the same body: checks are several times faster."""
    mesh = item.geometry
    if not isinstance(mesh, coal.BVHModelBase):
        return
    mesh.buildConvexRepresentation(False)
    if mesh.convex.computeVolume() <= (1 + _CONVEX_TOLERANCE) * mesh.computeVolume():
        item.geometry = mesh.convex


def _coal_shape(item: SceneObject) -> Any:
    shape = item.shape
    if isinstance(shape, Box):
        return coal.Box(*shape.size_m)
    if isinstance(shape, Cylinder):
        return coal.Cylinder(shape.radius_m, shape.height_m)
    try:
        return coal.MeshLoader().load(str(shape.path), np.array(shape.scale))
    except (ValueError, RuntimeError) as error:
        raise PlanningError(f"scene object {item.name}: the mesh {shape.path} cannot be read: {error}") from error
