"""delay: success and cycle time of a CO-RFT policy in the cell whose chunks come late, in every chunk mode.

The policy is the evidence's `co_rft` of task and seed below, trained here where out/evidence does not hold it. 100
paired scenes for splice and rtc at 0 and 200 ms; ``modes``: 20 scenes for every mode at 0 to 300 ms. See
chunk_delay.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chunk_delay

from corft_core.evidence.arms import ARMS, RECIPES
from corft_core.evidence.group import Group
from corft_core.evidence.protocol import EVIDENCE, SUITES
from corft_core.evidence.runner import load_suite
from corft_core.learning.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SUITE, TASK, SEED = "cell", "cup", 4
TRIALS, TRIALS_OF_ALL = 100, 20


def measure() -> dict[str, Any]:
    """Both studies; about half an hour, training included."""
    group = Group(load_suite(SUITES[SUITE]), TASK, SEED, EVIDENCE, ROOT / "results/evidence" / EVIDENCE.folder,
                  ROOT / "out/evidence" / EVIDENCE.folder, recipe=RECIPES[SUITE])
    policy = RunFolder(group.train(ARMS["co_rft"])).checkpoint("co_rft")
    trials = ROOT / "out/bench"
    trials.mkdir(parents=True, exist_ok=True)
    study = chunk_delay.measure(TRIALS, policy, TASK, trials / "delay.jsonl", (0.0, 0.2), ("splice", "rtc"))
    return study | {"modes": chunk_delay.measure(TRIALS_OF_ALL, policy, TASK, trials / "delay_modes.jsonl")}
