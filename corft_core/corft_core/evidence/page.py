"""docs/evidence.md and the README's table, written from the summary."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.errors import CorftError
from corft_core.evidence import figures
from corft_core.evidence.arms import ARMS
from corft_core.evidence.protocol import PRECISION_TASK, SUITES
from corft_core.evidence.runner import Plan
from corft_core.evidence.summary import FILTERED, HEADLINE, MORE_DATA, SCALAR_RECIPE, Runs, by_suite

MARKERS = re.compile(r"(<!-- evidence table -->\n).*?(<!-- end of evidence table -->)", re.DOTALL)
TITLES = {"cell": "The cell (images, 10 Hz)", "metaworld": "Meta-World (states, 80 Hz)"}
TARGET_NAMES = {
    "success_ratio": "success, ratio to SFT", "cycle_time_ratio": "cycle time, ratio to SFT (pairs both solve)",
    "ood_success": "success at unseen positions", "ood_against_sft": "the same, difference to SFT",
    "ood_drop_random_start": "drop to unseen positions, random starts",
    "against_bc100": "success, difference to SFT on 100 demonstrations",
}
IN_SAMPLE = (
    "Critic values are those of recorded chunks that the critic was trained on (in-sample): they show whether it fits "
    "its data, not how well it judges other chunks or states."
)


def percent(figure: Mapping[str, Any] | None) -> str:
    """62 [55, 70]"""
    return _shown(figure, 100, "{:.0f}")


def points(figure: Mapping[str, Any] | None) -> str:
    """+12 [+4, +20]"""
    return _shown(figure, 100, "{:+.0f}")


def times(figure: Mapping[str, Any] | None) -> str:
    """× 0.72 [0.65, 0.80]"""
    shown = _shown(figure, 1, "{:.2f}")
    return shown if shown == "–" else f"× {shown}"


def _shown(figure: Mapping[str, Any] | None, factor: float, form: str) -> str:
    if not figure or figure["value"] is None:
        return "–"
    value, low, high = ("∞" if figure[key] is None else form.format(factor * figure[key])
                        for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]".replace("+-", "-")


def target(name: str, figure: Mapping[str, Any] | None) -> str:
    """A target's figure in its unit."""
    return (times if name.endswith("_ratio") else points if "against" in name else percent)(figure)


def of_runs(count: object, figure: Mapping[str, Any]) -> str:
    """20, or "2, trials only" when there is one run a task behind the figure."""
    return f"{count}, trials only" if figure.get("trials_only") else str(count)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def target_table(suite: Mapping[str, Any]) -> list[str]:
    """Each target, what the headline reached, and whether that is it."""
    rows = []
    for name, verdict in suite.get("targets", {}).items():
        figure, here = suite[name], suite.get(f"{name}_these_tasks")
        effect = verdict.get("interval_excludes_no_effect")
        rows.append([TARGET_NAMES[name], verdict["target"], target(name, figure), target(name, here),
                     "yes" if verdict["met"] else "**no**",
                     "" if effect is None else "yes" if effect else "**no**", of_runs(figure["n"], figure)])
    head = ["figure", "target", "reached [95 %]", "interval for these tasks only", "met", "interval excludes no effect",
            "runs"]
    return table(head, rows) if rows else []


def beyond_imitation(suite: Mapping[str, Any]) -> list[str]:
    """What is left of the headline when imitation is sampled alike, when its data lack the pauses besides, and when it
    has 100 demonstrations instead; nothing before there are runs of both."""
    return [sentence for sentence in (
        compared(suite, "sft_low_noise", "SFT that is sampled with the same low noise"),
        compared(suite, FILTERED, "the same SFT on data without pauses"),
        compared(suite, MORE_DATA, "the same SFT on 100 demonstrations"),
    ) if sentence]


