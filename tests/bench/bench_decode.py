"""decode: passes and time of autoregressive and Jacobi decoding of action tokens, and success in the cell.

A token policy is trained by imitation of the cell's demonstrations (kept under out/bench). Decoders take turns on the
same observations, five steps of one episode apart, timed by processor time on one thread; the warm start is the chunk
before, shifted. `hz`: actions a second, when as many actions of a chunk are executed as in the trials. Success is that
of paired trials without warm starts. Exact Jacobi of any window and one token a pass give the same tokens, which is
counted here, so they share their trials. Ratios in time are those of the window with the largest `hz` (`window`).
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corft_core.cell.suite import CellSuite
from corft_core.evaluation.intervals import success_rate
from corft_core.evaluation.rollout import run_trials
from corft_core.evidence.protocol import horizon_steps, limit_steps
from corft_core.learning.config import TrainConfig
from corft_core.learning.reuse import FeatureCache
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.policy.config import TokenConfig
from corft_core.policy.options import override
from corft_core.policy.tokens.decoding import autoregressive, gumbel, jacobi
from corft_core.policy.tokens.head import TokenHead

ROOT = Path(__file__).parents[2]
TASK, SEED, DEMONSTRATIONS, HORIZON, EXECUTED = "cup", 2000, 30, 10, 5
STEPS = int(os.environ.get("CORFT_BENCH_STEPS", "1500"))
TRIALS = int(os.environ.get("CORFT_BENCH_TRIALS", "40"))
OBSERVATIONS = 40
WINDOWS = (7, 16, 37, 0)
TOKENS = {"policy.head.kind": "tokens", "policy.head.width": 128, "policy.head.layers": 2, "sft.lr": 1e-3}


def measure() -> dict[str, Any]:
    """Train or find the policies, time the decoders, try them."""
    torch.set_num_threads(1)
    suite = CellSuite()
    contract = suite.features(TASK)
    episodes = suite.demonstrate(TASK, DEMONSTRATIONS, SEED)
    data = EpisodesInMemory(contract, episodes)
    features = FeatureCache()
    tokens, flow = _trained(data, "tokens", TOKENS, features), _trained(data, "flow", {}, features)
    head = tokens.bundle.actor.head
    assert isinstance(head, TokenHead)
    observations = _observations(tokens, episodes)
    contenders = {
        "single_ar": {"decoder": "autoregressive", "steps": 1}, "chunked_ar": {"decoder": "autoregressive"},
        **{f"jacobi_{window or 'all'}": {"decoder": "jacobi", "window": window} for window in WINDOWS},
        **{f"bidirectional_{window or 'all'}": {"decoder": "bidirectional", "window": window} for window in WINDOWS},
    }
    rows: dict[str, dict[str, Any]] = {name: {"seconds": [], "forwards": []} for name in (*contenders, "flow")}
    cold: list[int] = []
    plan: np.ndarray[Any, Any] | None = None
    for number, (images, state, instruction) in enumerate(observations):
        for name, settings in contenders.items():
            head.config = dataclasses.replace(TokenConfig(), **settings)
            began = time.process_time()
            chunk = tokens.act(images, state, [instruction], plan=plan if number else None).actions
            rows[name]["seconds"].append(time.process_time() - began)
            rows[name]["forwards"].append(head.decoded.forwards)  # type: ignore[union-attr]
            if name == "jacobi_all":
                following = np.concatenate([chunk[:, EXECUTED:], np.repeat(chunk[:, -1:], EXECUTED, 1)], 1)
        head.config = TokenConfig()
        tokens.act(images, state, [instruction])
        cold.append(head.decoded.forwards)  # type: ignore[union-attr]
        plan = following
        began = time.process_time()
        flow.act(images, state, [instruction])
        rows["flow"]["seconds"].append(time.process_time() - began)
    table = {name: _row(name, row) for name, row in rows.items()}
    limit = limit_steps([len(episode) for episode in episodes])
    trials = {name: _success(suite, tokens, limit, contenders[name], 1 if name == "single_ar" else EXECUTED)
              for name in ("single_ar", "jacobi_all", "bidirectional_all", "bidirectional_16")}
    trials["flow"] = _success(suite, flow, limit, None, EXECUTED)
    trials |= {name: trials["jacobi_all"] for name in table if name == "chunked_ar" or name.startswith("jacobi_")}
    for name, found in trials.items():
        table[name] |= found
    best = max((name for name in table if name.startswith("jacobi_")), key=lambda name: table[name]["hz"])
    return {
        "task": TASK, "tokens_a_chunk": HORIZON * len(contract.action_names), "horizon": HORIZON,
        "executed": EXECUTED,
        "train_steps": STEPS, "decoders": table,
        "window": best.removeprefix("jacobi_"),
        "jacobi_vs_single_ar": round(table[best]["hz"] / table["single_ar"]["hz"], 3),
        "jacobi_vs_chunked_ar": round(table[best]["hz"] / table["chunked_ar"]["hz"], 3),
        "jacobi_vs_chunked_ar_forwards": round(table["chunked_ar"]["forwards"] / table["jacobi_all"]["forwards"], 3),
        "cold_start_forwards": round(float(np.mean(cold)), 2), **_mismatches(tokens, head, observations),
        "trials": TRIALS, "limit_steps": limit}


def _trained(data: EpisodesInMemory, name: str, settings: dict[str, Any], features: FeatureCache) -> Policy:
    """The policy of this name, trained unless it lies under out/bench; an interrupted training goes on."""
    folder = ROOT / "out" / "bench" / "decode" / f"{name}-{STEPS}"
    if not (folder / "checkpoints" / "sft").exists():
        config = override(TrainConfig, {}, {
            "seed": SEED, "threads": 1, "policy.horizon": HORIZON, "policy.backbone": "effnet", "sft.steps": STEPS,
            "co_rft.steps": 0, "co_rft.warmup": 0, "tensorboard": False, "check_frames": 0, **settings})
        train(data, folder, config, resume=(folder / "config.json").exists(), features=features)
    return Policy.load(folder / "checkpoints" / "sft")


def _observations(policy: Policy, episodes: list[Any]) -> list[tuple[dict[str, Any], Any, str]]:
    """Observations as a robot meets them: every EXECUTED steps along demonstrations."""
    found = []
    for episode in episodes:
        for step in range(0, len(episode), EXECUTED):
            images = {camera.name: episode.images[camera.name][step][None] for camera in policy.features.cameras}
            found.append((images, episode.state[step][None], episode.instruction))
    return found[:OBSERVATIONS]


def _row(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Medians; the first two observations warm the caches."""
    seconds = float(np.median(row["seconds"][2:]))
    executed = 1 if name == "single_ar" else EXECUTED
    result = {"chunk_ms": round(1e3 * seconds, 2), "chunks_per_s": round(1 / seconds, 2),
              "hz": round(executed / seconds, 2)}
    if row["forwards"]:
        forwards = float(np.mean(row["forwards"][2:]))
        tokens = 8 if name == "single_ar" else 8 * HORIZON
        result |= {"forwards": round(forwards, 2), "tokens_per_s": round(tokens / seconds, 1)}
    return result


