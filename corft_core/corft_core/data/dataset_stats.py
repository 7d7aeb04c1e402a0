"""Statistics of a data set computed anew from its content, compared with the stored ones, and repaired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corft_core import files
from corft_core.data import lerobot_format as fmt
from corft_core.data.dataset_check import same_statistics
from corft_core.data.feature_stats import ImageHistogram, Statistics, vector_statistics
from corft_core.data.lerobot_reader import DatasetError, EpisodeDataset

# Without stored histograms only decoded pictures are left to compute from. Encoding moves a mean or deviation by less
# than this; extremes and quantiles follow single pixels and cannot be compared.
DECODED_ATOL = 4 / 255


def exact_statistics(dataset: EpisodeDataset) -> tuple[dict[str, Statistics], list[dict[str, Statistics]]]:
    """Feature → statistics over all steps, and the same for each episode."""
    bounds = dataset.episode_starts
    totals: dict[str, Statistics] = {}
    episodes: list[dict[str, Statistics]] = [{} for _ in dataset.episodes]
    for camera in dataset.contract.cameras:
        key, total = fmt.image_key(camera.name), ImageHistogram()
        for entry, histogram in zip(episodes, dataset.image_histograms(camera.name), strict=True):
            entry[key] = histogram.statistics()
            total.merge(histogram)
        totals[key] = total.statistics()
    for name in vector_features(dataset):
        values = dataset.column(name)
        totals[name] = vector_statistics(values)
        for episode, entry in enumerate(episodes):
            entry[name] = vector_statistics(values[bounds[episode] : bounds[episode + 1]])
    return totals, episodes


def vector_features(dataset: EpisodeDataset) -> list[str]:
    """Features whose statistics are those of numbers."""
    return [name for name, feature in dataset.info["features"].items()
            if feature["dtype"] not in ("video", "image", "string")]


def wrong_statistics(dataset: EpisodeDataset, totals: dict[str, Statistics],
                     episodes: list[dict[str, Statistics]]) -> list[str]:
    """What is stored otherwise than computed: feature, or feature and episode."""
    decoded = {fmt.image_key(camera.name) for camera in dataset.contract.cameras
               if dataset.stored_histograms(camera.name) is None}

    def same(name: str, stored: dict[str, Any], computed: Statistics) -> bool:
        if name not in decoded:
            return same_statistics(stored, computed)
        parts = ("count", "mean", "std")
        return stored.keys() == computed.keys() and same_statistics(
            {part: stored[part] for part in parts}, {part: computed[part] for part in parts}, DECODED_ATOL)

    wrong = [name for name, computed in totals.items() if not same(name, dataset.statistics.get(name, {}), computed)]
    for episode, (row, computed_row) in enumerate(zip(_stored_rows(dataset), episodes, strict=True)):
        wrong += [f"{name} in episode {episode}" for name, computed in computed_row.items()
                  if not same(name, _entry(row, name), computed)]
    return wrong


def repair(dataset: EpisodeDataset, totals: dict[str, Statistics], episodes: list[dict[str, Statistics]]) -> None:
    """Write meta/stats.json and the statistics in the episodes table anew, each file atomically."""
    others = {name: value for name, value in dataset.statistics.items() if name not in totals} \
        if (dataset.folder / fmt.STATS_PATH).exists() else {}
    for path in _tables(dataset):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            for name, statistics in episodes[row["episode_index"]].items():
                row.update({f"stats/{name}/{part}": value for part, value in statistics.items()})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        files.write_bytes(path, sink.getvalue().to_pybytes())
    files.write_json(dataset.folder / fmt.STATS_PATH, {**others, **totals})


def table(statistics: dict[str, Statistics], names: dict[str, list[str]]) -> str:
    """Statistics for a terminal, a line a value; ``names``: feature → names of its values."""
    lines = [f"{'feature':<34} {'min':>10} {'q01':>10} {'q50':>10} {'q99':>10} {'max':>10} {'mean':>10} {'std':>10}"]
    for feature, entry in statistics.items():
        columns = [np.asarray(entry[part], np.float64).reshape(-1)
                   for part in ("min", "q01", "q50", "q99", "max", "mean", "std")]
        labels = names.get(feature) or [str(k) for k in range(len(columns[0]))]
        for k, values in enumerate(zip(*columns, strict=True)):
            label = feature if len(columns[0]) == 1 else f"{feature}.{labels[k]}"
            lines.append(f"{label:<34} " + " ".join(f"{value:>10.4g}" for value in values))
    return "\n".join(lines)


def feature_names(dataset: EpisodeDataset) -> dict[str, list[str]]:
    """Feature → names of its values; colours for cameras."""
    return {name: ["red", "green", "blue"] if feature["dtype"] == "video" else feature.get("names") or []
            for name, feature in dataset.info["features"].items()}


def _tables(dataset: EpisodeDataset) -> list[Any]:
    return sorted((dataset.folder / "meta/episodes").rglob("*.parquet"))


def _stored_rows(dataset: EpisodeDataset) -> list[dict[str, Any]]:
    try:
        rows = [row for path in _tables(dataset) for row in pq.read_table(path).to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{dataset.folder}: the episodes table cannot be read: {error}") from error
    return sorted(rows, key=lambda row: row["episode_index"])


def _entry(row: dict[str, Any], feature: str) -> dict[str, Any]:
    head = f"stats/{feature}/"
    return {key.removeprefix(head): value for key, value in row.items() if key.startswith(head)}
