"""Meta-World as a `Suite`: demonstrations, scenes and environments of five tasks."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from corft_core.benchmarks.metaworld.environment import FEATURES, MetaWorldEnvironment
from corft_core.benchmarks.metaworld.operator import FAILING, MIXED, Faults, ImperfectExpert
from corft_core.benchmarks.metaworld.scenes import SPLITS, TASKS, find_task, unseen_kind
from corft_core.data.episode import Episode
from corft_core.errors import CorftError
from corft_core.features import StateFeatures

DEMONSTRATION_LIMIT = 400
"""Steps after which the operator stops; 5 s."""
SCENES_A_SEED = 100_000
"""Demonstrations of different seeds have different scenes."""
MOST_TRIES = 20
"""Tries a kept demonstration, at most, before the task is given up."""


class MetaWorldSuite:
    """See `corft_core.evaluation.environment.Suite`. Needs requirements/evidence.txt."""

    name = "metaworld"
    tasks = tuple(TASKS)
    tuning_tasks: tuple[str, ...] = ()

    def features(self, task: str) -> StateFeatures:
        """The same 20 state and 4 action values for every task."""
        find_task(task)
        return FEATURES

    def environment(self, task: str) -> MetaWorldEnvironment:
        """A world for trials of a task."""
        return MetaWorldEnvironment(task)

    def scene_ids(self, task: str, split: str, count: int, first: int = 0) -> list[str]:
        """Ids of `count` scenes of a split, from number `first` on."""
        find_task(task)
        if split not in SPLITS:
            raise CorftError(f"split {split!r} is not one of {', '.join(SPLITS)}.")
        return [f"{task}/{split}/{number}" for number in range(first, first + count)]

    def unseen_kind(self, scene_id: str) -> str:
        """Of a scene of split "ood": "surrounded" by demonstrated positions, or "beyond" them; else empty."""
        return unseen_kind(scene_id)

    def demonstrate(self, task: str, count: int, seed: int, *, start: str = "random",
                    failures: bool = False) -> list[Episode]:
        """`count` demonstrations; an equal seed gives equal episodes.

        Failed tries are replaced by the next scene's. `failures`: the operator errs more and everything is kept.
        ``origin["tries"]`` of an episode tells how many tries it took since the last kept one.
        """
        if start not in ("random", "fixed"):
            raise CorftError(f"start {start!r}: expected random or fixed.")
        split, faults = ("demo" if start == "random" else "fixed_demo"), (FAILING if failures else MIXED)
        environment = self.environment(task)
        episodes: list[Episode] = []
        tries = 0
        for scene_id in self.scene_ids(task, split, MOST_TRIES * max(count, 1), seed * SCENES_A_SEED):
            if len(episodes) == count:
                break
            episode = record_episode(environment, scene_id, faults)
            tries += 1
            if episode.success or failures:
                episode.origin["tries"] = tries
                episodes.append(episode)
                tries = 0
        environment.close()
        if len(episodes) < count:
            raise CorftError(f"the operator of {task} succeeded {len(episodes)} times in {MOST_TRIES * count} tries.")
        return episodes


def record_episode(environment: MetaWorldEnvironment, scene_id: str, faults: Faults = MIXED) -> Episode:
    """One try of the operator; it ends with the step that succeeds, or when the operator gives up."""
    environment.reset(scene_id)
    expert = ImperfectExpert(environment.task, [zlib.crc32(scene_id.encode())], faults)
    states, actions = [], []
    while not (environment.success or expert.gave_up or expert.steps >= DEMONSTRATION_LIMIT):
        states.append(environment.observe()[1])
        actions.append(expert.act(environment.observation))
        environment.step(actions[-1].astype(np.float64))
    return Episode(images={}, state=np.stack(states), action=np.stack(actions), instruction=environment.instruction,
                   success=environment.success, scene_id=scene_id, origin={"operator_speed": expert.speed})


if TYPE_CHECKING:
    from corft_core.evaluation.environment import Environment, Suite

    _suite: Suite = MetaWorldSuite()
    _environment: Environment = MetaWorldEnvironment("")
