"""Keep a finished demo's figures: results/demo/summary.json, the README's table and the pictures under docs/images.

`make publish` runs it after `make demo`. The README's table stands between two marker comments and is never edited by
hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from PIL import Image

from corft_core import files
from corft_core.cell import Cell, make_scene
from corft_core.evaluation.intervals import Estimate
from corft_core.evaluation.report import comparison_sentences, table_rows
from corft_core.evaluation.results import Comparison

ROOT = Path(__file__).resolve().parent.parent
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- end of demo table -->)", re.DOTALL)


def table(summary: dict) -> str:
    """The result table and the paired differences in Markdown."""
    lines = ["| scenes | policy | n | success | 95 % interval | at 1.5 × limit | cycle time |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['split']} | {row['policy']} | {row['n']} | {row['success']} | {row['interval']} "
              f"| {row['longer']} | {row['time']} |" for row in table_rows(summary)]
    comparisons = {split: Comparison(*(Estimate(**{key: float("nan") if value is None else value
                                                   for key, value in row[name].items()})
                                       for name in ("success", "cycle_time_ratio")))
                   for split, row in summary["comparison"].items()}
    lines += ["", *(f"- {sentence}" for sentence in comparison_sentences(comparisons))]
    lines += ["", f"{summary['demos']} demonstrations, one seed, {summary['seconds'] / 60:.0f} minutes and "
              f"{summary['peak_rss_mb']} MB on {summary['machine']}; time limit {summary['limit_s']:.1f} s. "
              "Made by `make demo`, kept in `results/demo/summary.json`."]
    return "\n".join(lines) + "\n"


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
    cell = Cell()
    cell.reset(make_scene("demo/3"))
    (ROOT / "docs" / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(cell.render("overview", (480, 720))).save(ROOT / "docs" / "images" / "cell.png", optimize=True)
    cell.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
