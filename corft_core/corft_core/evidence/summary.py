"""From runs to figures: results/evidence/summary.json.

Success counts at the limit unless it says "longer" (1.5 × the limit). Means over tasks weigh every task alike, and
within a task every run. A comparison uses the runs that both arms have.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core import files
from corft_core.evidence.arms import ARMS, Arm
from corft_core.evidence.bootstrap import Block, Interval, hierarchical
from corft_core.evidence.protocol import LONGER, SEEN_RUNS, VERSION
from corft_core.evidence.records import Run
from corft_core.evidence.runner import Plan

Array = NDArray[np.float64]
Runs = Mapping[str, Mapping[tuple[str, int], Run]]
"""Runs of one suite: arm → (task, seed) → run."""

HEADLINE, SCALAR_RECIPE, FILTERED, MORE_DATA = "c51", "co_rft", "no_ops_low_noise", "bc100_low_noise"
COMMON = ("sft", "sft_extra", "sft_low_noise", FILTERED, MORE_DATA, SCALAR_RECIPE)
TARGETS = {
    "success_ratio": ("at least", 1.57), "cycle_time_ratio": ("at most", 0.777), "ood_success": ("at least", 0.443),
    "ood_against_sft": ("above", 0.0), "ood_drop_random_start": ("at most", 0.12), "against_bc100": ("at least", 0.0),
}
NO_EFFECT = {"success_ratio": 1.0, "cycle_time_ratio": 1.0, "ood_against_sft": 0.0, "against_bc100": 0.0}


def columns(run: Run, split: str, kind: str = "") -> Array:
    """A row a trial: success at the limit, success at the longer limit, steps if so (else 0), steps with failures at
    the horizon. (N, 4); ``kind`` keeps the trials of one kind only."""
    trials = run.splits[split]
    steps, success = np.asarray(trials.steps, float), np.asarray(trials.success, bool)
    table = np.stack([success & (steps <= run.limit), success, np.where(success, steps, 0.0),
                      np.where(success, steps, run.horizon)], axis=1).astype(float)
    return table[np.asarray(trials.kind) == kind] if kind else table


def pair_columns(a: Run, b: Run, split: str, kind: str = "") -> Array:
    """Columns of a (4), of b (4), both solved it, and the steps of each where both did. (N, 11)"""
    left, right = columns(a, split, kind), columns(b, split, kind)
    both = left[:, 1] * right[:, 1]
    return np.concatenate([left, right, both[:, None], (both * left[:, 2])[:, None], (both * right[:, 2])[:, None]], 1)


def mean(column: int) -> Callable[[Array], Array]:
    """Mean over tasks of a column."""
    return lambda m: m[..., column].mean(-1)


def difference(a: int, b: int) -> Callable[[Array], Array]:
    """Mean over tasks of column b minus that of column a."""
    return lambda m: (m[..., b] - m[..., a]).mean(-1)


def ratio(a: int, b: int) -> Callable[[Array], Array]:
    """Ratio of the means over tasks, b to a."""
    return lambda m: m[..., b].mean(-1) / m[..., a].mean(-1)


def task_ratio(a: int, b: int) -> Callable[[Array], Array]:
    """Mean over tasks of each task's ratio b to a; tasks without a common success are left out."""
    return lambda m: np.nanmean(np.where(m[..., a] > 0, m[..., b] / np.where(m[..., a] > 0, m[..., a], 1), np.nan), -1)


ARM_FIGURES: dict[str, Callable[[Array], Array]] = {
    "success": mean(0), "success_longer": mean(1), "ood": mean(4), "ood_longer": mean(5), "ood_drop": difference(4, 0),
}
PAIR_FIGURES: dict[str, Callable[[Array], Array]] = {
    "success_difference": difference(0, 4), "success_ratio": ratio(0, 4), "longer_difference": difference(1, 5),
    "cycle_time_ratio": task_ratio(9, 10), "cycle_time_ratio_failures_at_horizon": task_ratio(3, 7),
    "ood_difference": difference(11, 15), "ood_longer_difference": difference(12, 16),
}


def ind(run: Run) -> str:
    """The split of demonstrated positions: fixed_ind for the fixed-start arms."""
    return next(split for split in run.splits if split != "ood")


def block(runs: Sequence[Sequence[Any]], make: Callable[[Any], Array]) -> Block:
    """A column table for every run (or pair of runs) of every task."""
    return Block([[make(run) for run in task] for task in runs])


