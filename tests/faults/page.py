"""The campaign's page in docs/."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

HEAD = """\
# Fault campaign

Made by `make faults`. `bringup.launch.py` runs on the simulated cell; every topic between the two passes through the
campaign, which loses, delays, repeats and changes messages, kills processes, steps the clock and sends bad chunks,
while chunks drive the arm to and fro at up to 0.7 rad/s. Where images or what the executor says are broken the policy
drives, and its goal has to go on or to be aborted with the reason. The campaign takes the place of the robot's
controller, with the rules of `joint_trajectory_controller`: its setpoint, every 2 ms, is what the limits are checked
on, and what it publishes, by which the executor notices a command that was lost. The cell follows the same commands one
step of transport later. Collisions are checked every 20 ms against the planning scene. `tests/faults/` holds all of it.

Cell and campaign stand for the robot's side and run before all other processes where that is allowed, as a controller
manager does: a command that reaches the controller more than `handoff_s` (60 ms) late makes its setpoint jump, whoever
sent it. [Your robot](how-to/your-robot.md), step 5, says what limits that.
"""


def joined(live: dict[str, Any], chunks: dict[str, Any]) -> dict[str, Any]:
    """One summary of the live graph's faults and the random chunks."""
    return live | {
        "chunks": chunks["chunks"],
        "limit_violations": live["limit_violations"] + chunks["limit_violations"],
        "collisions": live["collisions"] + chunks["collisions"], "chunk_outcomes": chunks["outcomes"],
        "chunk_largest_shares": chunks["largest_shares"]}


def text(result: dict[str, Any]) -> str:
    """The page as Markdown."""
    lines = [HEAD, "## Summary", "", "| | |", "|---|---|"]
    for title, key in (("faults in the live graph", "faults"), ("random and adversarial chunks", "chunks"),
                       ("limit violations", "limit_violations"), ("collisions", "collisions"),
                       ("unexplained stops", "unexplained_stops"),
                       ("faults that had to stop the arm and did not", "never_stopped"),
                       ("faults after which something else did not come as it has to", "not_as_expected"),
                       ("recovered", "recovered"),
                       ("from detection to hold, longest [ms]", "hold_max_ms"),
                       ("from the fault to standstill, longest [ms]", "rest_max_ms"), ("minutes", "minutes"),
                       ("commit", "commit")):
        lines.append(f"| {title} | {_cell(result[key])} |")
    shares = result["largest_shares"]
    lines += ["", f"Largest velocity, acceleration and jerk as a share of the limit: {shares['velocity_share']:.2f}, "
              f"{shares['acceleration_share']:.2f}, {shares['jerk_share']:.2f} in the live graph; "
              + ", ".join(f"{value:.2f}" for value in result["chunk_largest_shares"].values())
              + " over the random chunks.", ""]
    lines += ["## Live faults", "", "Worst value of all repetitions. *detect*: until the first status with a reason; "
              "*hold*: from there until the arm holds or brakes; *rest*: from the fault until the setpoint stands. "
              "Empty: the fault neither needs nor caused it.", "",
              "| fault | n | reasons | detect ms | hold ms | rest ms | velocity | acceleration | jerk | collisions | "
              "recovered |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in result["rows"]:
        groups[row["family"], row["fault"]].append(row)
    for (_, name), rows in sorted(groups.items()):
        reasons = sorted({row["reason"] for row in rows if row["reason"]})
        reasons += sorted({f"goal {row['goal']}" for row in rows if row["goal"]})
        worst = [_cell(max((row[key] for row in rows if row[key] is not None), default=None)) for key in (
            "detect_ms", "hold_ms", "rest_ms", "velocity_share", "acceleration_share", "jerk_share", "collisions")]
        back = sum(row["outcome"].startswith("recovered") for row in rows)
        lines.append(f"| {name} | {len(rows)} | {', '.join(reasons)} | {' | '.join(worst)} | {back} |")
    lines += ["", "## Random chunks", "", "| outcome | chunks |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in result["chunk_outcomes"].items()]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
