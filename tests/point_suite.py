"""A suite of milliseconds: a point in the plane moves to a goal. Demonstrations differ in speed and pause."""

from __future__ import annotations

import zlib

import numpy as np

from corft_core.data.episode import Episode
from corft_core.features import StateFeatures

FEATURES = StateFeatures(("x", "y", "goal_x", "goal_y", "gripper"), ("dx", "dy", "gripper"), 10)
REACHED, STRIDE = 0.15, 0.2


class PointWorld:
    """State (x, y, goal_x, goal_y, gripper); an action moves the point by up to one stride."""

    features = FEATURES
    instruction = "go to the goal"

    def reset(self, scene_id: str) -> None:
        rng = np.random.default_rng(zlib.crc32(scene_id.encode()))
        low, high = (1.0, 1.3) if "/ood/" in scene_id else (0.0, 1.0)
        self.point = np.zeros(2)
        self.goal = rng.uniform(low, high, 2) + 0.3

    def observe(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {}, np.array([*self.point, *self.goal, 1.0], np.float32)

    def start_chunk(self, actions: np.ndarray) -> None:
        pass

    def step(self, action: np.ndarray) -> None:
        self.point = self.point + STRIDE * np.clip(action[:2], -1, 1)

    @property
    def success(self) -> bool:
        return bool(np.linalg.norm(self.goal - self.point) < REACHED)

    @property
    def target_xy_m(self) -> tuple[float, float]:
        return float(self.goal[0]), float(self.goal[1])

    def close(self) -> None:
        pass


class PointSuite:
    """Two equal tasks under different names."""

    name = "point"
    tasks = ("near", "far")
    tuning_tasks = ()

    def features(self, task: str) -> StateFeatures:
        return FEATURES

    def environment(self, task: str) -> PointWorld:
        return PointWorld()

    def scene_ids(self, task: str, split: str, count: int, first: int = 0) -> list[str]:
        return [f"{task}/{split}/{number}" for number in range(first, first + count)]

    def unseen_kind(self, scene_id: str) -> str:
        if "/ood/" not in scene_id:
            return ""
        return "beyond" if int(scene_id.rpartition("/")[2]) % 2 else "surrounded"

    def demonstrate(self, task: str, count: int, seed: int, *, start: str = "random",
                    failures: bool = False) -> list[Episode]:
        return [self._episode(task, 1000 * seed + number, start) for number in range(count)]

    def _episode(self, task: str, number: int, start: str) -> Episode:
        rng, world = np.random.default_rng(number), PointWorld()
        world.reset(f"{task}/demo/{0 if start == 'fixed' else number}")
        speed, states, actions = rng.uniform(0.3, 1.0), [], []
        while not world.success:
            states.append(world.observe()[1])
            way = world.goal - world.point
            pause = rng.random() < 0.2
            move = np.zeros(2) if pause else speed * way / max(np.linalg.norm(way), STRIDE)
            actions.append(np.array([*move, 1.0], np.float32))
            world.step(actions[-1])
        return Episode({}, np.stack(states), np.stack(actions), world.instruction, True, f"{task}/demo/{number}")
