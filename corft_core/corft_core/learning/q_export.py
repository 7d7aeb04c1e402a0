"""RUN/q_vs_return.json: what the critic claims for recorded chunks against the return that followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corft_core.data.chunks import ChunkTable
from corft_core.files import write_json
from corft_core.learning.co_rft_stage import CoRFTStage

MAX_POINTS = 2000


def export_q_vs_return(path: Path, stage: CoRFTStage, table: ChunkTable, trained: np.ndarray) -> None:
    """Write per prefix: correlation and mean error over all frames, and the points of every k-th frame.

    Keys: gamma, prefix (number of prefixes P), lengths [P] (their steps), correlation [P], bias [P]; for M points
    mc_return [M], q [M][P], episode [M], trained [M]. Nothing is written where no action critic was trained.
    """
    if stage.run_time_critic is None:
        return
    q = stage.table_values(stage.frames.samples.actions[:, None])[:, :, 0].amin(0).cpu().numpy()
    realised = table.mc_return
    lengths = stage.run_time_critic.values.lengths
    rows = np.arange(0, len(table), -(-len(table) // MAX_POINTS))
    write_json(path, {
        "gamma": table.gamma,
        "prefix": len(lengths),
        "lengths": list(lengths),
        "correlation": [_correlation(q[:, i], realised) for i in range(len(lengths))],
        "bias": [round(float(np.mean(q[:, i] - realised)), 5) for i in range(len(lengths))],
        "mc_return": np.round(realised[rows], 4).tolist(),
        "q": [[round(float(x), 4) for x in row] for row in q[rows]],
        "episode": table.episode[rows].tolist(),
        "trained": trained[rows].tolist(),
    })


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.std() == 0 or b.std() == 0:
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 4)