def _mismatches(policy: Policy, head: TokenHead, observations: list[Any]) -> dict[str, int]:
    """Tokens on which exact Jacobi differs from one token a pass, in float32, greedy and drawn, over all windows."""
    compared = different = 0
    generator = torch.Generator().manual_seed(0)
    shape = (1, head.model.length, head.config.vocabulary)
    with torch.inference_mode():
        for images, state, instruction in observations[:: max(1, len(observations) // 20)]:
            seen = policy.observation(images, state, [instruction])
            embedding = policy.bundle.actor.embed(seen)
            for noise in (None, gumbel(shape, 1.0, generator, embedding)):
                expected = autoregressive(head.model, embedding, noise=noise).tokens
                for window in WINDOWS:
                    said = jacobi(head.model, embedding, window=window, noise=noise).tokens
                    compared += expected.numel()
                    different += int((said != expected).sum())
    return {"mismatches": different, "tokens_compared": compared}


def _success(suite: CellSuite, policy: Policy, limit: int, settings: dict[str, Any] | None,
             replan_steps: int) -> dict[str, Any]:
    """Success within 1.5 x the demonstrations' mean length on paired scenes, with its 95 % interval."""
    if settings is not None:
        policy.bundle.actor.head.config = dataclasses.replace(TokenConfig(), **settings)  # type: ignore[assignment]
    environments = [suite.environment(TASK) for _ in range(min(10, TRIALS))]
    try:
        scenes = suite.scene_ids(TASK, "ind", TRIALS, 2000)
        results = list(run_trials(policy, environments, scenes, horizon_steps(limit), replan_steps=replan_steps,
                                  seed=SEED))
    finally:
        for environment in environments:
            environment.close()
    rate = success_rate([result.success for result in results])
    return {"success": round(rate.value, 3), "success_interval": [round(rate.low, 3), round(rate.high, 3)]}
