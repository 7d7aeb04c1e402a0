"""The cell as a benchmark of six tasks: demonstrations, scenes, and worlds that a policy can be tried in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.demonstrations import demonstrate
from corft_core.cell.grip import cell_gripper
from corft_core.cell.scene import DEFAULT_TASK, Scene, make_scene, scene_name
from corft_core.cell.simulation import Cell
from corft_core.cell.tasks import LIFT_TASKS, get_task
from corft_core.contract import Contract
from corft_core.data.episode import Episode
from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

STARTS = {"random": "demo", "fixed": "fixed_demo"}
# Demonstrations of different seeds share no scene as long as each tries fewer than this many.
SCENES_PER_SEED = 100_000


class CellEnvironment:
    """One cell as a policy meets it. ``cell`` is open to those who want to look at it."""

    def __init__(self, contract: Contract, task: str = DEFAULT_TASK) -> None:
        self.features, self._gripper = contract, cell_gripper(contract)
        self.cell = Cell(image_size=contract.cameras[0].size, home_rad=contract.robot.home_rad, task=task)
        self._step_s = 1.0 / contract.rate_hz

    def reset(self, scene_id: str) -> None:
        """Set up a scene of the cell's task."""
        self.cell.reset(make_scene(scene_id))

    @property
    def instruction(self) -> str:
        """The words for the current scene."""
        return self._scene.instruction

    @property
    def success(self) -> bool:
        """Whether the task is done, by the cell's physics."""
        return self.cell.success

    @property
    def target_xy_m(self) -> tuple[float, float]:
        """Where the target is now, in the base frame."""
        x, y, _ = self.cell.position_m(self._scene.target)
        return float(x), float(y)

    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
        """Images {camera: (H, W, 3)}, and the state (8,): measured joints [rad] and gripper opening."""
        images = {camera.name: self.cell.render(camera.name, camera.size) for camera in self.features.cameras}
        opening = self._gripper.to_opening(self.cell.finger_position_m)
        return images, np.append(self.cell.joint_positions, opening).astype(np.float32)

    def start_chunk(self, actions: NDArray[np.float64]) -> None:
        """Let the arm's controller follow a chunk (H, 8) of joint positions [rad] and openings, one a step."""
        times: NDArray[np.float64] = self._step_s * np.arange(1, len(actions) + 1, dtype=np.float64)
        self.cell.command_trajectory(JointPath(self.features.robot.joints, times, actions[:, :-1]))

    def step(self, action: NDArray[np.float64]) -> None:
        """Advance one step; of ``action`` (8,) only the opening counts, the arm follows its chunk."""
        self.cell.command_gripper(self._gripper.to_position(float(action[-1])))
        self.cell.step(self._step_s)

    def close(self) -> None:
        """Free the renderers."""
        self.cell.close()

    @property
    def _scene(self) -> Scene:
        if self.cell.scene is None:
            raise CorftError("no scene is set up; call reset(scene_id) first")
        return self.cell.scene


class CellSuite:
    """The cell's lifting tasks. ``contract``: robot, cameras and rate; by default the Panda cell's own."""

    name = "cell"
    tasks = LIFT_TASKS
    tuning_tasks: tuple[str, ...] = (DEFAULT_TASK,)

    def __init__(self, contract: Contract | None = None) -> None:
        self._contract = contract or Contract.load(contract_path())

    def features(self, task: str) -> Contract:
        """The contract, the same for all tasks."""
        get_task(task)
        return self._contract

    def demonstrate(self, task: str, count: int, seed: int, *, start: str = "random",
                    failures: bool = False) -> list[Episode]:
        """``count`` demonstrations, successful ones only; an equal seed gives equal episodes.

        Fewer are the first of more. ``start``: "random" or "fixed". ``failures`` keeps whatever happened, with more
        faults: about half of the episodes fail.
        """
        if start not in STARTS:
            raise CorftError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
        habits = get_task(task).faulty_habits if failures else get_task(task).habits
        kept: list[Episode] = []
        episodes = demonstrate(self._contract, self._demo_ids(task, STARTS[start], seed), seed, habits=habits)
        while len(kept) < count:
            episode = next(episodes)
            if failures or episode.success:
                kept.append(episode)
        episodes.close()
        return kept

    def environment(self, task: str) -> CellEnvironment:
        """A world for trials of a task."""
        return CellEnvironment(self._contract, task)

    def scene_ids(self, task: str, split: str, count: int, first: int = 0) -> list[str]:
        """Ids of ``count`` scenes of a split, from number ``first`` on."""
        ids = [scene_name(task, split, number) for number in range(first, first + count)]
        if ids:
            make_scene(ids[0])  # refuses a split that the task doesn't have
        return ids

    def unseen_kind(self, scene_id: str) -> str:
        """Of a scene of split "ood": "surrounded" by demonstrated positions, or "beyond" them; else empty."""
        *_, split, number = scene_id.split("/")
        if split != "ood":
            return ""
        return "surrounded" if int(number) % 2 == 0 and not scene_id.startswith("ood/") else "beyond"

    @staticmethod
    def _demo_ids(task: str, split: str, seed: int) -> Iterator[str]:
        for number in range(seed * SCENES_PER_SEED, (seed + 1) * SCENES_PER_SEED):
            yield scene_name(task, split, number)


def contract_path() -> Path:
    """The Panda cell's contract, in this checkout or in a sourced workspace."""
    inside = Path("config", "panda_cell", "contract.yaml")
    checkouts = [folder / "ros2_ws" / "src" / "corft" for folder in Path(__file__).resolve().parents]
    prefixes = [Path(prefix) / "share" / "corft" for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":")]
    for folder in (*checkouts, *prefixes):
        if (folder / inside).is_file():
            return folder / inside
    raise CorftError("the Panda cell's contract is not found: source the workspace (. tools/env.sh) or give a contract")
