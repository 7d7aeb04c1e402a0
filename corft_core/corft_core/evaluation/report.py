"""The report of a run as one self-contained HTML page: table, curves, maps, videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.evaluation import plots
from corft_core.evaluation.results import Comparison, EpisodeResult

SPLIT_TITLES = {
    "ind": "in distribution, in the cell",
    "ood": "unseen positions, in the cell",
    "live": "in distribution, through the ROS 2 graph",
}
CURVES = (
    ("Stage 1: imitation", "sft", ("loss", "keyframe_error")),
    ("Stage 2: critic losses", "critic", ("td_loss", "conservative_loss")),
    ("Stage 2: values", "critic", ("q_data", "q_policy", "mc_return")),
)


@dataclass
class ReportData:
    """What the page shows. Results are by split, then by policy."""

    summary: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Sequence[EpisodeResult]]]
    comparisons: Mapping[str, Comparison]
    limit_s: float
    demo_times_s: Sequence[float] = ()
    demo_targets_m: Sequence[tuple[float, float]] = ()
    metrics: Sequence[Mapping[str, Any]] = ()
    q_values: Sequence[float] = ()
    returns: Sequence[float] = ()
    videos: Mapping[str, str] = field(default_factory=dict)
    data_report: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()


def table_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the result table, ready to print; missing splits are left out."""
    rows = []
    for split, title in SPLIT_TITLES.items():
        for policy in ("sft", "co_rft"):
            cell = summary.get(policy, {}).get(split)
            if cell is None or not cell["n"]:
                continue
            time = "–" if cell["cycle_time_s"] is None else f"{cell['cycle_time_s']:.1f} s"
            rows.append({
                "split": title, "policy": plots.LABELS[policy], "n": str(cell["n"]),
                "success": f"{100 * cell['success']:.0f} %",
                "interval": f"{100 * cell['low']:.0f} – {100 * cell['high']:.0f} %",
                "longer": f"{100 * cell['success_at_1_5x_limit']:.0f} %", "time": time,
            })
    return rows


def text_table(summary: Mapping[str, Any]) -> str:
    """The result table for a terminal."""
    head = f"{'scenes':42}{'policy':9}{'n':>4}{'success':>9}  {'95 % interval':15}{'at 1.5x':>8}{'cycle time':>12}"
    lines = [head, "-" * len(head)]
    lines += [f"{row['split']:42}{row['policy']:9}{row['n']:>4}{row['success']:>9}  {row['interval']:15}"
              f"{row['longer']:>8}{row['time']:>12}" for row in table_rows(summary)]
    return "\n".join(lines)


def comparison_sentences(comparisons: Mapping[str, Comparison]) -> list[str]:
    """What changed from SFT to CO-RFT on the same scenes, in words with intervals."""
    sentences = []
    for split, comparison in comparisons.items():
        difference, ratio = comparison.success, comparison.cycle_time_ratio
        if not difference.n:
            continue
        verdict = "no difference can be told" if difference.low <= 0 <= difference.high else (
            "CO-RFT succeeds more often" if difference.value > 0 else "CO-RFT succeeds less often")
        title = SPLIT_TITLES[split][0].upper() + SPLIT_TITLES[split][1:]
        text = (f"{title}: success {100 * difference.value:+.0f} points "
                f"[{100 * difference.low:+.0f}, {100 * difference.high:+.0f}] "
                f"over {difference.n} paired scenes: {verdict}.")
        if ratio.n:
            text += (f" Cycle time × {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] "
                     f"on the {ratio.n} scenes that both solve.")
        sentences.append(text)
    return sentences


def write_report(path: Path | str, data: ReportData) -> None:
    """Render the page and write it atomically; needs no network and no other file to be read."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("corft_core.evaluation", "."), autoescape=select_autoescape(),
                              trim_blocks=True, lstrip_blocks=True)
    pictures = {}
    everywhere = {name: [row for split in ("ind", "ood") for row in data.results.get(split, {}).get(name, ())]
                  for name in ("sft", "co_rft")}
    if any(everywhere.values()):
        pictures["map"] = plots.to_data_uri(plots.success_map(everywhere, data.limit_s, data.demo_targets_m))
    if any(data.results.get("ind", {}).values()):
        pictures["times"] = plots.to_data_uri(
            plots.cycle_times(data.results["ind"], data.limit_s, data.demo_times_s))
    if data.metrics:
        pictures["curves"] = plots.to_data_uri(plots.learning_curves(data.metrics, CURVES))
    if len(data.q_values):
        pictures["value"] = plots.to_data_uri(plots.value_against_return(data.q_values, data.returns))
    page = environment.get_template("report.html").render(
        data=data, rows=table_rows(data.summary), sentences=comparison_sentences(data.comparisons), pictures=pictures)
    files.write_text(path, page)
