"""Runs faults one after the other on a live graph and judges each by what the controller was asked to do."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from corft_msgs.msg import ExecutionStatus

from corft_core.planning.interface import MotionPlanner
from faults.catalogue import FaultKind
from faults.rig import Rig, Seen
from faults.setpoint import TOLERANCE, Motion

STANDSTILL_S = 1.0
"""A standstill longer than this needs a reason: chunks come all the time."""
RECOVERY_S = 45.0
BRAKING = (ExecutionStatus.HOLDING, ExecutionStatus.STOPPED, ExecutionStatus.DISABLED, ExecutionStatus.IDLE)


@dataclass
class Row:
    """One fault. Times in ms: ``detect`` from breaking to the first status with the reason that counts, ``hold`` from
    there to the first status in which the arm holds or brakes, ``rest`` from breaking until the setpoint stands, by the
    robot's clock. The reason that counts is the one for which the arm holds, else the first one. ``goal``: how the
    policy's goal ended, if there was one. ``missed``: what was expected and did not come."""

    fault: str
    family: str
    outcome: str
    reason: str
    message: str
    detect_ms: float | None
    hold_ms: float | None
    rest_ms: float | None
    velocity_share: float
    acceleration_share: float
    jerk_share: float
    collisions: int
    rejected: int
    unexplained: bool
    never_stopped: bool
    seconds: float
    goal: str = ""
    missed: str = ""

    @property
    def violates(self) -> bool:
        """Whether a limit was broken."""
        return max(self.velocity_share, self.acceleration_share, self.jerk_share) > TOLERANCE


def run_fault(rig: Rig, kind: FaultKind, rng: random.Random, planner: MotionPlanner) -> Row:
    """Drive, break, mend, drive again."""
    began_s = time.monotonic()
    rig.missed.clear()
    rig.drive()
    goal = None if kind.goal is None else rig.begin_goal()
    rig.run(rng.uniform(0.1, 0.6))
    rig.take_motion()
    rig.statuses.clear()
    rejected = rig.setpoint.rejected
    broken_s, broken_cell_s = time.monotonic(), rig.cell_s
    kind.inject(rig, rng)
    ended = "" if goal is None or kind.goal is None else rig.judge_goal(goal, kind.goal)
    told = None if goal is None else len(rig.statuses)  # then the campaign takes over again
    outcome = _recover(rig, kind.ends)
    motion = rig.take_motion()
    seen = list(rig.statuses)[:told]
    held = next((s for s in seen if s.status.reason and _brakes(s.status)), None) if kind.holds else None
    first = next((s for s in seen if s.status.reason and (held is None or s.status.reason == held.status.reason)), None)
    detect_s = None if first is None else first.time_s - broken_s
    hold_s = None if first is None or held is None or kind.silent else held.time_s - first.time_s
    rest_s = motion.rest_after(broken_cell_s) if kind.holds else None
    status = None if first is None else first.status
    return Row(
        fault=kind.name, family=kind.family, outcome=outcome, reason="" if status is None else status.reason,
        message="" if status is None else status.message, detect_ms=_ms(detect_s), hold_ms=_ms(hold_s),
        rest_ms=_ms(rest_s), **motion.shares(rig.contract), collisions=motion.collisions(planner),
        rejected=max(0, rig.setpoint.rejected - rejected),
        unexplained=not kind.silent and kind.goal is None and _unexplained(motion, seen),
        never_stopped=kind.holds and not kind.silent and rest_s is None,
        seconds=round(time.monotonic() - began_s, 2), goal=ended, missed="; ".join(rig.missed))


def _recover(rig: Rig, ends: str) -> str:
    """``recovered`` when the arm moves again, else ``aborted`` with why."""
    try:
        if ends:
            rig.restart(ends)
        rig.drive(RECOVERY_S)
    except TimeoutError as error:
        return f"aborted: {error}"
    return f"recovered after a restart of the {ends}" if ends else "recovered"


def _brakes(status: ExecutionStatus) -> bool:
    """Whether the arm brakes, holds or stands; with NO_NEW_CHUNK the last chunk's own braking tail has begun."""
    return status.state in BRAKING or status.reason == "NO_NEW_CHUNK"


def _unexplained(motion: Motion, seen: Sequence[Seen]) -> bool:
    """Whether the arm stood although chunks came, and no status at that time said why."""
    explained = [s.cell_s for s in seen if s.status.reason
                 or s.status.state in (ExecutionStatus.DISABLED, ExecutionStatus.STOPPED)]
    return any(not any(begin - STANDSTILL_S <= time_s <= end for time_s in explained)
               for begin, end in motion.standstills(STANDSTILL_S))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e3 * seconds, 1)


def plan(kinds: Sequence[FaultKind], count: int, rng: random.Random) -> list[FaultKind]:
    """``count`` faults in random order: every kind once, costly ones up to three times, then the cheap ones again and
    again."""
    cheap = [kind for kind in kinds if kind.cost_s <= 5]
    again = itertools.chain((kind for kind in 2 * list(kinds) if kind.cost_s > 5), itertools.cycle(cheap or kinds))
    chosen = list(itertools.islice(itertools.chain(kinds, again), count))
    rng.shuffle(chosen)
    return chosen


def run(rig: Rig, faults: Iterable[FaultKind], rng: random.Random, planner: MotionPlanner, budget_s: float,
        keep: Callable[[Row], None]) -> list[Row]:
    """All ``faults``, or as many as fit into ``budget_s``. ``keep`` gets every row at once."""
    rows: list[Row] = []
    until_s = time.monotonic() + budget_s
    for number, kind in enumerate(faults, start=1):
        if time.monotonic() > until_s:
            print(f"the time is over after {len(rows)} faults", file=sys.stderr)
            break
        row = run_fault(rig, kind, rng, planner)
        rows.append(row)
        keep(row)
        bad = "  VIOLATION" if row.violates or row.collisions or row.unexplained or row.never_stopped else ""
        bad += f"  MISSED: {row.missed}" if row.missed else ""
        print(f"[{number}] {kind.name}: {row.outcome}; {row.reason or '-'}{row.goal and f', goal {row.goal}'}; "
              f"{row.seconds:.1f} s{bad}", file=sys.stderr, flush=True)
        if row.outcome.startswith("aborted"):
            rig.close()
            raise RuntimeError(f"after '{kind.name}' the graph does not move again: {row.outcome}")
    return rows


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The campaign's figures over all rows."""
    holds = [row.hold_ms for row in rows if row.hold_ms is not None]
    rests = [row.rest_ms for row in rows if row.rest_ms is not None]
    return {
        "faults": len(rows), "limit_violations": sum(row.violates for row in rows),
        "collisions": sum(row.collisions > 0 for row in rows),
        "unexplained_stops": sum(row.unexplained for row in rows),
        "never_stopped": sum(row.never_stopped for row in rows),
        "not_as_expected": sum(bool(row.missed) for row in rows),
        "recovered": sum(row.outcome.startswith("recovered") for row in rows),
        "hold_max_ms": max(holds, default=None), "hold_p50_ms": None if not holds else float(np.median(holds)),
        "rest_max_ms": max(rests, default=None),
        "largest_shares": {key: max((getattr(row, key) for row in rows), default=0.0)
                           for key in ("velocity_share", "acceleration_share", "jerk_share")},
        "rows": [asdict(row) for row in rows]}
