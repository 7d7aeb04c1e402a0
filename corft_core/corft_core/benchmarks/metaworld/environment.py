"""One Meta-World task as an `Environment`: 20 state values, 4 action values, 80 steps a second.

State: hand (3) [m], object position (3) [m] and quaternion (4), goal (3) [m], object − hand (3), goal − object (3),
gripper opening 0…1. There is no previous frame, so that a policy cannot copy its own speed, and the goal, which
v3 hides by default, is visible. Action: the hand's motion in x, y, z, −1…1 times Meta-World's 1 cm a step, and the
gripper opening 0 closed … 1 open, which stands for Meta-World's effort 1 … −1 (effort = 1 − 2 · opening).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.benchmarks.metaworld.scenes import find_task, parse_scene, scene_vector
from corft_core.errors import CorftError
from corft_core.features import StateFeatures

RATE_HZ = 80
"""Meta-World's physics steps of 2.5 ms, five a control step."""

FEATURES = StateFeatures(
    state_names=("hand_x", "hand_y", "hand_z", "object_x", "object_y", "object_z", "object_q0", "object_q1",
                 "object_q2", "object_q3", "goal_x", "goal_y", "goal_z", "to_object_x", "to_object_y", "to_object_z",
                 "to_goal_x", "to_goal_y", "to_goal_z", "gripper"),
    action_names=("move_x", "move_y", "move_z", "gripper"),
    rate_hz=RATE_HZ,
)


def import_metaworld() -> Any:
    """The metaworld package, or a CorftError that says how to get it."""
    try:
        import metaworld
        import metaworld.policies
    except ImportError as error:
        raise CorftError(f"Meta-World is not installed ({error}). Type: pip install -r requirements/evidence.txt"
                         ) from error
    # The experts ask for more than ±1 and leave the clipping to the environment.
    warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", module=r"metaworld\.policies")
    return metaworld


class MetaWorldEnvironment:
    """See the module's docstring. `observation` is Meta-World's own vector (39,), for the scripted operator."""

    features = FEATURES

    def __init__(self, task: str) -> None:
        self.task = task
        self.instruction = find_task(task).instruction
        self._env = import_metaworld().env_dict.ALL_V3_ENVIRONMENTS[task]()
        self._env._partially_observable = False  # the goal is part of the observation …
        del self._env.sawyer_observation_space  # … and is not clipped to the bounds cached without it
        self._env._set_task_called = True  # scenes are set below instead of through pickled Task objects
        self._env._freeze_rand_vec = True
        self._env.max_path_length = 1_000_000  # the caller decides when a trial ends
        self.observation: NDArray[np.float64] = np.zeros(39)
        self._upright = np.zeros(4)
        self._success = False

    def reset(self, scene_id: str) -> None:
        """Put object and goal where the scene's id says; equal ids give equal worlds."""
        task = parse_scene(scene_id)[0]
        if task != self.task:
            raise CorftError(f"scene {scene_id!r} belongs to {task}, this environment is {self.task}.")
        self._env._last_rand_vec = scene_vector(scene_id)
        self.observation, _ = self._env.reset()
        self._upright = self.observation[7:11].copy()
        self._success = False

    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
        """No images and the state (20,)."""
        hand, opening, position = self.observation[:3], self.observation[3:4], self.observation[4:7]
        turn, goal = self.observation[7:11], self.observation[36:39]
        if turn @ self._upright < 0.0:  # q and −q are the same attitude; keep the one that moves continuously
            turn = -turn
        state = np.concatenate([hand, position, turn, goal, position - hand, goal - position, opening])
        return {}, state.astype(np.float32)

    def start_chunk(self, actions: NDArray[np.float64]) -> None:
        """Nothing follows a chunk here: every step is commanded apart."""

    def step(self, action: NDArray[np.float64]) -> None:
        """One step of 12.5 ms with action (4,): xyz −1…1 and opening 0…1."""
        effort = np.append(np.clip(action[:3], -1.0, 1.0), 1.0 - 2.0 * np.clip(action[3], 0.0, 1.0))
        self.observation, _, _, _, info = self._env.step(effort)
        self._success = bool(info["success"])

    @property
    def success(self) -> bool:
        """Meta-World's own success after the last step."""
        return self._success

    @property
    def target_xy_m(self) -> tuple[float, float]:
        return round(float(self.observation[4]), 4), round(float(self.observation[5]), 4)

    def close(self) -> None:
        self._env.close()
