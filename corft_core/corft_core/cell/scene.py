"""Scenes of the cell: where the cubes lie and which of them the instruction asks for.

A scene follows from its id alone. All positions are in the base frame (``panda_link0``: x forward, y left,
z up, m). ``demo/i`` and ``ind/i`` are drawn from the same region with disjoint seeds; in ``ood/i`` the target
lies in a strip where no demonstration ever has it, while the other cube stays in the demonstrated region.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from corft_core.errors import CorftError

Target = Literal["red_cube", "blue_cube"]

CUBE_HALF_M = 0.02
BIN_CENTRE_M = (0.50, 0.235)
BIN_INNER_HALF_M = 0.062
BIN_WALL_THICKNESS_M = 0.005
BIN_WALL_HEIGHT_M = 0.045
BIN_FLOOR_M = 0.004

# (x low, x high, y low, y high) of cube centres.
DEMONSTRATED_REGION_M = (0.42, 0.56, -0.11, 0.06)
UNSEEN_REGION_M = (0.42, 0.56, -0.19, -0.13)
CUBE_YAW_RAD = 0.2
# Cubes this far apart along the fingers' width (x) or their opening (y) don't hinder a grasp.
CLEARANCE_M = (0.055, 0.10)
JOINT_NOISE_RAD = 0.008
SPLITS = ("demo", "ind", "ood")
OBJECTS: tuple[Target, Target] = ("red_cube", "blue_cube")


@dataclass(frozen=True)
class Scene:
    """Everything a reset of the cell needs.

    ``cubes``: (x, y, yaw) of the red and the blue cube, m and rad. ``joint_noise_rad``: (7,) added to the arm's
    home position. ``light``: brightness of the lamps, about 1.
    """

    scene_id: str
    target: Target
    cubes: tuple[tuple[float, float, float], tuple[float, float, float]]
    joint_noise_rad: tuple[float, ...]
    light: float

    @property
    def instruction(self) -> str:
        """The words that the operator and the policy get."""
        return instruction_for(self.target)

    @property
    def target_xy_m(self) -> tuple[float, float]:
        """Start position of the cube to move."""
        x, y, _ = self.cubes[OBJECTS.index(self.target)]
        return x, y

    def with_target(self, target: Target) -> Scene:
        """The same table with the other instruction."""
        return replace(self, target=target)


def instruction_for(target: Target) -> str:
    """The instruction that asks for this cube."""
    return f"pick up the {target.replace('_', ' ')} and put it in the bin"


def make_scene(scene_id: str) -> Scene:
    """Scene of an id like ``demo/5``, ``ind/7`` or ``ood/3``. Even numbers ask for the red cube, odd for the blue.

    Raises CorftError when the id names no scene.
    """
    split, _, number = scene_id.partition("/")
    if split not in SPLITS or not (number.isascii() and number.isdigit()):
        raise CorftError(f"no scene {scene_id!r}: expected one of {', '.join(SPLITS)}, a slash and a number, "
                         "for example demo/0")
    index = int(number)
    rng = np.random.default_rng([zlib.crc32(split.encode()), index])
    target: Target = "red_cube" if index % 2 == 0 else "blue_cube"
    region = UNSEEN_REGION_M if split == "ood" else DEMONSTRATED_REGION_M
    wanted = _uniform_xy(rng, region)
    other = _uniform_xy(rng, DEMONSTRATED_REGION_M)
    while not _clear_of(wanted, other):
        # Both are drawn again, so that the target's distribution stays the same everywhere but near corners.
        wanted, other = _uniform_xy(rng, region), _uniform_xy(rng, DEMONSTRATED_REGION_M)
    yaws = rng.uniform(-CUBE_YAW_RAD, CUBE_YAW_RAD, size=2)
    red, blue = (wanted, other) if target == "red_cube" else (other, wanted)
    noise = np.clip(rng.normal(0.0, JOINT_NOISE_RAD, size=7), -3 * JOINT_NOISE_RAD, 3 * JOINT_NOISE_RAD)
    return Scene(scene_id, target, ((*red, float(yaws[0])), (*blue, float(yaws[1]))),
                 tuple(float(value) for value in noise), float(rng.uniform(0.9, 1.1)))


def in_bin(position_m: np.ndarray) -> bool:
    """Whether a cube's centre (3,) lies inside the bin, below its rim."""
    dx, dy = abs(position_m[0] - BIN_CENTRE_M[0]), abs(position_m[1] - BIN_CENTRE_M[1])
    low = position_m[2] < BIN_WALL_HEIGHT_M
    return bool(max(dx, dy) < BIN_INNER_HALF_M and low and math.isfinite(float(position_m[2])))


def _uniform_xy(rng: np.random.Generator, region: tuple[float, float, float, float]) -> tuple[float, float]:
    return float(rng.uniform(region[0], region[1])), float(rng.uniform(region[2], region[3]))


def _clear_of(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) >= CLEARANCE_M[0] or abs(a[1] - b[1]) >= CLEARANCE_M[1]
