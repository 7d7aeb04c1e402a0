"""What the trainer needs from a data set, and the same from episodes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from corft_core.data.episode import Episode
from corft_core.features import Features


class TrainingData(Protocol):
    """N steps of E episodes in order; `EpisodeDataset` offers all of it."""

    @property
    def contract(self) -> Features: ...
    @property
    def fps(self) -> int: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def num_episodes(self) -> int: ...
    @property
    def episode_index(self) -> NDArray[np.int64]: ...
    @property
    def state(self) -> NDArray[np.float32]: ...
    @property
    def action(self) -> NDArray[np.float32]: ...
    @property
    def reward(self) -> NDArray[np.float32]: ...
    @property
    def done(self) -> NDArray[np.bool_]: ...
    @property
    def success(self) -> NDArray[np.bool_]: ...
    @property
    def instructions(self) -> list[str]: ...
    def images(self) -> dict[str, NDArray[np.uint8]]: ...


@dataclass(frozen=True)
class EpisodesInMemory:
    """TrainingData over episodes that were never written to disk."""

    contract: Features
    episodes: Sequence[Episode]
    _images: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def _join(self, name: str) -> NDArray:
        return np.concatenate([getattr(episode, name) for episode in self.episodes])

    @property
    def fps(self) -> int:
        return self.contract.rate_hz

    @property
    def num_frames(self) -> int:
        return sum(len(episode) for episode in self.episodes)

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    @property
    def episode_index(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.episodes)), [len(episode) for episode in self.episodes])

    @property
    def state(self) -> NDArray[np.float32]:
        return self._join("state")

    @property
    def action(self) -> NDArray[np.float32]:
        return self._join("action")

    @property
    def reward(self) -> NDArray[np.float32]:
        return self._join("reward")

    @property
    def done(self) -> NDArray[np.bool_]:
        return self._join("done")

    @property
    def success(self) -> NDArray[np.bool_]:
        return self._join("done")

    @property
    def instructions(self) -> list[str]:
        return [episode.instruction for episode in self.episodes]

    def images(self) -> dict[str, NDArray[np.uint8]]:
        if not self._images:
            for camera in self.contract.cameras:
                self._images[camera.name] = np.concatenate([e.images[camera.name] for e in self.episodes])
        return self._images
