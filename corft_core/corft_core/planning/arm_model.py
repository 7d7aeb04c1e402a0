"""Kinematics of one arm on Pinocchio, with its collision queries (:mod:`collision`) in the contract's joint order.

All joints but the arm's are locked: the gripper at one opening, mimics of it alike, any other at its neutral position.
"""

from __future__ import annotations

import logging
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import numpy as np
import pinocchio as pin

from corft_core.contract import Contract
from corft_core.planning.collision import CollisionWorld
from corft_core.planning.description import CONTINUOUS_RAD, RobotDescription
from corft_core.planning.interface import Array, PlanningError, SceneObject

logger = logging.getLogger(__name__)


class ArmModel:
    """Forward kinematics, Jacobians and collision queries; safe to use from several threads."""

    def __init__(self, contract: Contract, description: RobotDescription, gripper_position: float | None = None):
        self.joint_names = contract.robot.joints
        self._base_frame = contract.robot.base_frame
        urdf = _with_limits(description.urdf)
        full = pin.buildModelFromXML(urdf, _moves_mimics(urdf, self.joint_names))
        missing = [name for name in self.joint_names if not full.existJointName(name)]
        if missing:
            raise PlanningError(f"the robot description has no joint {', '.join(missing)} (robot.joints of the "
                                f"contract); its joints: {', '.join(list(full.names)[1:])}")
        locked = [k for k in range(1, full.njoints)
                  if full.names[k] not in self.joint_names and full.joints[k].nv > 0]
        reference = _locked_configuration(full, urdf, contract, gripper_position)
        self.model, robot = pin.buildReducedModel(full, _collision_geometry(full, description, urdf), locked,
                                                  reference)
        if self.model.nq != len(self.joint_names) or self.model.nv != len(self.joint_names):
            raise PlanningError("every arm joint must be a revolute, continuous or prismatic one; planar and floating "
                                "joints are not supported")
        self._links = {frame.name for frame in self.model.frames if frame.type == pin.FrameType.BODY}
        self._base_id = self._frame_id(self._base_frame)
        # Contract order to Pinocchio's order of configurations.
        order = np.array([self.model.joints[self.model.getJointId(name)].idx_q for name in self.joint_names])
        self._from_contract = np.argsort(order)
        self.limits = np.stack([self.model.lowerPositionLimit, self.model.upperPositionLimit])[:, order]
        self._order = order
        robot.addAllCollisionPairs()
        pin.removeCollisionPairsFromXML(self.model, robot, description.srdf)
        self._collision = CollisionWorld(self.model, robot, self._base_placement())
        self._local = threading.local()

    @property
    def links(self) -> frozenset[str]:
        """Names of the robot's links."""
        return frozenset(self._links)

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """The scene's objects."""
        return self._collision.objects

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace the scene's objects; checks already running finish with the old scene."""
        self._collision.set_scene(objects)

    def poses(self, path: Array, frame: str) -> Array:
        """Poses (N, 4, 4) of ``frame`` in the base frame along ``path`` (N, J)."""
        data, index = self._data(), self._frame_id(frame)
        # The base does not move with the arm.
        to_base = self._base_placement().inverse().homogeneous
        result = np.empty((len(path), 4, 4))
        for k, q in enumerate(path[:, self._from_contract]):
            pin.forwardKinematics(self.model, data, q)
            result[k] = pin.updateFramePlacement(self.model, data, index).homogeneous
        return np.asarray(to_base @ result)

    def error_and_jacobian(self, q: Array, frame: str, target: Array) -> tuple[Array, Array]:
        """Twist (6,) in ``frame`` from its pose at ``q`` to ``target`` (4x4, base frame), and its Jacobian (6, J)."""
        data = self._data()
        index = self._frame_id(frame)
        pin.computeJointJacobians(self.model, data, q[self._from_contract])
        jacobian = pin.getFrameJacobian(self.model, data, index, pin.ReferenceFrame.LOCAL)
        placement = pin.updateFramePlacement(self.model, data, index)
        wanted = self._base_placement().act(pin.SE3(target[:3, :3], target[:3, 3]))
        error = pin.log6(placement.actInv(wanted)).vector
        return error, jacobian[:, self._order]

    def collides(self, q: Array) -> bool:
        """Whether anything collides at ``q`` (J,); faster than :meth:`colliding_pairs`."""
        return self._collision.collides(q[self._from_contract])

    def colliding_pairs(self, q: Array) -> list[tuple[str, str]]:
        """All colliding pairs (names of links and scene objects) at ``q`` (J,), sorted."""
        return self._collision.colliding_pairs(q[self._from_contract])

    def penetration_m(self, q: Array) -> float:
        """Depth of the deepest contact at ``q`` (J,); 0 when nothing collides."""
        return self._collision.penetration_m(q[self._from_contract])

    def first_hit(self, samples: Array) -> int | None:
        """Index of the first of ``samples`` (M, J) that collides, None when none does."""
        return self._collision.first_hit(samples[:, self._from_contract])

    def _data(self) -> Any:
        """This thread's working memory."""
        if not hasattr(self._local, "data"):
            self._local.data = self.model.createData()
        return self._local.data

    def _frame_id(self, frame: str) -> int:
        # A link and a joint may share a name.
        if not self.model.existFrame(frame, pin.FrameType.BODY):
            names = ", ".join(sorted(self._links))
            raise PlanningError(f"the robot has no frame {frame!r}; its links: {names}")
        return int(self.model.getFrameId(frame, pin.FrameType.BODY))

    def _base_placement(self) -> Any:
        """Base frame in Pinocchio's world. It must not move with the arm."""
        frame = self.model.frames[self._base_id]
        if frame.parentJoint != 0:
            raise PlanningError(f"the base frame {self._base_frame} moves with the joint "
                                f"{self.model.names[frame.parentJoint]}; name the arm's fixed link")
        return frame.placement


