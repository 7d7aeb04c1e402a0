"""The policies that `make bench NAME=decode` compares, and their trials in the cell. Fixed before any was looked at.

All imitate the same demonstrations, of which steps that command nothing are left out: the likeliest token is otherwise
that of standing still, whatever the policy sees. Settings were tried with demonstrations of seed 2100 and scenes from
1000 on; what is measured here has other ones. Policies and trials are kept under out/bench/decode, so that a run that
was broken off goes on, and timing needs no training beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.cell.suite import CellSuite
from corft_core.evaluation.intervals import success_rate
from corft_core.evaluation.rollout import run_trials
from corft_core.evidence.protocol import horizon_steps, limit_steps
from corft_core.learning.config import TrainConfig
from corft_core.learning.reuse import FeatureCache
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.policy.options import override
from corft_core.serving.local import fingerprint

OUT = Path(__file__).parents[2] / "out" / "bench" / "decode"
TASK, SEED, DEMONSTRATIONS, HORIZON, EXECUTED, FIRST_SCENE = "cup", 2000, 30, 10, 5, 2000
STEPS = int(os.environ.get("CORFT_BENCH_STEPS", "1000"))
TRIALS = int(os.environ.get("CORFT_BENCH_TRIALS", "40"))
_TOKENS = {"policy.head.kind": "tokens", "policy.head.width": 64, "policy.head.layers": 2}
POLICIES: dict[str, dict[str, Any]] = {
    "bins": _TOKENS,
    "fast": {**_TOKENS, "policy.head.tokens.tokenizer": "fast", "policy.head.tokens.vocabulary": 1024},
    "flow": {},
}


class Policies:
    """`episodes`, the demonstrations; `policy` and `success` train and try what is not kept yet."""

    def __init__(self) -> None:
        self.suite, self._features = CellSuite(), FeatureCache()
        self.contract = self.suite.features(TASK)

    @functools.cached_property
    def episodes(self) -> list[Any]:
        return self.suite.demonstrate(TASK, DEMONSTRATIONS, SEED)

    @functools.cached_property
    def limit_steps(self) -> int:
        """Mean length of the demonstrations."""
        return limit_steps([len(episode) for episode in self.episodes])

    def folder(self, name: str) -> Path:
        return OUT / f"{name}-{STEPS}"

    def policy(self, name: str) -> Policy:
        """The policy of this name, trained unless it is kept; an interrupted training goes on."""
        folder = self.folder(name)
        if not (folder / "checkpoints" / "sft").exists():
            config = override(TrainConfig, {}, {
                "seed": SEED, "threads": 1, "policy.horizon": HORIZON, "policy.backbone": "effnet", "sft.steps": STEPS,
                "sft.filter": "no_ops", "co_rft.steps": 0, "co_rft.warmup": 0, "tensorboard": False, "check_frames": 0,
                **POLICIES[name]})
            train(EpisodesInMemory(self.contract, self.episodes), folder, config,
                  resume=(folder / "config.json").exists(), features=self._features)
        return Policy.load(folder / "checkpoints" / "sft")

    def success(self, name: str, decoder: dict[str, Any], replan_steps: int = EXECUTED) -> dict[str, Any]:
        """Success within 1.5 x the demonstrations' mean length on paired scenes, with its 95 % interval."""
        key = json.dumps([name, fingerprint(self.folder(name) / "checkpoints" / "sft"), decoder, replan_steps, TRIALS])
        kept = OUT / "trials.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        if key not in known:
            known[key] = self._tried(self.policy(name), decoder, replan_steps)
            files.write_json(kept, known)
        rate = success_rate(known[key])
        return {"success": round(rate.value, 3), "success_interval": [round(rate.low, 3), round(rate.high, 3)]}

    def _tried(self, policy: Policy, decoder: dict[str, Any], replan_steps: int) -> list[bool]:
        head: Any = policy.bundle.actor.head
        if decoder:
            head.config = dataclasses.replace(head.config, **decoder)
        environments = [self.suite.environment(TASK) for _ in range(min(10, TRIALS))]
        try:
            scenes = self.suite.scene_ids(TASK, "ind", TRIALS, FIRST_SCENE)
            results = run_trials(policy, environments, scenes, horizon_steps(self.limit_steps),
                                 replan_steps=replan_steps, seed=SEED)
            return [bool(result.success) for result in results]
        finally:
            for environment in environments:
                environment.close()
