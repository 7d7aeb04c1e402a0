"""Robot description: URDF and SRDF texts with every mesh path resolved.

``Contract.robot.description`` names it: ``example-robot-data:<folder>`` for a robot of that wheel, or the path of
a URDF file with its SRDF beside it (``x.srdf``, or ``../srdf/x.srdf``), or both paths as ``URDF:SRDF``.
"""

from __future__ import annotations

import os
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
from corft_core.planning.interface import PlanningError

WHEEL = "example-robot-data"
PANDA_TOOL_OFFSET_M = 0.1034  # flange of the Franka hand to between the fingertips, franka_description


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

    def links(self, with_collision: bool = False) -> tuple[str, ...]:
        """Names of the links, or only of those with collision geometry, in the URDF's order."""
        return tuple(link.get("name", "") for link in self._root.findall("link")
                     if not with_collision or link.find("collision") is not None)

    def position_limits(self, joints: tuple[str, ...]) -> NDArray[np.float64]:
        """(2, J): lower and upper position limits of ``joints``. Raises PlanningError naming a joint without them."""
        limits = {joint.get("name"): joint.find("limit") for joint in self._root.findall("joint")}
        rows = []
        for name in joints:
            limit = limits.get(name)
            if limit is None or "lower" not in limit.attrib or "upper" not in limit.attrib:
                raise PlanningError(f"the URDF has no position limits for {name}")
            rows.append((float(limit.attrib["lower"]), float(limit.attrib["upper"])))
        return np.array(rows).T

    def planning_group(self, joints: tuple[str, ...]) -> str:
        """Name of the SRDF group that holds exactly ``joints``. Raises PlanningError naming the groups there are."""
        root = ElementTree.fromstring(self.srdf)
        groups = {group.get("name", ""): [joint.get("name", "") for joint in group.findall("joint")]
                  for group in root.findall("group")}
        for name, members in groups.items():
            if set(members) == set(joints):
                return name
        for group in root.findall("group"):
            chain = group.find("chain")
            if chain is None:
                continue
            if set(self._chain(chain.get("base_link", ""), chain.get("tip_link", ""))) == set(joints):
                return group.get("name", "")
        raise PlanningError(f"the SRDF has no group of the joints {', '.join(joints)}; its groups: "
                            f"{', '.join(groups) or 'none'}. Add a <group> with these joints.")

    def _chain(self, base: str, tip: str) -> list[str]:
        """Moving joints between two links."""
        parents = {}
        for joint in self._root.findall("joint"):
            child, parent = joint.find("child"), joint.find("parent")
            if child is not None and parent is not None:
                parents[child.get("link", "")] = (joint.get("name", ""), parent.get("link", ""), joint.get("type"))
        joints: list[str] = []
        while tip != base and tip in parents:
            name, tip, kind = parents[tip]
            if kind != "fixed":
                joints.append(name)
        return joints


def resolve_description(source: str, srdf: str | None = None) -> RobotDescription:
    """Texts of a description. ``source`` as in the module's docstring, or a URDF text (then ``srdf`` is a text too).

    Raises PlanningError naming the file or package that is missing.
    """
    if source.lstrip().startswith("<"):
        if srdf is None:
            raise PlanningError("a URDF text was given without an SRDF text; planning needs both")
        return RobotDescription(_resolve_meshes(source, _in_ros_packages), srdf)
    if source.startswith(f"{WHEEL}:"):
        return _from_wheel(source.removeprefix(f"{WHEEL}:"))
    urdf_name, _, srdf_name = source.partition(":")
    urdf_path = Path(urdf_name).expanduser().absolute()
    if urdf_path.suffix == ".xacro":
        raise PlanningError(f"{urdf_path} is a xacro file; write the URDF first: xacro {urdf_path} > robot.urdf")
    candidates = ([Path(srdf_name).expanduser().absolute()] if srdf_name else
                  [urdf_path.with_suffix(".srdf"), urdf_path.parent.parent / "srdf" / f"{urdf_path.stem}.srdf"])
    srdf_path = next((path for path in candidates if path.is_file()), candidates[0])

    def locate(package: str) -> Path | None:
        around = next((folder for folder in urdf_path.parents if folder.name == package), None)
        return around or _in_ros_packages(package)

    return RobotDescription(_resolve_meshes(_read(urdf_path), locate, urdf_path.parent), _read(srdf_path))


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


def _from_wheel(folder_name: str) -> RobotDescription:
    try:
        share = Path(str(distribution(WHEEL).locate_file(f"cmeel.prefix/share/{WHEEL}")))
    except PackageNotFoundError as error:
        raise PlanningError(f"the robot description is in the package {WHEEL}, which is not installed: "
                            f"pip install {WHEEL}") from error
    folder = share / "robots" / folder_name
    if not folder.is_dir():
        known = sorted(path.name for path in (share / "robots").glob("*_description"))
        raise PlanningError(f"{WHEEL} has no robot {folder_name!r}; it has {', '.join(known) or 'none'}")
    name = folder_name.removesuffix("_description")
    return RobotDescription(
        _resolve_meshes(_read(folder / "urdf" / f"{name}.urdf"), lambda package: share if package == WHEEL else None),
        _read(folder / "srdf" / f"{name}.srdf"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanningError(f"robot description file {path} cannot be read: {error}") from error


def _in_ros_packages(package: str) -> Path | None:
    """Share folder of a ROS package on AMENT_PREFIX_PATH."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    return next((prefix / "share" / package for prefix in prefixes if (prefix / "share" / package).is_dir()), None)


def _resolve_meshes(urdf: str, locate: Callable[[str], Path | None], base: Path | None = None) -> str:
    """Replace package:// and file:// URIs and relative paths in ``filename="…"`` by absolute paths."""

    def absolute(match: re.Match[str]) -> str:
        name = match.group(2)
        if name.startswith("package://"):
            package, _, rest = name.removeprefix("package://").partition("/")
            folder = locate(package)
            if folder is None:
                raise PlanningError(f"the URDF names the package {package} ({name}), which is neither a folder above "
                                    "the URDF nor on AMENT_PREFIX_PATH: source the workspace that has it")
            path = folder / rest
        else:
            path = Path(name.removeprefix("file://"))
            if not path.is_absolute() and base is not None:
                path = base / path
        return f'{match.group(1)}"{path}"'

    return re.sub(r'(<mesh\b[^>]*?\bfilename\s*=\s*)"([^"]+)"', absolute, urdf)
