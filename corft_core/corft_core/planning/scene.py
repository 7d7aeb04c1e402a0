"""Scene files: the obstacles of a cell, as YAML, or as MoveIt saves them (:mod:`moveit_scene`).

::

    frame: panda_link0
    objects:
      - {name: table, box_m: [0.9, 1.0, 0.04], position_m: [0.35, 0.02, -0.02], touch_links: [panda_link0]}
      - {name: post, cylinder_m: {radius: 0.03, height: 0.5}, position_m: [0.2, 0.4, 0.25], rpy_rad: [0, 0, 0]}
      - {name: ball, sphere_m: 0.05, position_m: [0.5, 0.0, 0.05]}
      - {name: fixture, mesh: meshes/fixture.stl, scale: [0.001, 0.001, 0.001]}
      - {name: camera, mesh: package://my_cell/meshes/camera.stl, attached_to: panda_hand}
    allowed:                      # pairs that may touch: two objects, or an object and a link
      - [camera, panda_link7]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from corft_core.planning.interface import (
    Array,
    Box,
    Cylinder,
    Mesh,
    PlanningError,
    SceneObject,
    Shape,
    Sphere,
    check_distinct,
)
from corft_core.planning.packages import located

_SHAPES = ("box_m", "cylinder_m", "sphere_m", "mesh")
_KEYS = {"name", *_SHAPES, "scale", "position_m", "rpy_rad", "attached_to", "touch_links"}


def load_scene(path: str | Path, base_frame: str, base: Array | None = None) -> list[SceneObject]:
    """Objects of a scene file: YAML whose ``frame`` is ``base_frame``, a ``.scene`` file, or a PlanningScene as YAML.

    ``base`` is the pose 4x4 of the base frame in MoveIt's planning frame, the robot's root link, by default the same.
    Raises PlanningError naming the file and the key.
    """
    path = Path(path)
    try:
        text = path.read_text()
        if path.suffix == ".scene":
            from corft_core.planning.moveit_scene import scene_from_text

            return scene_from_text(text, base)
        # `ros2 topic echo` ends each message with ---
        data = next(yaml.safe_load_all(text), None)
        if isinstance(data, dict) and "world" in data:
            from corft_core.planning.moveit_scene import scene_from_message

            return scene_from_message(data, base_frame, base)
        return scene_from_dict(data, base_frame, path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanningError(f"scene file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise PlanningError(f"scene file {path} is not valid YAML: {error}") from error
    except PlanningError as error:
        raise PlanningError(f"scene file {path}: {error}") from error


def scene_from_dict(data: Any, base_frame: str, folder: Path | None = None) -> list[SceneObject]:
    """Objects of a scene given as plain data; mesh paths are relative to ``folder``. Raises PlanningError."""
    if not isinstance(data, dict) or set(data) - {"allowed"} != {"frame", "objects"}:
        seen = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise PlanningError(f"expected the keys frame and objects, and maybe allowed, got {seen}")
    if data["frame"] != base_frame:
        raise PlanningError(f"frame is {data['frame']!r}, the contract's base frame is {base_frame!r}; "
                            "give all positions in the base frame")
    if not isinstance(data["objects"], list):
        raise PlanningError(f"objects must be a list, got {type(data['objects']).__name__}")
    objects = [_object(item, f"objects[{i}]", folder or Path()) for i, item in enumerate(data["objects"])]
    check_distinct(objects)
    return with_allowed(objects, data.get("allowed", []))


def with_allowed(objects: Sequence[SceneObject], allowed: Any) -> list[SceneObject]:
    """``objects`` that may touch as the pairs ``allowed`` say: two objects, or an object and a link."""
    result = {item.name: item for item in objects}
    if not isinstance(allowed, list):
        raise PlanningError(f"allowed must be a list of pairs, got {allowed!r}")
    for pair in allowed:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise PlanningError(f"allowed must hold pairs of names, got {pair!r}")
        first, second = pair if pair[0] in result else pair[::-1]
        if first not in result:
            raise PlanningError(f"allowed: neither {first} nor {second} is an object of the scene. Two links that may "
                                "touch belong into the SRDF, as <disable_collisions>.")
        item = result[first]
        result[first] = (replace(item, touch_objects=(*item.touch_objects, second)) if second in result
                         else replace(item, touch_links=(*item.touch_links, second)))
    return list(result.values())


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
    shape: Shape
    if given == ["box_m"]:
        x, y, z = _numbers(item["box_m"], 3, f"{where}.box_m")
        shape = Box((x, y, z))
    elif given == ["cylinder_m"]:
        cylinder = item["cylinder_m"]
        if not isinstance(cylinder, dict) or set(cylinder) != {"radius", "height"}:
            raise PlanningError(f"{where}.cylinder_m needs the keys radius and height, got {cylinder!r}")
        shape = Cylinder(*_numbers([cylinder["radius"], cylinder["height"]], 2, f"{where}.cylinder_m"))
    elif given == ["sphere_m"]:
        shape = Sphere(*_numbers([item["sphere_m"]], 1, f"{where}.sphere_m"))
    else:
        name = str(item["mesh"])
        file = located(name) if name.startswith("package://") else folder / name
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