def by_task(runs: Mapping[tuple[str, int], Any], tasks: Iterable[str] | None = None) -> dict[str, list[Any]]:
    """Runs grouped by task."""
    grouped: dict[str, list[Any]] = {}
    for (task, _), run in sorted(runs.items(), key=lambda item: item[0]):
        if tasks is None or task in tasks:
            grouped.setdefault(task, []).append(run)
    return grouped


def arm_figures(runs: Sequence[Sequence[Run]], tasks_vary: bool = True) -> dict[str, Any]:
    """What one arm reaches: success on both splits and limits, the drop between them, OOD by kind of position."""
    near, far = block(runs, lambda run: columns(run, ind(run))), block(runs, lambda run: columns(run, "ood"))
    figures = hierarchical([near, far], ARM_FIGURES, tasks_vary=tasks_vary)
    for kind in ("surrounded", "beyond"):
        if all(kind in run.splits["ood"].kind for task in runs for run in task):
            part = block(runs, partial(columns, split="ood", kind=kind))
            figures |= hierarchical([part], {f"ood_{kind}": mean(0)}, tasks_vary=tasks_vary)
    return {name: to_json(value) for name, value in figures.items()}


def pair_figures(a: Mapping[tuple[str, int], Run], b: Mapping[tuple[str, int], Run],
                 tasks_vary: bool = True) -> dict[str, Any]:
    """B against A on the runs that both have, trials paired by scene; empty without common runs."""
    common = by_task({key: (a[key], b[key]) for key in a.keys() & b.keys() if comparable(a[key], b[key])})
    if not common:
        return {}
    pairs = list(common.values())
    near = block(pairs, lambda pair: pair_columns(pair[0], pair[1], ind(pair[0])))
    far = block(pairs, lambda pair: pair_columns(pair[0], pair[1], "ood"))
    figures = hierarchical([near, far], PAIR_FIGURES, tasks_vary=tasks_vary)
    return {**{name: to_json(value) for name, value in figures.items()}, "tasks": list(common)}


def comparable(a: Run, b: Run) -> bool:
    """Whether two runs were tried on the same scenes for the same time."""
    return a.splits.keys() == b.splits.keys() and (a.limit, a.rate_hz) == (b.limit, b.rate_hz) and all(
        len(trials.success) == len(b.splits[split].success) for split, trials in a.splits.items())


def references(arm: Arm) -> list[str]:
    """The arms that an arm is compared with: the control of its own kind, and those that readers ask for."""
    first = arm
    while first.parent:
        first = ARMS[first.parent]
    names = [first.name, *(COMMON if arm.start == "random" else ())]
    return [name for name in dict.fromkeys(names) if name != arm.name]


def suite_summary(runs: Runs) -> dict[str, Any]:
    """All figures of one suite."""
    found: dict[str, Any] = {"arms": {}, "tasks": {}}
    for arm in (name for name in ARMS if name in runs):
        grouped = by_task(runs[arm])
        found["arms"][arm] = {
            "title": ARMS[arm].title, "main": ARMS[arm].main, "tasks": list(grouped),
            "runs": len(runs[arm]), "diverged": sum(bool(run.diverged) for run in runs[arm].values()),
            **arm_figures(list(grouped.values())),
            "against": {other: pair_figures(runs[other], runs[arm]) for other in references(ARMS[arm])
                        if other in runs},
        }
        for task, mine in grouped.items() if ARMS[arm].main else ():
            own = {(task, run.seed): run for run in mine}
            found["tasks"].setdefault(task, {"limit_s": limit_s(mine), "arms": {}})["arms"][arm] = {
                "runs": len(mine), **arm_figures([mine]),
                "against": {other: pair_figures(runs[other], own) for other in ("sft", "sft_extra")
                            if other in runs and other != arm and ARMS[arm].start == "random"},
            }
    return found | headline(runs) | {
        "scalar_recipe": headline(runs, SCALAR_RECIPE),
        "without_seen": headline({arm: {key: run for key, run in mine.items() if key not in SEEN_RUNS}
                                  for arm, mine in runs.items()}),
    }


def limit_s(runs: Sequence[Run]) -> float:
    """Mean time limit of a task's runs."""
    return round(float(np.mean([run.limit / run.rate_hz for run in runs])), 2)


