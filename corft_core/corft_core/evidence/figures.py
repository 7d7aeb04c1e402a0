"""Pictures of docs/evidence.md, each a function from runs or summary to a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from corft_core.evaluation.plots import new_figure
from corft_core.evidence.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"sft": "#8a8f98", "sft_extra": "#5d636e", "sft_low_noise": "#a7b79b", "no_ops": "#c7902b",
           "no_ops_low_noise": "#dfc28a", "best_of_n": "#7fb0e6", "co_rft": "#4a90dd", "c51": "#1b4f9c",
           "no_ops_c51": "#1f7a6d", "bc100": "#b9a3d0", "bc100_low_noise": "#8d6fb0"}
LABELS = {"sft": "SFT", "sft_extra": "SFT, extra steps", "sft_low_noise": "SFT, low noise",
          "no_ops": "SFT, no pauses", "no_ops_low_noise": "SFT, no pauses, low noise",
          "best_of_n": "SFT + best of 16", "co_rft": "CO-RFT, scalar critic", "c51": "CO-RFT",
          "no_ops_c51": "CO-RFT, no pauses", "bc100": "SFT, 100 demos",
          "bc100_low_noise": "SFT, 100 demos, low noise"}
"""The arms in the pictures, in the tables by task and in the README, in this order."""
SHADES = "RdYlBu"


def _number(figure: Mapping[str, Any] | None, key: str = "value") -> float:
    return np.nan if not figure or figure[key] is None else float(figure[key])


def arm_bars(suite: Mapping[str, Any]) -> Figure:
    """Success of the main arms on demonstrated and on unseen positions, mean over tasks, with intervals."""
    arms = [name for name in LABELS if name in suite["arms"]]
    figure, axes = new_figure(9.0, 3.2, ncols=2, sharey=True)
    for axis, (key, title) in zip(axes[0], (("success", "demonstrated positions"), ("ood", "unseen positions")),
                                  strict=True):
        for place, name in enumerate(arms):
            value, low, high = (_number(suite["arms"][name][key], part) for part in ("value", "low", "high"))
            axis.bar(place, value, color=COLOURS[name], width=0.7)
            axis.errorbar(place, value, [[value - low], [high - value]], color="#333333", capsize=3, linewidth=1)
        axis.set_xticks(range(len(arms)), [LABELS[name] for name in arms], rotation=30, ha="right", fontsize=8)
        axis.set(title=title, ylim=(0, 1))
    axes[0][0].set_ylabel("success at the limit")
    return figure


def task_bars(suite: Mapping[str, Any]) -> Figure:
    """Success by task of the arms that every task has."""
    tasks = list(suite["tasks"])
    arms = [name for name in LABELS if name in suite["arms"]]
    figure, axes = new_figure(1.6 * len(tasks) + 2, 5.2, nrows=2, sharex=True)
    width = 0.85 / max(1, len(arms))
    for axis, (key, title) in zip(axes[:, 0], (("success", "demonstrated"), ("ood", "unseen")), strict=True):
        for number, name in enumerate(arms):
            found = [suite["tasks"][task]["arms"].get(name, {}).get(key) for task in tasks]
            value, low, high = (np.array([_number(one, part) for one in found]) for part in ("value", "low", "high"))
            place = np.arange(len(tasks)) + (number - (len(arms) - 1) / 2) * width
            axis.bar(place, value, width, color=COLOURS[name], label=LABELS[name])
            axis.errorbar(place, value, [value - low, high - value], fmt="none", color="#333333", linewidth=0.8)
        axis.set(ylabel=f"success, {title}", ylim=(0, 1))
    axes[-1][0].set_xticks(range(len(tasks)), tasks)
    axes[0][0].legend(fontsize=8, frameon=False, ncols=min(len(arms), 6), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def lever_dots(suite: Mapping[str, Any], reference: str) -> Figure:
    """Every arm's difference in success to ``reference`` with its interval, the largest on top. Trials only: one run
    a task."""
    rows = [(name, arm["against"][reference]["success_difference"]) for name, arm in suite["arms"].items()
            if arm["against"].get(reference)]
    rows.sort(key=lambda row: _number(row[1]))
    figure, axes = new_figure(7.5, 0.24 * len(rows) + 1.0)
    axis = axes[0][0]
    for place, (_, found) in enumerate(rows):
        value, low, high = (100 * _number(found, part) for part in ("value", "low", "high"))
        clear = low > 0 or high < 0
        axis.plot([low, high], [place, place], color="#1b6ac9" if clear else "#9aa0a8", linewidth=1.6)
        axis.plot(value, place, "o", color="#1b6ac9" if clear else "#9aa0a8", markersize=5)
    axis.axvline(0, color="#555555", linewidth=0.8)
    labels = [suite["arms"][name]["title"] + " (trials only)" * found.get("trials_only", False) for name, found in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set(xlabel=f"success at the limit against {LABELS[reference]} [points]", ylim=(-0.7, len(rows) - 0.3))
    return figure


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Imitation loss, critic loss and values over steps: a line a run, one colour a task."""
    panels = (("imitation loss", "sft", ("loss",)), ("critic: TD loss", "critic", ("td_loss",)),
              ("critic: Q of recorded chunks", "critic", ("q_data",)), ("weighted imitation loss", "actor", ("loss",)))
    figure, axes = new_figure(3.2 * len(panels), 2.9, ncols=len(panels))
    tasks = list(dict.fromkeys(run.task for run in runs))
    for axis, (title, stage, keys) in zip(axes[0], panels, strict=True):
        labelled: set[str] = set()
        for run in runs:
            rows = run.curves.get(stage, {})
            for key in keys:
                if key in rows:
                    label = None if run.task in labelled else run.task
                    axis.plot(rows["step"], np.array(rows[key], float), color=f"C{tasks.index(run.task)}",
                              linewidth=0.9, alpha=0.8, label=label)
                    labelled.add(run.task)
        axis.set(title=title, xlabel="step")
    if axes[0][0].lines:
        axes[0][0].legend(fontsize=7, frameon=False)
    return figure


