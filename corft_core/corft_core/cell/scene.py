"""Scenes of the cell: a task, where its objects lie, the arm's start and the light, all from an id alone.

All positions are in the base frame (``panda_link0``: x forward, y left, z up, m). The id is ``task/split/number``,
for example ``cup/ind/7``; without a task (``demo/5``) it is the task ``cube_to_bin``. Each task draws its own scenes
(:mod:`corft_core.cell.tasks`); splits share no seed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from corft_core.errors import CorftError

DEFAULT_TASK: Final = "cube_to_bin"
JOINT_NOISE_RAD = 0.008
SPLITS = ("demo", "ind", "ood", "fixed_demo", "fixed_ind")
"""Families of scenes; ``cube_to_bin`` has the first three."""

Place = tuple[float, float, float]
Region = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything a reset of the cell needs.

    ``target``: body that the instruction is about. ``places``: name and (x, y, yaw) of every object that can move,
    m and rad. ``joint_noise_rad``: (7,) added to the arm's home position. ``light``: brightness of the lamps,
    about 1.
    """

    scene_id: str
    task: str
    instruction: str
    target: str
    places: tuple[tuple[str, Place], ...]
    joint_noise_rad: tuple[float, ...]
    light: float

    @property
    def target_xy_m(self) -> tuple[float, float]:
        """Start position of the target."""
        x, y, _ = dict(self.places)[self.target]
        return x, y


def make_scene(scene_id: str) -> Scene:
    """Scene of an id like ``demo/5``, ``ind/7``, ``ood/3`` or ``cup/ind/7``.

    Raises CorftError when the id names no scene.
    """
    from corft_core.cell.tasks import get_task

    name, _, rest = scene_id.partition("/") if scene_id.count("/") == 2 else (DEFAULT_TASK, "", scene_id)
    task = get_task(name)
    split, _, number = rest.partition("/")
    if split not in task.splits or not (number.isascii() and number.isdigit()):
        raise CorftError(f"no scene {scene_id!r}: expected one of {', '.join(task.splits)}, a slash and a number, "
                         f"for example {scene_name(name, 'demo', 0)}")
    return task.make_scene(split, int(number))


def scene_name(task: str, split: str, number: int) -> str:
    """The id of a task's scene; the inverse of what :func:`make_scene` reads."""
    return f"{split}/{number}" if task == DEFAULT_TASK else f"{task}/{split}/{number}"


def scene_rng(key: str, number: int) -> np.random.Generator:
    """Generator of the scene ``number`` in a family named by ``key``; families share no stream."""
    return np.random.default_rng([zlib.crc32(key.encode()), number])


def draw_xy(rng: np.random.Generator, region: Region) -> tuple[float, float]:
    """A point, uniform in (x low, x high, y low, y high)."""
    return float(rng.uniform(region[0], region[1])), float(rng.uniform(region[2], region[3]))


def draw_joint_noise(rng: np.random.Generator) -> tuple[float, ...]:
    """Offsets (7,) [rad] of the arm's start from its home."""
    noise = np.clip(rng.normal(0.0, JOINT_NOISE_RAD, size=7), -3 * JOINT_NOISE_RAD, 3 * JOINT_NOISE_RAD)
    return tuple(float(value) for value in noise)


def draw_light(rng: np.random.Generator) -> float:
    """Brightness of the lamps."""
    return float(rng.uniform(0.9, 1.1))


def inside(point: tuple[float, float], region: Region) -> bool:
    """Whether a point lies in (x low, x high, y low, y high), all finite."""
    x, y = point
    return math.isfinite(x + y) and region[0] <= x <= region[1] and region[2] <= y <= region[3]