def headline(runs: Runs, arm: str = HEADLINE) -> dict[str, Any]:
    """The five figures of the claim, those they are compared with, and whether the targets are met."""
    if not runs.get(arm) or not runs.get("sft"):
        return {}
    figures: dict[str, Any] = {}
    for suffix, vary in (("", True), ("_these_tasks", False)):
        against = pair_figures(runs["sft"], runs[arm], vary)
        alone = arm_figures(list(by_task(runs[arm]).values()), vary)
        figures |= {name + suffix: value for name, value in {
            "success_ratio": against.get("success_ratio"), "cycle_time_ratio": against.get("cycle_time_ratio"),
            "ood_success": alone["ood"], "ood_drop_random_start": alone["ood_drop"],
            "ood_against_sft": against.get("ood_difference"),
            **({"against_bc100": pair_figures(runs["bc100"], runs[arm], vary).get("success_difference")}
               if "bc100" in runs else {}),
            # What is left of the gain when imitation is sampled with the same, low noise.
            **({"success_ratio_to_low_noise_sft":
                pair_figures(runs["sft_low_noise"], runs[arm], vary).get("success_ratio")}
               if "sft_low_noise" in runs else {}),
            # The paper's SFT has a deterministic head; the ratio to it holds the gain by the policy class as well.
            **({"success_ratio_to_deterministic_sft":
                pair_figures(runs["chunk_sft"], runs[arm], vary).get("success_ratio")}
               if "chunk_sft" in runs else {}),
        }.items() if value}
    if "bc100" in runs:
        figures["bc100_success"] = arm_figures(list(by_task(runs["bc100"]).values()))["success"]
    targets = {name: judge(name, figures[name]) for name in TARGETS if name in figures}
    return {**figures, "targets": targets}


def judge(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a figure meets its target; a comparison does only with an interval that excludes no effect."""
    word, bound = TARGETS[name]
    value, low, high = (math.nan if figure[key] is None else figure[key] for key in ("value", "low", "high"))
    met = {"at least": value >= bound, "at most": value <= bound, "above": value > bound}[word]
    verdict = {"target": f"{word} {bound:g}", "value": figure["value"], "met": bool(met)}
    if name in NO_EFFECT:
        nothing = NO_EFFECT[name]
        clear = bool(high < nothing if name == "cycle_time_ratio" else low > nothing)
        verdict |= {"interval_excludes_no_effect": clear, "met": verdict["met"] and clear}
    return verdict


def to_json(interval: Interval) -> dict[str, Any]:
    """Plain data, NaN as null."""
    numbers = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: round(number, 4) if math.isfinite(number) else None for key, number in numbers.items()} | {
        "n": interval.n, **({"trials_only": True} if interval.trials_only else {})}


def by_suite(runs: Iterable[Run]) -> dict[str, Runs]:
    """Suite → arm → (task, seed) → run."""
    found: dict[str, dict[str, dict[tuple[str, int], Run]]] = {}
    for run in runs:
        found.setdefault(run.suite, {}).setdefault(run.arm, {})[run.task, run.seed] = run
    return found  # type: ignore[return-value]


def write_summary(plan: Plan) -> dict[str, Any]:
    """Compute the summary of a plan's finished runs and write it beside them as summary.json. What else lies there is
    left out, which stderr says."""
    runs, others = plan.kept()
    for reason, count in others.items():
        print(f"left out of the summary: {count} of {plan.results.name}, {reason}", file=sys.stderr)
    summary: dict[str, Any] = {
        "protocol": VERSION, "folder": plan.results.name, "longer": LONGER, "runs": len(runs),
        "planned": len(plan.runs()), "hours": round(sum(sum(run.seconds.values()) for run in runs) / 3600, 2),
        "commits": sorted({run.commit for run in runs}), "commands": sorted({run.command for run in runs}),
        "relabelled": dict(Counter(f"{run.relabelled_from} → {run.arm}" for run in runs if run.relabelled_from)),
        "versions": {name: sorted({run.versions[name] for run in runs if name in run.versions})
                     for name in dict.fromkeys(name for run in runs for name in run.versions)},
        **{suite: suite_summary(arms) for suite, arms in by_suite(runs).items()},
    }
    results = plan.results
    target = results.parent / "summary.json" if results.name == "runs" else results / "summary.json"
    files.write_json(target, summary)
    return summary
