"""Keep a finished demo's figures: results/demo/summary.json, the README's table and the pictures under docs/images.

`make publish` runs it after `make demo`. The README's table stands between two marker comments and is never edited by
hand.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.cell.picture import cell_picture, save_png
from corft_core.evaluation.intervals import Estimate
from corft_core.evaluation.report import comparison_sentences, table_rows
from corft_core.evaluation.results import Comparison

ROOT = Path(__file__).resolve().parent.parent
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- end of demo table -->)", re.DOTALL)


def table(summary: dict[str, Any]) -> str:
    """The result table and the paired differences in Markdown."""
    lines = ["| scenes | policy | n | success | 95 % interval | at 1.5 × limit | cycle time |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['split']} | {row['policy']} | {row['n']} | {row['success']} | {row['interval']} "
              f"| {row['longer']} | {row['time']} |" for row in table_rows(summary)]
    comparisons = {split: Comparison(estimate(row["success"]), estimate(row["cycle_time_ratio"]))
                   for split, row in summary["comparison"].items()}
    lines += ["", *(f"- {sentence}" for sentence in comparison_sentences(comparisons))]
    lines += ["", f"{summary['demos']} demonstrations, one seed, {summary['seconds'] / 60:.0f} minutes and "
              f"{summary['peak_rss_mb']} MB on {summary['machine']}; time limit {summary['limit_s']:.1f} s. "
              "Made by `make demo`, kept in `results/demo/summary.json`."]
    return "\n".join(lines) + "\n"


def estimate(row: dict[str, Any]) -> Estimate:
    """A figure as the summary keeps it, null being NaN."""
    value, low, high = (math.nan if row[key] is None else float(row[key]) for key in ("value", "low", "high"))
    return Estimate(value, low, high, int(row["n"]))


def main() -> int:
    """Copy the summary, rewrite the table, render the pictures."""
    source = ROOT / "out" / "demo" / "summary.json"
    if not source.exists():
        print(f"{source.relative_to(ROOT)} is missing: run `make demo` first", file=sys.stderr)
        return 2
    summary = json.loads(source.read_text())
    files.write_json(ROOT / "results" / "demo" / "summary.json", summary)
    readme = ROOT / "README.md"
    text, count = MARKERS.subn(lambda match: match[1] + table(summary) + match[2], readme.read_text())
    if count != 1:
        print("README.md lacks the markers of the demo table", file=sys.stderr)
        return 1
    files.write_text(readme, text)
    save_png(cell_picture(), ROOT / "docs" / "images" / "cell.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