def compared(suite: Mapping[str, Any], reference: str, described: str) -> str:
    """The headline against one other arm, in a sentence; empty before there are runs of both."""
    against = suite["arms"].get(HEADLINE, {}).get("against", {}).get(reference, {})
    if not against.get("success_ratio"):
        return ""
    runs = of_runs(f"{against['success_ratio']['n']} runs", against["success_ratio"])
    return (f"Against {described} ({runs}): success "
            f"{times(against['success_ratio'])}, {points(against['success_difference'])} points; cycle time "
            f"{times(against['cycle_time_ratio'])}; unseen positions {points(against['ood_difference'])} points.")


def other_targets(suite: Mapping[str, Any]) -> list[str]:
    """The target figures of the scalar recipe, and of the headline without the runs seen before it was chosen."""
    rows = []
    for name in TARGET_NAMES:
        found = [suite.get(part, {}) for part in ("scalar_recipe", "without_seen")]
        if any(name in part for part in found):
            missed = [name in part and not part["targets"][name]["met"] for part in found]
            rows.append([TARGET_NAMES[name], *(target(name, part.get(name)) + " (missed)" * one
                                               for part, one in zip(found, missed, strict=True))])
    return table(["figure", "the scalar recipe", "without the runs seen before"], rows) if rows else []


def main_table(suite: Mapping[str, Any]) -> list[str]:
    """The main arms, mean over tasks; the fixed-start ones are compared with the fixed-start SFT."""
    rows = []
    for arm in suite["arms"].values():
        if not arm["main"]:
            continue
        extra = arm["against"].get("sft_extra", {})
        plain = arm["against"].get("sft") or arm["against"].get("sft_fixed", {})
        calm = arm["against"].get("sft_low_noise", {})
        rows.append([arm["title"], of_runs(arm["runs"], arm["success"]), percent(arm["success"]),
                     percent(arm["success_longer"]), percent(arm["ood"]), points(plain.get("success_difference")),
                     points(extra.get("success_difference")), points(calm.get("success_difference")),
                     times(plain.get("cycle_time_ratio"))])
    return table(["arm", "runs", "success %", "at 1.5 × limit %", "unseen %", "to SFT of the same start, points",
                  "to SFT with extra steps, points", "to SFT with low noise, points", "cycle time to SFT"], rows)


def task_table(suite: Mapping[str, Any]) -> list[str]:
    """CO-RFT and its controls by task."""
    rows = []
    for task, found in suite["tasks"].items():
        for name in figures.LABELS:
            arm = found["arms"].get(name)
            if arm is None:
                continue
            against = arm["against"].get("sft", {})
            rows.append([task + (" (precision)" if task == PRECISION_TASK else ""), figures.LABELS[name],
                         of_runs(arm["runs"], arm["success"]), percent(arm["success"]), percent(arm["success_longer"]),
                         percent(arm.get("ood_surrounded")), percent(arm.get("ood_beyond")),
                         points(against.get("success_difference")), times(against.get("cycle_time_ratio")),
                         times(against.get("cycle_time_ratio_failures_at_horizon"))])
    return table(["task", "arm", "runs", "success %", "at 1.5 × %", "unseen, surrounded %", "unseen, beyond %",
                  "to SFT, points", "cycle time to SFT", "with failures at the horizon"], rows)


def lever_table(suite: Mapping[str, Any]) -> list[str]:
    """All other arms against their own control, SFT with extra steps and the scalar recipe, which they depart from."""
    rows = []
    for arm in suite["arms"].values():
        if arm["main"]:
            continue
        against = arm["against"]
        own = next(iter(against), "")
        rows.append([arm["title"] + (f" ({arm['diverged']} diverged)" if arm["diverged"] else ""),
                     of_runs(f"{arm['runs']} on {len(arm['tasks'])}", arm["success"]), percent(arm["success"]),
                     percent(arm["ood"]),
                     f"{points(against.get(own, {}).get('success_difference'))} to `{own}`" if own else "–",
                     points(against.get("sft_extra", {}).get("success_difference")),
                     points(against.get(SCALAR_RECIPE, {}).get("success_difference")),
                     times(against.get("sft_extra", {}).get("cycle_time_ratio"))])
    return table(["lever", "runs on tasks", "success %", "unseen %", "to its own control, points",
                  "to SFT with extra steps", "to the scalar recipe", "cycle time to SFT with extra steps"],
                 rows) if rows else []


