"""Robot description: URDF and SRDF texts with every mesh path resolved.

``Contract.robot.description`` names it, as one of

- ``example-robot-data:<folder>`` or ``example-robot-data:<folder>/<urdf name>``: a robot of that wheel;
- the path of a URDF file, or ``package://<package>/<path>`` of a ROS package, or a ``.xacro`` file where xacro is
  installed;
- both files as ``<URDF>:<SRDF>``.

The SRDF is looked for beside the URDF: ``x.srdf``, then ``../srdf/x.srdf``. Without one the pairs of links that may
touch are found by sampling (:mod:`srdf`), with a warning.
"""

from __future__ import annotations

import importlib
import logging
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.planning.interface import Array, PlanningError
from corft_core.planning.packages import located, share_folder
from corft_core.planning.scene import pose_matrix

logger = logging.getLogger(__name__)

WHEEL = "example-robot-data"
PANDA_TOOL_OFFSET_M = 0.1034  # flange of the Franka hand to between the fingertips, franka_description
# Position limits of joints that have none: 16 turns, far more than a cable carries.
CONTINUOUS_RAD = 100.0


@dataclass(frozen=True)
class RobotDescription:
    """URDF and SRDF texts; mesh file names in the URDF are absolute paths."""

    urdf: str
    srdf: str

    def __post_init__(self) -> None:
        for kind, text in (("URDF", self.urdf), ("SRDF", self.srdf)):
            try:
                root = ElementTree.fromstring(text)
            except ElementTree.ParseError as error:
                raise PlanningError(f"the {kind} is not valid XML: {error}") from error
            if root.tag != "robot":
                raise PlanningError(f"the {kind} must have a <robot> element at its top, got <{root.tag}>")

    def with_mesh_uris(self) -> str:
        """The URDF with ``file://`` before each mesh path, as MoveIt and RViz read them."""
        return re.sub(r'filename="/', 'filename="file:///', self.urdf)

    @cached_property
    def _root(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.urdf)

    @cached_property
    def _joints(self) -> dict[str, ElementTree.Element]:
        return {joint.get("name", ""): joint for joint in self._root.findall("joint")}

    def links(self, with_collision: bool = False) -> tuple[str, ...]:
        """Names of the links, or only of those with collision geometry, in the URDF's order."""
        return tuple(link.get("name", "") for link in self._root.findall("link")
                     if not with_collision or link.find("collision") is not None)

    def meshes(self) -> list[Path]:
        """Files of the collision geometry."""
        return [Path(mesh.get("filename", "")) for mesh in self._root.findall("./link/collision/geometry/mesh")]

    def prismatic(self, joints: tuple[str, ...]) -> NDArray[np.bool_]:
        """(J,): which of ``joints`` slide."""
        return np.array([name in self._joints and self._joints[name].get("type") == "prismatic" for name in joints])

    def position_limits(self, joints: tuple[str, ...]) -> NDArray[np.float64]:
        """(2, J): lower and upper position limits of ``joints``; ± CONTINUOUS_RAD for continuous ones.

        Raises PlanningError naming a joint without limits.
        """
        rows = []
        for name in joints:
            joint = self._joints.get(name)
            if joint is not None and joint.get("type") == "continuous":
                rows.append((-CONTINUOUS_RAD, CONTINUOUS_RAD))
                continue
            limit = None if joint is None else joint.find("limit")
            if limit is None or "lower" not in limit.attrib or "upper" not in limit.attrib:
                raise PlanningError(f"the URDF has no position limits for {name}")
            rows.append((float(limit.attrib["lower"]), float(limit.attrib["upper"])))
        return np.array(rows).T

    def velocity_limits(self, joints: tuple[str, ...]) -> NDArray[np.float64]:
        """(J,): velocity limits of ``joints``, infinite where the URDF has none."""
        limits = [self._joints[name].find("limit") if name in self._joints else None for name in joints]
        values = [0.0 if limit is None else float(limit.get("velocity", 0.0)) for limit in limits]
        return np.array([value if value > 0 else np.inf for value in values])

    def planning_group(self, joints: tuple[str, ...]) -> str:
        """Name of the SRDF group whose moving joints are ``joints``. Raises PlanningError naming the groups."""
        groups = {group.get("name", ""): group for group in ElementTree.fromstring(self.srdf).findall("group")}
        for name in groups:
            if self._members(name, groups) == set(joints):
                return name
        raise PlanningError(f"the SRDF has no group of the joints {', '.join(joints)}; its groups: "
                            f"{', '.join(groups) or 'none'}. Add a <group> with these joints.")

    def root_link(self) -> str:
        """The link that is no joint's child: MoveIt's planning frame."""
        children = {_end(joint, "child") for joint in self._joints.values()}
        return next(link for link in self.links() if link not in children)

    def fixed_pose(self, link: str) -> Array:
        """Pose 4x4 of a link that no joint moves, such as the base frame, in the root link. Raises PlanningError."""
        pose = np.eye(4)
        while link != self.root_link():
            joint = next((item for item in self._joints.values() if _end(item, "child") == link), None)
            if joint is None or joint.get("type") != "fixed":
                raise PlanningError(f"the link {link} is not fixed to the robot's root link {self.root_link()}")
            origin = joint.find("origin")
            if origin is not None:
                xyz, rpy = ([float(v) for v in origin.get(key, "0 0 0").split()] for key in ("xyz", "rpy"))
                pose = pose_matrix(xyz, rpy) @ pose
            link = _end(joint, "parent")
        return pose

    def _members(self, name: str, groups: dict[str, ElementTree.Element]) -> set[str]:
        """Moving joints of an SRDF group, given as joints, links, chains or other groups."""
        if name not in groups:
            return set()
        group = groups[name]
        names = {joint.get("name", "") for joint in group.findall("joint")}
        for link in group.findall("link"):
            names |= {joint for joint, item in self._joints.items() if _end(item, "child") == link.get("name")}
        for chain in group.findall("chain"):
            names |= self._chain(chain.get("base_link", ""), chain.get("tip_link", ""))
        for inner in group.findall("group"):
            names |= self._members(inner.get("name", ""), groups)
        return {joint for joint in names if joint in self._joints and self._joints[joint].get("type") != "fixed"
                and self._joints[joint].find("mimic") is None}

    def _chain(self, base: str, tip: str) -> set[str]:
        """Joints between two links."""
        above = {_end(joint, "child"): (name, _end(joint, "parent")) for name, joint in self._joints.items()}
        joints = set()
        while tip != base and tip in above:
            name, tip = above[tip]
            joints.add(name)
        return joints


