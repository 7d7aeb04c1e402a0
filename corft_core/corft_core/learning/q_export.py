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

    Keys: gamma, prefix (= H), correlation [H], bias [H]; for P points mc_return [P], q [P][H],
    episode [P], trained [P].
    """
    q = stage.table_values(stage.frames.samples.actions[:, None])[:, :, 0].amin(0).cpu().numpy()
    realised = table.mc_return
    rows = np.arange(0, len(table), -(-len(table) // MAX_POINTS))
    write_json(path, {
        "gamma": table.gamma,
        "prefix": table.horizon,
        "correlation": [_correlation(q[:, i], realised) for i in range(table.horizon)],
        "bias": [round(float(np.mean(q[:, i] - realised)), 5) for i in range(table.horizon)],
        "mc_return": np.round(realised[rows], 4).tolist(),
        "q": [[round(float(x), 4) for x in row] for row in q[rows]],
        "episode": table.episode[rows].tolist(),
        "trained": trained[rows].tolist(),
    })


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.std() == 0 or b.std() == 0:
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 4)
