"""Keep a finished demo's figures in results/demo/summary.json, and write the documents' tables and pictures.

`make publish` runs it after `make demo` or `make bench NAME=decode` or `execute`; `make evidence` writes its own. The
tables stand between marker comments and are never edited by hand.
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
from corft_core.evidence.page import MARKERS as EVIDENCE_MARKERS
from corft_core.evidence.page import fill, readme_table

ROOT = Path(__file__).resolve().parent.parent
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- end of demo table -->)", re.DOTALL)
DECODE_MARKERS = re.compile(r"(<!-- decode table -->\n).*?(<!-- end of decode table -->)", re.DOTALL)
EXECUTE_MARKERS = re.compile(r"(<!-- execute table -->\n).*?(<!-- end of execute table -->)", re.DOTALL)
EVIDENCE = ROOT / "results" / "evidence" / "summary.json"
DECODE = ROOT / "results" / "bench" / "decode.json"
EXECUTE, DELAY = ROOT / "results" / "bench" / "execute.json", ROOT / "results" / "bench" / "delay.json"
README, EXPLANATION = ROOT / "README.md", ROOT / "docs" / "explanation.md"
DECODERS = {"single_ar": "one token a pass, one step", "chunked_ar": "one token a pass", "jacobi": "Jacobi, exact",
            "bidirectional": "Jacobi, bidirectional", "flow": "–"}
SENDERS = {"splice": "splice (default)", "rtc": "real-time chunking", "receding_horizon": "receding horizon",
           "open_loop": "open loop", "temporal_ensemble": "temporal ensemble"}
UNCHECKED = {"naive": "as they are, unchecked (naive)", "one_point": "one point an action, unchecked"}


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


def decode_table(row: dict[str, Any]) -> str:
    """Decoders of action tokens side by side, as `make bench NAME=decode` measured them."""
    lines = ["| actions as | decoding | window | steps | passes | from nothing | chunks/s | actions/s | success "
             "| 95 % interval |", "|---|---|---|---|---|---|---|---|---|---|"]
    for name, found in row["decoders"].items():
        tokens = "FAST" if name.startswith("fast") else "bins"
        rest = name.removeprefix("fast_").removesuffix("_whole")
        kind, _, window = rest.rpartition("_") if rest.startswith(("jacobi", "bidirectional")) else (rest, "", "–")
        cells = ["continuous (flow)" if name == "flow" else tokens, DECODERS[kind], window,
                 str(found.get("steps", "–")), _number(found.get("forwards")), _number(found.get("cold_forwards")),
                 _number(found["chunks_per_s"]), _number(found["hz"])]
        low, high = found.get("success_interval", (None, None))
        cells += ["–", "–"] if low is None else [f"{found['success']:.0%}", f"{100 * low:.0f} – {100 * high:.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "", f"Task `{row['task']}` in the cell, {row['executed']} of a chunk's {row['horizon']} steps executed, "
        f"{row['train_steps']} training steps, {row['trials']} paired trials; processor time of one thread, image "
        "encoding included, Jacobi starting from the chunk before (from nothing: not so). Exact Jacobi (window "
        f"{row['window']}) gives {row['jacobi_vs_single_ar']:.2f} times the actions a second of one token a pass and "
        f"one step, and {row['jacobi_vs_chunked_ar']:.2f} times those of one token a pass and the same steps; with all "
        f"tokens in the window it needs {row['jacobi_vs_chunked_ar_forwards']:.2f} times fewer passes. "
        f"{row['mismatches']} of {row['tokens_compared']} tokens differ. Made by `make bench NAME=decode`, kept in "
        "`results/bench/decode.json`."]
    return "\n".join(lines) + "\n"


def execute_table(row: dict[str, Any], study: dict[str, Any]) -> str:
    """Ways of sending chunks side by side, as `make bench` measured them: NAME=execute, and the modes of NAME=delay."""
    lines = ["| chunks | to trajectory, p50 / p95 [ms] | jerk at seams, of naive | error RMS / largest [rad] "
             "| success at 0 / 100 / 200 / 300 ms |", "|---|---|---|---|---|"]
    for name in (*SENDERS, "naive", "one_point"):
        times = [row[f"chunk_{part}_ms_{name}"] for part in ("p50", "p95") if f"chunk_{part}_ms_{name}" in row]
        success = [study.get(f"success_{name}_{latency}ms") for latency in (0, 100, 200, 300)]
        ratio = row[f"seam_jerk_{name}"] / row["seam_jerk_naive"]
        lines.append("| " + " | ".join([
            SENDERS.get(name, UNCHECKED.get(name, name)), " / ".join(f"{value:.1f}" for value in times) or "–",
            f"{ratio:.4f}" if ratio < 0.1 else f"{ratio:.2f}",
            f"{row[f'error_rms_{name}']:.3f} / {row[f'error_max_{name}']:.3f}",
            "–" if None in success else " / ".join(f"{value:.2f}" for value in success)]) + " |")
    live = "; ".join(f"at {rate} Hz {row[f'live_{rate}hz_p50_ms']:.0f} / {row[f'live_{rate}hz_p95_ms']:.0f} / "
                     f"{row[f'live_{rate}hz_jitter_ms']:.0f}" for rate in (10, 20, 30))
    apart = row.get("chunk_p95_ms_embedded_in_a_process")
    lines += [
        "", "Seven joints, 16 actions, five boxes, one core; the setpoint of a controller with "
        "`joint_trajectory_controller`'s rules under the same noisy chunks. RMS jerk at the seams of spliced chunks at "
        f"10 / 20 / 30 Hz: {' / '.join(f'{_of_naive(row, rate):.4f}' for rate in (10, 20, 30))} of naive ones'. "
        f"From an observation to the first new command in the live graph, p50 / p95 / jitter in ms: {live}."
        + ("" if apart is None else f" With the planner in a process of its own, as MoveIt is, a chunk takes "
           f"{row['chunk_p50_ms_embedded_in_a_process']:.1f} / {apart:.1f} ms.")
        + f" Success: {study['delay_trials']} trials of one policy and task each, by injected latency. Made by `make "
        "bench NAME=execute` and `NAME=delay`, kept in `results/bench/execute.json` and `delay.json`."]
    return "\n".join(lines) + "\n"


def _of_naive(row: dict[str, Any], rate: int) -> float:
    return float(row[f"seam_jerk_splice_{rate}hz"] / row[f"seam_jerk_naive_{rate}hz"])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def show(document: Path, markers: re.Pattern[str], content: str) -> bool:
    """Put ``content`` between the document's markers; False, and said, where they are missing."""
    good = fill(document, markers, content)
    if not good:
        print(f"{document.relative_to(ROOT)} lacks the markers {markers.pattern}", file=sys.stderr)
    return good


