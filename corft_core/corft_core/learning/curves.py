"""RUN/curves.png: every logged quantity of both stages."""

from __future__ import annotations

import io

from corft_core.files import write_bytes
from corft_core.learning.run_folder import RunFolder

ORDER = ("sft", "critic", "actor")


def draw_curves(run: RunFolder) -> None:
    """Draw metrics.jsonl; does nothing when there is no metric."""
    rows = run.metrics()
    panels = sorted({(row["stage"], key) for row in rows for key in row if key not in ("stage", "step", "seconds")},
                    key=lambda panel: (ORDER.index(panel[0]), panel[1]))
    if not panels:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (stage, key) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, number + 1)
        points = [(row["step"], row[key]) for row in rows if row["stage"] == stage and row.get(key) is not None]
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
        axes.set_title(f"{stage}: {key}", fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(run.folder / "curves.png", buffer.getvalue())
