"""Scene file: the fixed obstacles of a cell, as YAML.

::

    frame: panda_link0
    objects:
      - {name: table, box_m: [0.9, 1.0, 0.04], position_m: [0.35, 0.02, -0.02], touch_links: [panda_link0]}
      - {name: post, cylinder_m: {radius: 0.03, height: 0.5}, position_m: [0.2, 0.4, 0.25], rpy_rad: [0, 0, 0]}
      - {name: fixture, mesh: meshes/fixture.stl, scale: [0.001, 0.001, 0.001]}
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from corft_core.planning.interface import Array, Box, Cylinder, Mesh, PlanningError, SceneObject, check_scene

_SHAPES = ("box_m", "cylinder_m", "mesh")
_KEYS = {"name", *_SHAPES, "scale", "position_m", "rpy_rad", "attached_to", "touch_links"}


def load_scene(path: str | Path, base_frame: str) -> list[SceneObject]:
    """Objects of a scene file whose ``frame`` is ``base_frame``. Raises PlanningError naming the file and the key."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise PlanningError(f"scene file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise PlanningError(f"scene file {path} is not valid YAML: {error}") from error
    try:
        return scene_from_dict(data, base_frame, path.parent)
    except PlanningError as error:
        raise PlanningError(f"scene file {path}: {error}") from error


def scene_from_dict(data: Any, base_frame: str, folder: Path | None = None) -> list[SceneObject]:
    """Objects of a scene given as plain data; mesh paths are relative to ``folder``. Raises PlanningError."""
    if not isinstance(data, dict) or set(data) != {"frame", "objects"}:
        seen = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise PlanningError(f"expected the keys frame and objects, got {seen}")
    if data["frame"] != base_frame:
        raise PlanningError(f"frame is {data['frame']!r}, the contract's base frame is {base_frame!r}; "
                            "give all positions in the base frame")
    if not isinstance(data["objects"], list):
        raise PlanningError(f"objects must be a list, got {type(data['objects']).__name__}")
    objects = [_object(item, f"objects[{i}]", folder or Path()) for i, item in enumerate(data["objects"])]
    check_scene(objects)
    return objects


def pose_matrix(position_m: Any, rpy_rad: Any = (0.0, 0.0, 0.0)) -> Array:
    """Pose 4x4 of a position and of roll, pitch, yaw about the fixed axes x, y, z (REP 103, URDF)."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(angle), math.cos(angle)) for angle in rpy_rad)
    pose = np.eye(4)
    pose[:3, :3] = [[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                    [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                    [-sp, cp * sr, cp * cr]]
    pose[:3, 3] = position_m
    return pose


def _object(item: Any, where: str, folder: Path) -> SceneObject:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise PlanningError(f"{where} must be a mapping with a name")
    where = f"{where} ({item['name']})"
    unknown = sorted(str(key) for key in item if key not in _KEYS)
    if unknown:
        raise PlanningError(f"{where}: unknown key {', '.join(unknown)}; known keys: {', '.join(sorted(_KEYS))}")
    given = [key for key in _SHAPES if key in item]
    if len(given) != 1:
        raise PlanningError(f"{where} needs exactly one of {', '.join(_SHAPES)}, got {', '.join(given) or 'none'}")
    if "scale" in item and given != ["mesh"]:
        raise PlanningError(f"{where}: scale belongs to a mesh")
    shape: Box | Cylinder | Mesh
    if given == ["box_m"]:
        x, y, z = _numbers(item["box_m"], 3, f"{where}.box_m")
        shape = Box((x, y, z))
    elif given == ["cylinder_m"]:
        cylinder = item["cylinder_m"]
        if not isinstance(cylinder, dict) or set(cylinder) != {"radius", "height"}:
            raise PlanningError(f"{where}.cylinder_m needs the keys radius and height, got {cylinder!r}")
        shape = Cylinder(*_numbers([cylinder["radius"], cylinder["height"]], 2, f"{where}.cylinder_m"))
    else:
        file = folder / str(item["mesh"])
        if not file.is_file():
            raise PlanningError(f"{where}.mesh: no file {file}")
        x, y, z = _numbers(item.get("scale", [1, 1, 1]), 3, f"{where}.scale")
        shape = Mesh(file, (x, y, z))
    links = item.get("touch_links", [])
    if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
        raise PlanningError(f"{where}.touch_links must be a list of link names, got {links!r}")
    attached_to = item.get("attached_to")
    if attached_to is not None and not isinstance(attached_to, str):
        raise PlanningError(f"{where}.attached_to must be a link name, got {attached_to!r}")
    pose = pose_matrix(_numbers(item.get("position_m", [0, 0, 0]), 3, f"{where}.position_m"),
                       _numbers(item.get("rpy_rad", [0, 0, 0]), 3, f"{where}.rpy_rad"))
    return SceneObject(item["name"], shape, pose, attached_to, tuple(links))


def _numbers(value: Any, count: int, where: str) -> list[float]:
    good = isinstance(value, list) and len(value) == count and all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number) for number in value)
    if not good:
        raise PlanningError(f"{where} must be {count} finite numbers, got {value!r}")
    return [float(number) for number in value]