def _with_limits(urdf: str) -> str:
    """The URDF with wide limits for continuous joints, which Pinocchio would represent by sine and cosine."""
    root = ElementTree.fromstring(urdf)
    for joint in root.findall("joint"):
        if joint.get("type") == "continuous":
            joint.set("type", "revolute")
            limit = joint.find("limit")
            if limit is None:
                limit = ElementTree.SubElement(joint, "limit", effort="1000", velocity="1000")
            limit.set("lower", str(-CONTINUOUS_RAD))
            limit.set("upper", str(CONTINUOUS_RAD))
    return ElementTree.tostring(root, encoding="unicode")


def _mimics(urdf: str) -> dict[str, tuple[str, float, float]]:
    """Mimicking joint: the joint it follows, multiplier, offset."""
    return {joint.get("name", ""): (mimic.get("joint", ""), float(mimic.get("multiplier", "1")),
                                    float(mimic.get("offset", "0")))
            for joint in ElementTree.fromstring(urdf).findall("joint") if (mimic := joint.find("mimic")) is not None}


def _moves_mimics(urdf: str, arm: Sequence[str]) -> bool:
    """Whether a joint mimics one of the arm's, as the parallel linkage of a palletiser does."""
    return any(source in arm for source, _, _ in _mimics(urdf).values())


def _collision_geometry(model: Any, description: RobotDescription, urdf: str) -> Any:
    absent = [path for path in description.meshes() if not path.is_file()]
    if absent:
        raise PlanningError(f"{len(absent)} collision mesh files of the robot description do not exist, the first is "
                            f"{absent[0]}. Install the package that has them, or correct the URDF's file names.")
    try:
        return pin.buildGeomFromUrdfString(model, urdf, pin.GeometryType.COLLISION)
    except (ValueError, RuntimeError) as error:
        raise PlanningError(f"a collision mesh of the robot description cannot be read: {error}. Collision meshes may "
                            "be STL, OBJ or DAE.") from error


def _locked_configuration(model: Any, urdf: str, contract: Contract, gripper_position: float | None) -> Array:
    """Configuration at which the joints beside the arm are locked."""
    reference = np.array(pin.neutral(model))
    gripper = contract.gripper
    if gripper is None:
        return reference
    if not model.existJointName(gripper.joint):
        others = [name for name in list(model.names)[1:] if name not in contract.robot.joints]
        if others:
            raise PlanningError(f"the robot description has no joint {gripper.joint} (gripper.joint of the contract); "
                                f"its joints beside the arm's: {', '.join(others)}")
        logger.warning("the robot description has no gripper (%s): it is not checked for collisions. Add it to the "
                       "URDF, or as an object attached to the last link to the scene file.", gripper.joint)
        return reference
    values = {gripper.joint: gripper.open_position if gripper_position is None else gripper_position}
    mimics = _mimics(urdf)
    for _ in mimics:   # a mimic may follow a mimic
        values |= {name: scale * values[source] + offset for name, (source, scale, offset) in mimics.items()
                   if source in values}
    for name, value in values.items():
        if model.existJointName(name) and model.joints[model.getJointId(name)].nq == 1:
            reference[model.joints[model.getJointId(name)].idx_q] = value
    return reference

