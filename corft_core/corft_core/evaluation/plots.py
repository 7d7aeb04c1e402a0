"""The report's pictures, each a function from plain data to a matplotlib figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.evaluation.results import EpisodeResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"sft": "#8a8f98", "co_rft": "#1b6ac9"}
LABELS = {"sft": "SFT", "co_rft": "CO-RFT"}


def new_figure(width: float, height: float, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure that needs no screen and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(squeeze=False, **kwargs)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def to_data_uri(figure: Figure) -> str:
    """The figure as a PNG that an HTML page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def success_map(results: Mapping[str, Sequence[EpisodeResult]], limit_s: float,
                demonstrated: Sequence[tuple[float, float]] = ()) -> Figure:
    """Where the target stood on the table and whether the trial succeeded, a panel a policy.

    ``demonstrated`` (x, y) are the target positions of the demonstrations. Axes as the operator sees the table:
    the robot below, its left (+y) on the left.
    """
    figure, axes = new_figure(9.5, 3.9, ncols=len(results), sharex=True, sharey=True)
    for axis, (name, rows) in zip(axes[0], results.items(), strict=True):
        if len(demonstrated):
            x, y = np.asarray(demonstrated).T
            axis.scatter(y, x, marker="s", s=90, c="#e8ecf2", label="demonstrated", zorder=1)
        for good, marker, colour, label in ((True, "o", "#2a9d4a", "success"), (False, "x", "#cc3333", "failure")):
            points = [row.target_xy_m for row in rows if row.within(limit_s) == good]
            if points:
                x, y = np.asarray(points).T
                axis.scatter(y, x, marker=marker, s=34, c=colour, label=f"{label} ({len(points)})", zorder=2)
        axis.set(title=LABELS.get(name, name), xlabel="y [m]", aspect="equal")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    axes[0][0].set_ylabel("x [m]")
    axes[0][0].invert_xaxis()
    return figure


def cycle_times(results: Mapping[str, Sequence[EpisodeResult]], limit_s: float, demo_s: Sequence[float]) -> Figure:
    """Share of trials that have succeeded by a time, one curve a policy, and the demonstrations' own."""
    figure, axes = new_figure(6.2, 3.6)
    axis = axes[0][0]
    horizon = 1.5 * limit_s
    curves = [(LABELS.get(name, name), COLOURS.get(name), "-", [row.time_s for row in rows if row.success], len(rows))
              for name, rows in results.items()]
    curves.append(("demonstrations", "#c7902b", "--", list(demo_s), max(1, len(demo_s))))
    for label, colour, style, times, count in curves:
        steps = np.sort([time for time in times if time <= horizon])
        axis.step([0, *steps, horizon], [0, *(np.arange(1, len(steps) + 1) / count), len(steps) / count],
                  style, where="post", color=colour, label=label)
    axis.axvline(limit_s, color="#555555", linewidth=0.8, linestyle=":")
    axis.text(limit_s, 1.02, "time limit", fontsize=8, ha="center")
    axis.set(xlabel="time since start [s]", ylabel="share succeeded", ylim=(0, 1.08), xlim=(0, horizon))
    axis.legend(fontsize=8, frameon=False)
    return figure


def learning_curves(metrics: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, str, Sequence[str]]]) -> Figure:
    """Logged figures over training steps. ``panels``: (title, stage, keys); rows are the lines of metrics.jsonl."""
    figure, axes = new_figure(3.6 * len(panels), 3.0, ncols=len(panels))
    for axis, (title, stage, keys) in zip(axes[0], panels, strict=True):
        for key in keys:
            points = [(row["step"], row[key]) for row in metrics if row.get("stage") == stage and key in row]
            if points:
                axis.plot(*np.asarray(points, dtype=float).T, label=key, linewidth=1.3, marker=".", markersize=3)
        axis.set(title=title, xlabel="step")
        if axis.lines:
            axis.legend(fontsize=7, frameon=False)
    return figure


def value_against_return(predicted: Sequence[float], realised: Sequence[float]) -> Figure:
    """Critic value of the demonstrated chunks against the discounted return that followed."""
    figure, axes = new_figure(4.2, 3.6)
    axis = axes[0][0]
    axis.scatter(realised, predicted, s=4, alpha=0.25, color=COLOURS["co_rft"], linewidths=0)
    top = max([1e-6, *realised, *predicted])
    axis.plot([0, top], [0, top], color="#555555", linewidth=0.8, linestyle="--")
    axis.set(xlabel="realised return", ylabel="critic value Q(s, a)", xlim=(0, top), ylim=(0, top))
    return figure
