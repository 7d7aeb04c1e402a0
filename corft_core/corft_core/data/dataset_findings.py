"""All that a check of a data set looks for: damaged parts first, then what would spoil training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from corft_core.data import check_labels, check_pictures, check_signals
from corft_core.data.dataset_check import StructureCheck
from corft_core.data.findings import Finding
from corft_core.data.lerobot_reader import DatasetError, EpisodeDataset
from corft_core.data.video import VideoError


def find(dataset: EpisodeDataset, limits: NDArray[np.float64] | None = None, pictures: bool = True,
         progress: Callable[[int], None] = lambda frames: None) -> list[Finding]:
    """All findings. ``limits`` (2, J): the joints' position limits where known; ``pictures``: decode every frame.

    ``progress`` is told of frames decoded, cameras × N in all. What cannot be read is a finding, not an exception.
    """
    return list(_all(dataset, limits, pictures, progress))


def _all(dataset: EpisodeDataset, limits: NDArray[np.float64] | None, pictures: bool,
         progress: Callable[[int], None]) -> Iterator[Finding]:
    damaged = False
    for problem in StructureCheck(dataset).problems():
        damaged = True
        yield _structure(problem)
    parts: list[Iterator[Finding]] = [
        check_signals.not_finite(dataset), check_signals.motion(dataset), check_signals.lag_and_unit(dataset),
        check_signals.clocks(dataset), check_labels.labels(dataset), check_labels.lengths(dataset),
        check_labels.duplicates(dataset), check_labels.starts(dataset)]
    if limits is not None:
        parts.append(check_signals.joint_limits(dataset, limits))
    if pictures:
        parts += [check_pictures.pictures(dataset, camera.name, progress) for camera in dataset.contract.cameras]
    for part in parts:
        try:
            yield from part
        except (DatasetError, VideoError) as error:
            if not damaged:  # else it was told above
                yield _structure(str(error))


def _structure(problem: str) -> Finding:
    return Finding("error", "damaged", problem, "convert the bags again, or take the file from a copy")
