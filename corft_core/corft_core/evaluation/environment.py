"""What an evaluation asks of a simulated world, and what a benchmark of several tasks offers.

Implemented by the cell, by Meta-World and by the tests' point mass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from corft_core.data.episode import Episode
    from corft_core.features import Features


class Environment(Protocol):
    """One simulated world that steps at ``features.rate_hz``."""

    @property
    def features(self) -> Features:
        """Cameras, state and action names, rate."""
        ...

    @property
    def instruction(self) -> str:
        """The words for the current scene."""
        ...

    @property
    def success(self) -> bool:
        """Whether the task is done in the current state."""
        ...

    @property
    def target_xy_m(self) -> tuple[float, float]:
        """Where the target object is now, in the base frame; read after a reset it is the start position."""
        ...

    def reset(self, scene_id: str) -> None:
        """Set up a scene; equal ids give equal scenes."""
        ...

    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
        """Images {camera: (H, W, 3)} and the state (S,)."""
        ...

    def start_chunk(self, actions: NDArray[np.float64]) -> None:
        """Announce a new chunk (H, A) of absolute actions, the first of which is due one step from now."""
        ...

    def step(self, action: NDArray[np.float64]) -> None:
        """Advance one step with ``action`` (A,), the current chunk's action of this step."""
        ...

    def close(self) -> None:
        """Free renderers and the like."""
        ...


class Suite(Protocol):
    """A benchmark: several tasks with demonstrations, scenes and environments."""

    name: str
    tasks: tuple[str, ...]
    tuning_tasks: tuple[str, ...]
    """Further ones that a recipe may be tuned on, never reported."""

    def features(self, task: str) -> Features:
        """What the policy of a task sees and commands."""
        ...

    def demonstrate(self, task: str, count: int, seed: int, *, start: str = "random",
                    failures: bool = False) -> list[Episode]:
        """``count`` demonstrations, successful ones only; an equal seed gives equal episodes.

        Fewer are the first of more: ``demonstrate(t, 30, s)`` equals ``demonstrate(t, 100, s)[:30]``.
        ``start``: "random" or "fixed" start positions. ``failures`` keeps whatever happened, with more faults.
        """
        ...

    def environment(self, task: str) -> Environment:
        """A world for trials of a task."""
        ...

    def scene_ids(self, task: str, split: str, count: int, first: int = 0) -> list[str]:
        """Ids of ``count`` scenes of a split, from number ``first`` on."""
        ...

    def unseen_kind(self, scene_id: str) -> str:
        """Of a scene of split "ood": "surrounded" by demonstrated positions, or "beyond" them; else empty."""
        ...