def main() -> int:
    """Copy the summary, rewrite the tables, render the pictures."""
    source = ROOT / "out" / "demo" / "summary.json"
    paths = (source, EVIDENCE, DECODE, EXECUTE)
    if not any(path.exists() for path in paths):
        names = ", ".join(str(path.relative_to(ROOT)) for path in paths)
        print(f"nothing to publish, none of these is there: {names}", file=sys.stderr)
        return 2
    good = show(README, EVIDENCE_MARKERS, evidence_table())
    if DECODE.exists():
        good &= show(EXPLANATION, DECODE_MARKERS, decode_table(json.loads(DECODE.read_text())))
    if EXECUTE.exists() and DELAY.exists():
        good &= show(EXPLANATION, EXECUTE_MARKERS, execute_table(json.loads(EXECUTE.read_text()),
                                                                 json.loads(DELAY.read_text())["modes"]))
    if source.exists():
        summary = json.loads(source.read_text())
        files.write_json(ROOT / "results" / "demo" / "summary.json", summary)
        good &= show(README, MARKERS, table(summary))
        save_png(cell_picture(), ROOT / "docs" / "images" / "cell.png")
        files.write_bytes(ROOT / "docs" / "images" / "policies.webp", (source.parent / "policies.webp").read_bytes())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
