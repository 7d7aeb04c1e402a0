"""Exact statistics of data set columns, as ``meta/stats.json`` and the episodes table carry them.

LeRobot's own writer approximates: image std overflows, quantiles are averages over episodes, and of images it takes
some frames. Here scalars and vectors are computed from all values and images from the histograms of all frames; of
large frames LeRobot's own grid of pixels is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# LeRobot's auto_downsample_height_width: a frame with a side of 300 pixels or more is thinned to about 150.
_LARGE_PX, _THINNED_PX = 300, 150
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Statistics = dict[str, list[Any]]


def vector_statistics(values: NDArray[Any]) -> Statistics:
    """min, max, mean, std, count and quantiles of (N,) or (N, D) values, each a list of D."""
    columns = values.reshape(len(values), -1)
    wide = columns.astype(np.float64)
    result: Statistics = {
        "min": columns.min(axis=0).tolist(),
        "max": columns.max(axis=0).tolist(),
        "mean": wide.mean(axis=0).tolist(),
        "std": wide.std(axis=0).tolist(),
        "count": [len(values)],
    }
    for name, q in zip(QUANTILES, np.quantile(wide, list(QUANTILES.values()), axis=0), strict=True):
        result[name] = q.tolist()
    return result


class ImageHistogram:
    """Counts of the 256 levels of each channel; exact statistics of any number of frames in constant memory.

    Of frames with a side of at least 300 pixels every n-th pixel of every n-th row counts (n = 4 for 640x480): all
    pixels would take a fifth of the time that encoding them does.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((3, 256), np.int64)
        self.frames = 0

    @classmethod
    def of(cls, counts: NDArray[np.int64], frames: int) -> ImageHistogram:
        """A histogram with these counts (3, 256) of ``frames`` frames."""
        histogram = cls()
        histogram.counts, histogram.frames = np.asarray(counts, np.int64).copy(), frames
        return histogram

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Add frames uint8 (T, H, W, 3)."""
        import cv2

        height, width = frames.shape[1:3]
        every = max(1, (width if width > height else height) // _THINNED_PX) if max(height, width) >= _LARGE_PX else 1
        pixels = np.ascontiguousarray(frames).view("V3")[:, ::every, ::every]  # whole pixels are copied faster
        for frame in pixels.copy().view(np.uint8).reshape(*pixels.shape[:3], 3):
            # one frame at a time keeps calcHist's float32 counts exact (< 2**24 pixels)
            for channel in range(3):
                counts = cv2.calcHist([frame], [channel], None, [256], [0, 256])
                self.counts[channel] += np.asarray(counts).reshape(256).astype(np.int64)
        self.frames += len(frames)

    def merge(self, other: ImageHistogram) -> None:
        """Add another histogram's frames."""
        self.counts += other.counts
        self.frames += other.frames

    def statistics(self) -> Statistics:
        """Statistics per channel, shape (3, 1, 1), levels scaled to [0, 1]; ``count`` is the number of frames."""
        levels = np.arange(256) / 255.0
        totals = self.counts.sum(axis=1)
        mean = self.counts @ levels / totals
        std = np.sqrt(np.maximum(self.counts @ levels**2 / totals - mean**2, 0.0))
        result: dict[str, NDArray[np.float64]] = {
            "min": levels[(self.counts > 0).argmax(axis=1)],
            "max": levels[255 - (self.counts[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean,
            "std": std,
        }
        for name, q in QUANTILES.items():
            result[name] = np.array([_histogram_quantile(self.counts[c], q) for c in range(3)]) / 255.0
        shaped: Statistics = {name: value.reshape(3, 1, 1).tolist() for name, value in result.items()}
        return shaped | {"count": [self.frames]}


def _histogram_quantile(counts: NDArray[np.int64], q: float) -> float:
    """Level at rank q·(n−1), interpolated linearly between neighbours as numpy.quantile does."""
    cumulative = np.cumsum(counts)
    rank = q * (cumulative[-1] - 1)
    low, high = np.searchsorted(cumulative, [np.floor(rank) + 1, np.ceil(rank) + 1])
    return float(low + (high - low) * (rank - np.floor(rank)))
