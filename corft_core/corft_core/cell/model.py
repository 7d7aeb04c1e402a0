"""The cell as a MuJoCo model: the Panda's URDF, compiled as it is, plus table, lamps, cameras and a task's objects.

The URDF is the one that planning reads, from the wheel ``example-robot-data`` (Apache-2.0). Lengths in m, base
frame = world frame = ``panda_link0``.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.cell import shapes
from corft_core.cell.backend import mujoco
from corft_core.cell.scene import DEFAULT_TASK
from corft_core.cell.tasks import get_task
from corft_core.errors import CorftError

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
TOOL_FRAME = "panda_hand_tcp"
HOME_RAD = (0.0, -0.6, 0.0, -2.4, 0.0, 1.8, 0.785)
TIMESTEP_S = 0.0025
# Position gains and force limits of the arm's joint servos (N m/rad, N m s/rad, N m), after the Panda's own.
ARM_STIFFNESS = np.array([4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0])
ARM_DAMPING = np.array([450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0])
ARM_FORCE = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])

_WHITE, _DARK = (0.93, 0.94, 0.95, 1.0), (0.20, 0.22, 0.25, 1.0)
_TABLE, _FLOOR = (0.80, 0.72, 0.60, 1.0), (0.33, 0.37, 0.42, 1.0)


@cache
def description_folder() -> Path:
    """Folder of the Panda's URDF, SRDF and meshes. Raises CorftError when the wheel isn't installed."""
    try:
        distribution = importlib.metadata.distribution("example-robot-data")
    except importlib.metadata.PackageNotFoundError as error:
        raise CorftError("the robot's description is missing: pip install example-robot-data") from error
    folder = Path(str(distribution.locate_file(
        "cmeel.prefix/share/example-robot-data/robots/panda_description")))
    if not (folder / "urdf" / "panda.urdf").is_file():
        raise CorftError(f"no urdf/panda.urdf under {folder}: reinstall example-robot-data")
    return folder


def robot_spec() -> Any:
    """``mujoco.MjSpec`` of the arm alone, for kinematics and as the start of the cell."""
    folder = description_folder()
    root = ElementTree.parse(folder / "urdf" / "panda.urdf").getroot()
    compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
    compiler.attrib.update(discardvisual="true", fusestatic="false", strippath="true", balanceinertia="true")
    for link in root.iter("link"):
        for number, collision in enumerate(link.findall("collision")):
            collision.set("name", f"{link.get('name')}_{number}")
    meshes = {path.name: path.read_bytes() for path in sorted((folder / "meshes" / "collision").glob("*.stl"))}
    return mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"), assets=meshes)


def cell_model(task: str = DEFAULT_TASK) -> Any:
    """A ``mujoco.MjModel`` of the whole cell with a task's objects, the caller's own to change."""
    return copy.deepcopy(_compiled(task))


@cache
def _compiled(task: str) -> Any:
    spec = robot_spec()
    _physics(spec)
    _robot(spec)
    _surroundings(spec)
    get_task(task).add_objects(spec)
    _lamps_and_cameras(spec)
    model = spec.compile()
    # What costs frame rate here is anti-aliasing, shadows and finely divided shapes, not the number of pixels.
    quality = model.vis.quality
    quality.offsamples, quality.numquads, quality.numslices, quality.numstacks = 0, 1, 14, 2
    return model


def _physics(spec: Any) -> None:
    # The URDF's visual meshes are left out already; from here on it would drop the floor and the sky too.
    spec.compiler.discardvisual = False
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.option.iterations = 30
    spec.visual.global_.offwidth = 2048
    spec.visual.global_.offheight = 1536
    spec.visual.headlight.ambient = [0.34, 0.34, 0.35]
    spec.visual.headlight.diffuse = [0.16, 0.16, 0.16]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.visual.map.znear = 0.005


def _robot(spec: Any) -> None:
    for body in spec.bodies:
        if body.name.startswith("panda_"):
            body.gravcomp = 1.0
    for geom in spec.geoms:
        link = geom.name.rsplit("_", 1)[0]
        finger = "finger" in link
        geom.contype, geom.conaffinity = shapes.ROBOT_BIT, shapes.WORLD_BIT
        geom.rgba = _DARK if finger or link in ("panda_hand", "panda_link0") else _WHITE
        if finger:
            geom.friction = [1.5, 0.02, 0.0005]
            geom.condim = 4
            geom.solref = [0.006, 1.0]
    for i, name in enumerate(ARM_JOINTS):
        joint = spec.joint(name)
        joint.armature, joint.damping = 0.1, 1.0
        _servo(spec, name, ARM_STIFFNESS[i], ARM_DAMPING[i], ARM_FORCE[i])
    for name in FINGER_JOINTS:
        joint = spec.joint(name)
        joint.armature, joint.damping = 0.1, 2.0
        _servo(spec, name, 1500.0, 60.0, 25.0)
    # The URDF's mimic joint.
    equality = spec.add_equality()
    equality.name1, equality.name2 = FINGER_JOINTS
    equality.type = mujoco.mjtEq.mjEQ_JOINT
    equality.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]
    equality.solref = [0.005, 1.0]


def _servo(spec: Any, joint: str, stiffness: float, damping: float, force: float) -> None:
    actuator = spec.add_actuator()
    actuator.name = actuator.target = joint
    actuator.trntype = mujoco.mjtTrn.mjTRN_JOINT
    actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    actuator.gainprm[0] = stiffness
    actuator.biasprm[:3] = [0.0, -stiffness, -damping]
    actuator.forcelimited = True
    actuator.forcerange = [-force, force]


def _surroundings(spec: Any) -> None:
    world = spec.worldbody
    spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384,
                     builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT, rgb1=[1, 1, 1], rgb2=[1, 1, 1])
    shapes.box(world, "table", [0.45, 0.5, 0.02], [0.35, 0.02, -0.02], _TABLE, friction=[0.8, 0.01, 0.0005])
    world.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[4, 4, 0.1], pos=[0, 0, -0.75], rgba=_FLOOR,
                   contype=0, conaffinity=0)
    for i, (x, y) in enumerate([(-0.05, -0.43), (-0.05, 0.47), (0.75, -0.43), (0.75, 0.47)]):
        shapes.box(world, f"table_leg_{i}", [0.025, 0.025, 0.355], [x, y, -0.395], _DARK, contype=0, conaffinity=0)


def _lamps_and_cameras(spec: Any) -> None:
    world = spec.worldbody
    for name, position, direction, strength in (("key", [1.0, -0.8, 1.8], [-0.4, 0.45, -1.0], 0.52),
                                                ("fill", [0.2, 1.2, 1.6], [0.2, -0.7, -1.0], 0.26)):
        world.add_light(name=name, pos=position, dir=direction, directional=True, diffuse=[strength] * 3,
                        specular=[0.12] * 3, castshadow=name == "key")
    _camera(world, "front", [0.98, 0.055, 0.64], [0.435, 0.055, 0.03], up=(0.0, 0.0, 1.0), fovy_deg=39.0)
    _camera(world, "overview", [1.45, -0.95, 0.95], [0.28, 0.02, 0.26], up=(0.0, 0.0, 1.0), fovy_deg=42.0)
    # On the hand, ahead of the fingers, looking down between their tips.
    _camera(spec.body("panda_hand"), "wrist", [0.085, 0.0, 0.01], [0.035, 0.0, 0.16], up=(1.0, 0.0, 0.0), fovy_deg=72.0)


def _camera(body: Any, name: str, position: Any, look_at: Any, up: Any, fovy_deg: float) -> None:
    """MuJoCo's cameras look along their -z axis, x to the right, y up."""
    backward = np.subtract(position, look_at) / math.dist(position, look_at)
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(backward, right), backward])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    body.add_camera(name=name, pos=position, quat=quaternion, fovy=fovy_deg)
