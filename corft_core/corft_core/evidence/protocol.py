"""What is fixed before any run: seeds, demonstrations, trials, limits, scenes. See docs/evidence-protocol.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

VERSION = 1
"""Raised whenever a change of the code makes earlier runs incomparable; runs of another version are made again."""

ADDED_SETTINGS: dict[str, Any] = {
    "policy.head.tokens.consistency": 0.0, "policy.head.tokens.consistency_share": 0.3,
    "policy.head.tokens.decoder": "jacobi", "policy.head.tokens.heads": 4, "policy.head.tokens.most_forwards": 0,
    "policy.head.tokens.smoothing": 0.0, "policy.head.tokens.steps": 0, "policy.head.tokens.temperature": 1.0,
    "policy.head.tokens.tokenizer": "bins", "policy.head.tokens.vocabulary": 256, "policy.head.tokens.window": 0,
    "policy.history.heads": 4, "policy.history.kind": "window", "policy.history.layers": 2,
    "policy.history.steps": 1, "policy.history.stride": 1,
    "co_rft.successes_only": True,  # where all demonstrations succeed either answer is what was done
    "sft.accumulate": 1, "sft.shard": False, "sft.vision_lr": 0.0,
}
"""Settings that came after the first runs → what the code did before it had them, for results without them.

Never to be adapted to a changed default: runs made before would pass for runs with the new one.
"""

HORIZON, REPLAN_STEPS = 10, 5
"""Actions of a chunk, and how many of them are executed before the next one is asked for."""
LOW_NOISE = 0.3
"""Scale of the noise that CO-RFT's chunks start from."""
LONGER = 1.5
"""The second limit and the end of a trial, as a multiple of the first."""
WORLDS = 10
"""Trials that run in lock-step, so that one batched call of the policy serves them all."""

DEMONSTRATIONS, MANY_DEMONSTRATIONS = 30, 100
SPLITS = {"random": ("ind", "ood"), "fixed": ("fixed_ind", "ood")}
"""Splits of the trials by the demonstrations' start positions."""

SUITES = {"cell": "corft_core.cell.suite:CellSuite", "metaworld": "corft_core.benchmarks.metaworld:MetaWorldSuite"}
TUNING_TASKS = ("cup", "bottle", "cube_to_bin")
"""Tasks of the cell on which the recipe was tuned, with seeds and scenes of their own; the last is not reported."""
SEEN_RUNS = (("cup", 0), ("push-v3", 0))
"""Task and seed of the levers that were seen before the second recipe was chosen."""
LEVER_TASKS = ("cup", "bottle", "drawer-open-v3", "push-v3")
"""Levers run on these tasks only."""
PRECISION_TASK = "cube"
"""Declared negative control: a grasp limited by precision, where the demonstrations hold nothing better."""


@dataclass(frozen=True)
class Protocol:
    """How many of what. ``folder`` lies under results/evidence; runs of different folders are never mixed.

    ``seeds`` are those of demonstrations and of training; controls take the first ``control_seeds`` of them, levers
    the first ``lever_seeds`` (None: all). Trials use scenes ``first_scene`` … of each split. ``arms`` and ``tasks``
    restrict the work; empty means all.
    """

    folder: str = "runs"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    control_seeds: int | None = None
    lever_seeds: int | None = None
    trials: int = 40
    first_scene: int = 0
    arms: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


EVIDENCE = Protocol(control_seeds=2, lever_seeds=1)
QUICK = Protocol("quick", seeds=(0,), trials=20, arms=("sft", "sft_extra", "c51"),
                 tasks=("cup", "bottle", "door-open-v3", "drawer-open-v3"))
TUNING = Protocol("tuning", seeds=(1000, 1001, 1002), first_scene=1000, tasks=TUNING_TASKS)


def tuning(name: str) -> Protocol:
    """The protocol of one tried recipe: tuning tasks, seeds and scenes only."""
    return replace(TUNING, folder=f"tuning/{name}")


def limit_steps(lengths: Sequence[int]) -> int:
    """The limit of a task and seed: mean length of its 30 random-start demonstrations, rounded up to steps."""
    return math.ceil(sum(lengths) / len(lengths))


def horizon_steps(limit: int) -> int:
    """Where a trial ends, and what a failure counts as in cycle times."""
    return math.ceil(LONGER * limit)
