"""A data set made ready for both stages: chunk table, split, statistics, tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from corft_core.data.chunks import ChunkTable, build_chunks
from corft_core.data.history import Spacing
from corft_core.data.statistics import Statistics
from corft_core.errors import CorftError
from corft_core.features import Features
from corft_core.learning.config import TrainConfig
from corft_core.learning.filters import Imitation, imitation_data
from corft_core.learning.frames import Samples
from corft_core.learning.training_data import TrainingData


def check_data(dataset: TrainingData, config: TrainConfig) -> None:
    """Refuse data nothing can be learned from, saying what to record."""
    if dataset.num_frames == 0:
        raise CorftError("the data set holds no step: record episodes and convert them with bag_to_dataset.")
    if dataset.fps != dataset.contract.rate_hz:
        raise CorftError(
            f"the data set has {dataset.fps} steps/s, its contract says rate_hz = {dataset.contract.rate_hz}: convert "
            "the bag again with this contract."
        )
    if not np.any(dataset.done):
        raise CorftError(
            f"none of the {dataset.num_episodes} episodes succeeded: there is nothing to imitate and no reward. Record "
            "episodes that end with the EpisodeEvent SUCCESS."
        )
    if config.held_out >= dataset.num_episodes:
        raise CorftError(f"held_out = {config.held_out} leaves none of {dataset.num_episodes} episodes to train on.")


@dataclass(frozen=True)
class Prepared:
    """N steps, in the data set's order."""

    dataset: TrainingData
    contract: Features
    table: ChunkTable
    trained: NDArray[np.bool_]
    """(N,) steps of episodes that are not held out."""
    imitation: Imitation
    statistics: Statistics
    samples: Samples
    images: list[NDArray[np.uint8]]
    """One (N, H, W, 3) array per camera."""
    device: torch.device

    @classmethod
    def of(cls, dataset: TrainingData, config: TrainConfig, device: torch.device) -> Prepared:
        """Cut chunks, leave out what is held out or filtered, measure, normalise."""
        contract = dataset.contract
        table = build_chunks(
            dataset.episode_index, dataset.action, dataset.reward, dataset.done, config.policy.horizon,
            config.co_rft.gamma, config.co_rft.reward_copies,
        )
        trained = table.episode < table.episode.max() + 1 - config.held_out
        imitation = imitation_data(dataset, table, trained, config.sft)
        if not imitation.rows.any():
            raise CorftError("no step is left to imitate: every successful episode is held out. Lower held_out.")
        state, action, valid = dataset.state[trained], table.action[trained], table.valid[trained]
        if imitation.action is not table.action:  # chunks that skip pauses reach further; the policy needs that range
            state = np.concatenate([state, dataset.state[imitation.rows]])
            action = np.concatenate([action, imitation.action[imitation.rows]])
            valid = np.concatenate([valid, imitation.valid[imitation.rows]])
        statistics = Statistics.measure(state, action, valid, contract)
        return cls(
            dataset, contract, table, trained, imitation, statistics,
            Samples.build(
                dataset, table, statistics, device, imitation.action, imitation.valid,
                Spacing(config.policy.history.steps, config.policy.history.stride),
            ),
            [dataset.images()[camera.name] for camera in contract.cameras], device,
        )

    def index(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """Numbers of the true rows, on the training device."""
        return torch.from_numpy(np.flatnonzero(mask)).to(self.device)

    def counts(self) -> dict[str, float]:
        """RUN/data.json: how much there is, and how much of it stage 1 imitates."""
        return {"steps": len(self.table), "imitated_steps": int(self.imitation.rows.sum()),
                "removed_share": round(float(self.imitation.removed_share), 4)}

    def summary(self) -> str:
        """One line: what stage 1 learns from."""
        removed = self.imitation.removed_share
        filtered = f", {removed:.1%} of the steps filtered out" if removed else ""
        return f"stage 1 imitates {int(self.imitation.rows.sum())} of {len(self.table)} steps{filtered}"