def _end(joint: ElementTree.Element, which: str) -> str:
    end = joint.find(which)
    return "" if end is None else end.get("link", "")


def resolve_description(source: str, srdf: str | None = None) -> RobotDescription:
    """Texts of a description. ``source`` as in the module's docstring, or a URDF text with ``srdf`` a text too.

    Raises PlanningError naming the file or package that is missing.
    """
    if source.lstrip().startswith("<"):
        return _described(_resolve_meshes(source, share_folder), srdf, "the URDF text")
    if source.startswith(f"{WHEEL}:"):
        return _from_wheel(source.removeprefix(f"{WHEEL}:"))
    urdf_name, *rest = re.split(r":(?!//)", source, maxsplit=1)
    urdf_path = _path(urdf_name)

    def locate(package: str) -> Path | None:
        around = next((folder for folder in urdf_path.parents if folder.name == package), None)
        return around or share_folder(package)

    urdf = _resolve_meshes(_xacro(urdf_path) if urdf_path.suffix == ".xacro" else _read(urdf_path), locate,
                           urdf_path.parent)
    if rest:
        return RobotDescription(urdf, _read(_path(rest[0])))
    stem = urdf_path.name.removesuffix(".xacro").removesuffix(".urdf")
    found = _first_file(urdf_path.parent / f"{stem}.srdf", urdf_path.parent.parent / "srdf" / f"{stem}.srdf")
    return _described(urdf, None if found is None else _read(found), str(urdf_path))


