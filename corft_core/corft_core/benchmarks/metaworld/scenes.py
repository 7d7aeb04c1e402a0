"""Scenes of the Meta-World tasks: where the object and the goal are follows from the scene's id alone.

"drawer-open-v3/ind/7" is scene 7 of split ind. Object positions lie inside Meta-World's own range, in units of it:
u along x and, where the task's range allows, v along y. Demonstrations (demo) and their tests (ind) draw u from the
lower 70 % without a patch in the middle of it; unseen positions (ood) are never demonstrated: even numbers lie in
that patch, which the demonstrations surround, odd ones in the outer 30 %. Where the range is a line (drawer), all
unseen positions are outer ones. Goals are drawn from the whole range in every split.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError

Array = NDArray[np.float64]

SPLITS = ("demo", "ind", "ood", "fixed_demo", "fixed_ind")
SEEN_U = 0.7
PATCH_U, PATCH_V = (0.21, 0.49), (0.3, 0.7)
FIXED_U, FIXED_V = 0.35, 0.15
"""The fixed start: in the demonstrated part, beside the patch."""


@dataclass(frozen=True)
class Task:
    """A Meta-World task: its words, Meta-World's ranges [m] (object, then goal where it is drawn apart)."""

    instruction: str
    low_m: tuple[float, ...]
    high_m: tuple[float, ...]
    goal_apart_m: float = 0.0
    """Meta-World's smallest horizontal distance of object and goal."""

    @property
    def flat(self) -> bool:
        """Whether the object's range is two-dimensional, so that positions can be surrounded."""
        return self.high_m[1] > self.low_m[1]


TASKS = {
    "pick-place-v3": Task("pick up the puck and bring it to the goal", (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05),
                          (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), 0.15),
    "push-v3": Task("push the puck to the goal", (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01),
                    (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), 0.15),
    "peg-insert-side-v3": Task("insert the peg into the hole from the side", (0.0, 0.5, 0.02, -0.35, 0.4, -0.001),
                               (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), 0.1),
    "drawer-open-v3": Task("open the drawer", (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "door-open-v3": Task("open the door", (0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
}


def find_task(name: str) -> Task:
    """The task of that name, or a CorftError that lists all."""
    if name not in TASKS:
        raise CorftError(f"Meta-World task {name!r} is not one of {', '.join(TASKS)}.")
    return TASKS[name]


def parse_scene(scene_id: str) -> tuple[str, str, int]:
    """(task, split, number) of an id like "drawer-open-v3/ind/7"; CorftError for anything else."""
    parts = scene_id.split("/")
    if len(parts) != 3 or parts[0] not in TASKS or parts[1] not in SPLITS or not parts[2].isdecimal():
        raise CorftError(f"scene {scene_id!r}: expected TASK/SPLIT/NUMBER with a task of {', '.join(TASKS)} and a "
                         f"split of {', '.join(SPLITS)}.")
    return parts[0], parts[1], int(parts[2])


def unseen_kind(scene_id: str) -> str:
    """Of an unseen scene: "surrounded" by demonstrated positions, or "beyond" them; empty for other splits."""
    name, split, number = parse_scene(scene_id)
    if split != "ood":
        return ""
    return "surrounded" if TASKS[name].flat and number % 2 == 0 else "beyond"


def scene_vector(scene_id: str) -> Array:
    """Meta-World's random vector of a scene: object position [m], and goal [m] where the task has one."""
    name, split, number = parse_scene(scene_id)
    task = TASKS[name]
    rng = np.random.default_rng([zlib.crc32(f"{name}/{split}".encode()), number])
    low, high = np.array(task.low_m), np.array(task.high_m)
    u, v = _place(rng, split, unseen_kind(scene_id) == "surrounded", task.flat)
    while True:
        vector = rng.uniform(low, high)
        vector[:2] = low[:2] + np.array([u, v]) * (high - low)[:2]
        if np.linalg.norm(vector[:2] - vector[-3:-1]) >= task.goal_apart_m or len(vector) == 3:
            return vector


def _place(rng: np.random.Generator, split: str, surrounded: bool, flat: bool) -> tuple[float, float]:
    """The object's place in units of the range."""
    if split.startswith("fixed"):
        return FIXED_U, FIXED_V
    if surrounded:
        return rng.uniform(*PATCH_U), rng.uniform(*PATCH_V)
    if split == "ood":
        return rng.uniform(SEEN_U, 1.0), rng.uniform()
    while True:
        u, v = rng.uniform(0.0, SEEN_U), rng.uniform()
        if not (flat and PATCH_U[0] <= u <= PATCH_U[1] and PATCH_V[0] <= v <= PATCH_V[1]):
            return u, v