def suite_section(name: str, suite: Mapping[str, Any], images: Mapping[str, str]) -> list[str]:
    """All tables and pictures of one suite."""
    def picture(key: str, text: str) -> list[str]:
        return [f"![{text}]({images[key]})", ""] if key in images else []

    missing, beyond = unclear(suite), " ".join(beyond_imitation(suite))
    to_scalar = compared(suite, SCALAR_RECIPE, "the scalar recipe")
    return [
        f"## {TITLES.get(name, name)}", "", *target_table(suite), *([beyond, ""] if beyond else []),
        *([to_scalar, ""] if to_scalar else []), *other_targets(suite), *main_table(suite),
        *picture("arms", "Success of the main arms with intervals"), "### By task", "", *task_table(suite),
        *picture("tasks", "Success by task"), *picture("maps", "Success by start position"),
        *([] if not any(not arm["main"] for arm in suite["arms"].values()) else ["### Levers", ""]),
        *lever_table(suite), *([f"No difference to the scalar recipe can be told for: {', '.join(missing)}.", ""]
                               if missing else []),
        *picture("levers", "Difference of every arm to SFT with extra steps"), "### Training", "",
        *picture("curves", "Learning curves"), *picture("values", "Critic values against returns"),
        *([IN_SAMPLE, ""] if "values" in images else []),
    ]


def unclear(suite: Mapping[str, Any]) -> list[str]:
    """Levers whose difference to the scalar recipe has an interval that holds zero."""
    found = []
    for arm in suite["arms"].values():
        difference = arm["against"].get(SCALAR_RECIPE, {}).get("success_difference")
        known = difference and difference["value"] is not None
        if known and not arm["main"] and difference["low"] <= 0 <= difference["high"]:
            found.append(arm["title"])
    return found


def text(summary: Mapping[str, Any], images: Mapping[str, Mapping[str, str]]) -> str:
    """The whole page."""
    suites = [name for name in SUITES if name in summary]
    lines = [
        "# Evidence", "",
        "Written by `make evidence` from `results/evidence/summary.json`; never edited by hand. What was "
        "fixed before the runs, and what every figure means: [evidence-protocol.md](evidence-protocol.md). Brackets "
        "are 95 % intervals over runs; percentages are success at the limit unless a column says otherwise. "
        "“Trials only”: one run a task; within a task such an interval holds the spread of trials, not that of runs.",
        "",
        made_of(summary), "",
    ]
    for name in suites:
        lines += suite_section(name, summary[name], images.get(name, {}))
    lines += ["## Arms", "", *table(["arm", "what it is", "settings beside the recipe"], [
        [f"`{arm.name}`", arm.title, ", ".join(f"`{key}={value}`" for key, value in arm.settings.items()) or "–"]
        for arm in ARMS.values()])]
    return "\n".join(lines).rstrip() + "\n"


def made_of(summary: Mapping[str, Any]) -> str:
    """How many runs, how long, from which code."""
    if not summary["runs"]:
        return "No run is finished."
    versions = ", ".join(f"{name} {' or '.join(found)}" for name, found in summary["versions"].items())
    names = ", ".join(f"{names} ({count})" for names, count in summary["relabelled"].items())
    renamed = f" Runs that were made under another name, before the recipe changed: {names}." if names else ""
    return (f"{summary['runs']}{of_planned(summary)} runs, {summary['hours']:.1f} hours of a CPU thread, commit "
            f"{', '.join(summary['commits'])}; {versions}.{renamed}")


def of_planned(summary: Mapping[str, Any]) -> str:
    """" of N planned" while runs are missing."""
    planned = summary.get("planned") or 0
    return f" of {planned} planned" if summary["runs"] < planned else ""