def with_tool_frame(description: RobotDescription, contract: Contract) -> RobotDescription:
    """The description with the contract's tool frame added when the URDF lacks it (Panda hands only).

    Raises PlanningError when the frame is missing and can't be known.
    """
    root = ElementTree.fromstring(description.urdf)
    links = {link.get("name") for link in root.findall("link")}
    tool = contract.robot.tool_frame
    if tool in links:
        return description
    if not (tool.endswith("hand_tcp") and tool.removesuffix("_tcp") in links):
        raise PlanningError(f"the robot description has no link {tool} (robot.tool_frame of the contract); its links: "
                            f"{', '.join(sorted(str(link) for link in links))}")
    ElementTree.SubElement(root, "link", name=tool)
    joint = ElementTree.SubElement(root, "joint", name=f"{tool}_joint", type="fixed")
    ElementTree.SubElement(joint, "origin", xyz=f"0 0 {PANDA_TOOL_OFFSET_M}", rpy="0 0 0")
    ElementTree.SubElement(joint, "parent", link=tool.removesuffix("_tcp"))
    ElementTree.SubElement(joint, "child", link=tool)
    return RobotDescription(ElementTree.tostring(root, encoding="unicode"), description.srdf)


def _described(urdf: str, srdf: str | None, name: str) -> RobotDescription:
    """The description, with an SRDF made by sampling where there is none."""
    if srdf is None:
        from corft_core.planning.srdf import sampled_srdf

        srdf = sampled_srdf(urdf)
        pairs = srdf.count("<disable_collisions")
        logger.warning("%s has no SRDF: %d pairs of links that touch at random postures are not checked. Write the "
                       "SRDF once, look through it and keep it beside the URDF: python3 -m corft_core.planning.srdf "
                       "--contract CONTRACT --out robot.srdf", name, pairs)
    return RobotDescription(urdf, srdf)


def _from_wheel(name: str) -> RobotDescription:
    try:
        share = Path(str(distribution(WHEEL).locate_file(f"cmeel.prefix/share/{WHEEL}")))
    except PackageNotFoundError as error:
        raise PlanningError(f"the robot description is in the package {WHEEL}, which is not installed: "
                            f"pip install {WHEEL}") from error
    folder_name, _, stem = name.partition("/")
    folder = share / "robots" / folder_name
    if not folder.is_dir():
        known = sorted(path.name for path in (share / "robots").glob("*_description"))
        raise PlanningError(f"{WHEEL} has no robot {folder_name!r}; it has {', '.join(known) or 'none'}")
    stem = stem or folder_name.removesuffix("_description")
    urdf_path = folder / "urdf" / f"{stem}.urdf"
    if not urdf_path.is_file():
        known = sorted(path.stem for path in folder.glob("urdf/*.urdf"))
        raise PlanningError(f"{WHEEL} has no {urdf_path.name} for {folder_name}; name one of "
                            f"{', '.join(f'{WHEEL}:{folder_name}/{item}' for item in known) or 'another robot'}")
    # ur5_robot.urdf goes with ur5.srdf.
    srdf_path = _first_file(folder / "srdf" / f"{stem}.srdf", folder / "srdf" / f"{stem.removesuffix('_robot')}.srdf")
    urdf = _resolve_meshes(_read(urdf_path), lambda package: share if package == WHEEL else None)
    return _described(urdf, None if srdf_path is None else _read(srdf_path), f"{WHEEL}:{name}")


def _path(name: str) -> Path:
    """File of a path or a package:// URI."""
    return located(name) if name.startswith("package://") else Path(name).expanduser().absolute()


def _first_file(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _xacro(path: Path) -> str:
    try:
        return str(importlib.import_module("xacro").process_file(str(path)).toxml())
    except ImportError as error:
        raise PlanningError(f"{path} is a xacro file and xacro is not installed here; write the URDF first: "
                            f"xacro {path} > robot.urdf") from error
    except Exception as error:  # xacro has no common base for its errors
        raise PlanningError(f"xacro failed on {path}: {error}. If it needs arguments, write the URDF first: "
                            f"xacro {path} NAME:=VALUE > robot.urdf") from error


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanningError(f"robot description file {path} cannot be read: {error}") from error


def _resolve_meshes(urdf: str, locate: Callable[[str], Path | None], base: Path | None = None) -> str:
    """Replace package:// and file:// URIs and relative paths in ``filename="…"`` by absolute paths."""

    def absolute(match: re.Match[str]) -> str:
        name = match.group(3)
        if name.startswith("package://"):
            path = located(name, locate)
        else:
            path = Path(name.removeprefix("file://"))
            if not path.is_absolute() and base is not None:
                path = base / path
        return f'{match.group(1)}"{path}"'

    return re.sub(r"""(<mesh\b[^>]*?\bfilename\s*=\s*)(["'])(.+?)\2""", absolute, urdf)
