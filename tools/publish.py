"""Keep a finished demo's figures in results/demo/summary.json, and write the README's tables and pictures.

`make publish` runs it after `make demo` or `make evidence`. The README's tables stand between marker comments and are
never edited by hand.
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
from corft_core.evidence.page import readme_table

ROOT = Path(__file__).resolve().parent.parent
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- end of demo table -->)", re.DOTALL)
EVIDENCE_MARKERS = re.compile(r"(<!-- evidence table -->\n).*?(<!-- end of evidence table -->)", re.DOTALL)
EVIDENCE = ROOT / "results" / "evidence" / "summary.json"


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


def evidence_table() -> str:
    """The table of the kept evidence, empty before there is any."""
    return readme_table(json.loads(EVIDENCE.read_text())) if EVIDENCE.exists() else ""


def fill(markers: re.Pattern[str], content: str) -> bool:
    """Put ``content`` between the README's markers; False where they are missing."""
    readme = ROOT / "README.md"
    text, count = markers.subn(lambda match: match[1] + content + match[2], readme.read_text())
    if count != 1:
        print(f"README.md lacks the markers {markers.pattern}", file=sys.stderr)
        return False
    files.write_text(readme, text)
    return True


def main() -> int:
    """Copy the summary, rewrite the tables, render the pictures."""
    source = ROOT / "out" / "demo" / "summary.json"
    if not source.exists() and not EVIDENCE.exists():
        print(f"neither {source.relative_to(ROOT)} nor {EVIDENCE.relative_to(ROOT)} is there: run `make demo` or "
              "`make evidence` first", file=sys.stderr)
        return 2
    good = fill(EVIDENCE_MARKERS, evidence_table())
    if source.exists():
        summary = json.loads(source.read_text())
        files.write_json(ROOT / "results" / "demo" / "summary.json", summary)
        good &= fill(MARKERS, table(summary))
        save_png(cell_picture(), ROOT / "docs" / "images" / "cell.png")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