def critic_values(runs: Sequence[Run]) -> Figure:
    """Q of recorded chunks, those the critic was trained on, against the return that followed, for the first, a middle
    and the last prefix, and the correlation by prefix, a line a run."""
    found = [run.curves["values"] for run in runs if "values" in run.curves]
    prefixes = len(found[0]["correlation"])
    shown = sorted({0, prefixes // 2, prefixes - 1})
    figure, axes = new_figure(3.1 * (len(shown) + 1), 3.0, ncols=len(shown) + 1)
    for axis, prefix in zip(axes[0], shown, strict=False):
        realised = np.concatenate([values["mc_return"] for values in found])
        predicted = np.concatenate([[row[prefix] for row in values["q"]] for values in found])
        axis.scatter(realised, predicted, s=3, alpha=0.15, color=COLOURS["c51"], linewidths=0)
        top = float(max(realised.max(), predicted.max()))
        axis.plot([0, top], [0, top], "--", color="#555555", linewidth=0.8)
        axis.set(title=f"Q of {prefix + 1} action{'s' * (prefix > 0)}", xlabel="realised return")
    axes[0][0].set_ylabel("critic value")
    for values in found:
        correlation = np.array(values["correlation"], float)
        axes[0][-1].plot(np.arange(1, prefixes + 1), correlation, color=COLOURS["c51"], alpha=0.4, linewidth=1)
    axes[0][-1].set(title="correlation by prefix", xlabel="actions", ylim=(0, 1))
    return figure


def success_maps(runs: Mapping[str, Mapping[tuple[str, int], Run]], arms: Sequence[str]) -> Figure:
    """Where the target started and in how many of the seeds the trial succeeded in time: a row a task, a column an
    arm. Circles: demonstrated region, triangles: unseen positions."""
    tasks = list(dict.fromkeys(task for task, _ in runs[arms[0]]))
    figure, axes = new_figure(2.6 * len(arms) + 1, 2.3 * len(tasks), nrows=len(tasks), ncols=len(arms))
    dots = None
    for line, task in zip(axes, tasks, strict=True):
        for axis, arm in zip(line, arms, strict=True):
            mine = [run for (one, _), run in runs[arm].items() if one == task and not run.diverged]
            for split, marker in (("ind", "o"), ("ood", "^")):
                if not mine or split not in mine[0].splits:
                    continue
                x, y = np.array(mine[0].splits[split].xy_m).T
                rate = np.mean([[good and steps <= run.limit for good, steps in
                                 zip(run.splits[split].success, run.splits[split].steps, strict=True)]
                                for run in mine], axis=0)
                dots = axis.scatter(y, x, c=rate, cmap=SHADES, vmin=0, vmax=1, marker=marker, s=26,
                                    edgecolors="#666666", linewidths=0.3)
            axis.set_aspect("equal", adjustable="datalim")
            axis.invert_xaxis()
            axis.tick_params(labelsize=7)
        line[0].set_ylabel(f"{task}\nx [m]", fontsize=8)
    for axis, arm in zip(axes[0], arms, strict=True):
        axis.set_title(LABELS.get(arm, arm), fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("y [m]", fontsize=8)
    if dots is not None:
        figure.colorbar(dots, ax=axes, label="share of seeds that succeed", shrink=0.6)
    return figure