def readme_table(summary: Mapping[str, Any]) -> str:
    """The README's table: main arms of every suite, and the targets."""
    rows = []
    for name in SUITES:
        for arm in figures.LABELS:
            found = summary.get(name, {}).get("arms", {}).get(arm)
            if found:
                against = found["against"].get("sft", {})
                rows.append([name, figures.LABELS[arm], of_runs(found["runs"], found["success"]),
                             percent(found["success"]), percent(found["success_longer"]), percent(found["ood"]),
                             times(against.get("cycle_time_ratio"))])
    if not rows:
        return ""
    lines = table(["", "policy", "runs", "success %", "at 1.5 × limit %", "unseen positions %", "cycle time to SFT"],
                  rows)
    for name in SUITES:
        targets = summary.get(name, {}).get("targets", {})
        missed = [f"{TARGET_NAMES[key]}: {target(key, summary[name][key])}" for key, verdict in targets.items()
                  if not verdict["met"]]
        if targets:
            rest = f", missed: {'; '.join(missed)}" if missed else ""
            lines.append(f"- {TITLES.get(name, name)}: {len(targets) - len(missed)} of {len(targets)} targets reached"
                         f"{rest}. {' '.join(beyond_imitation(summary[name]))}".rstrip())
    return "\n".join([*lines, "", f"{summary['runs']}{of_planned(summary)} runs. 30 demonstrations a task and seed; "
                      "means over tasks with 95 % intervals over runs. Made by `make evidence`, kept in "
                      "`results/evidence/`; all tables, plots and null results: "
                      "[docs/evidence.md](docs/evidence.md)."]) + "\n"


def draw(summary: Mapping[str, Any], found: Mapping[str, Runs], folder: Path) -> dict[str, dict[str, str]]:
    """Draw every picture that the runs allow; returns suite → key → path relative to docs/."""
    written: dict[str, dict[str, str]] = {}
    for name, runs in found.items():
        suite = summary[name]
        made = {"arms": figures.arm_bars(suite), "tasks": figures.task_bars(suite)}
        arms = [arm for arm in ("sft", "sft_extra", "best_of_n", HEADLINE) if arm in runs]
        if arms:
            made["maps"] = figures.success_maps(runs, arms)
        if any(arm["against"].get("sft_extra") for arm in suite["arms"].values()):
            made["levers"] = figures.lever_dots(suite, "sft_extra")
        trained = [run for run in runs.get(HEADLINE, {}).values() if run.curves]
        if trained:
            made["curves"] = figures.learning_curves([*runs.get("sft", {}).values(), *trained])
            if any("values" in run.curves for run in trained):
                made["values"] = figures.critic_values(trained)
        for key, figure in made.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110)
            path = folder / f"{name}_{key}.png"
            files.write_bytes(path, buffer.getvalue())
            written.setdefault(name, {})[key] = f"images/evidence/{path.name}"
    return written


def write_documents(summary: Mapping[str, Any], plan: Plan, root: Path) -> None:
    """Write the page, its pictures and the README's table in the repository's folder ``root``.

    Raises CorftError where there is no README.md with the table's markers.
    """
    readme = root / "README.md"
    if not fill(readme, MARKERS, readme_table(summary)):
        raise CorftError(f"{readme.resolve()} is not there or lacks the markers {MARKERS.pattern}: the summary is "
                         "written, the documents are not. Run make evidence ARGS=--summary-only in the repository.")
    write_page(summary, plan, root / "docs")


def fill(document: Path, markers: re.Pattern[str], content: str) -> bool:
    """Put ``content`` between the document's markers; False where these or the document are missing."""
    before = document.read_text() if document.is_file() else ""
    text, count = markers.subn(lambda match: match[1] + content + match[2], before)
    if count == 1:
        files.write_text(document, text)
    return count == 1


def write_page(summary: Mapping[str, Any], plan: Plan, docs: Path) -> None:
    """Write ``docs/evidence.md`` and its pictures under ``docs/images/evidence``."""
    images = draw(summary, by_suite(plan.kept()[0]), docs / "images" / "evidence")
    files.write_text(docs / "evidence.md", text(summary, images))
