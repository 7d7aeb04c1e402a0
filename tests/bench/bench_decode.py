"""decode: passes and time of autoregressive and Jacobi decoding of action tokens, and success in the cell.

Policies and trials: decode_policies.py. Decoders take turns on the same observations, five steps of one episode apart,
timed by processor time on one thread, image encoding included. Jacobi starts from the chunk before, shifted; `cold`:
from nothing. As many steps of a chunk are decoded as are executed, one for single_ar; rows that end in `_whole` decode
all ten. `hz`: actions executed a second. Exact Jacobi of any window and one token a pass give the same tokens, which is
counted here, so they share their trials. Ratios in time are those of the window with the largest `hz` (`window`).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent))
from decode_policies import EXECUTED, HORIZON, SEED, STEPS, TASK, TRIALS, Policies

from corft_core.policy import Policy
from corft_core.policy.tokens.decoding import autoregressive, gumbel, jacobi
from corft_core.policy.tokens.head import TokenHead

OBSERVATIONS = 40
WINDOWS = (7, 16, 37, 0)
AR, JACOBI, BIDIRECTIONAL = ({"decoder": name} for name in ("autoregressive", "jacobi", "bidirectional"))
SOME = {"steps": EXECUTED}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {  # name → policy, its decoder
    "single_ar": ("bins", {**AR, "steps": 1}),
    "chunked_ar": ("bins", {**AR, **SOME}),
    **{f"jacobi_{n or 'all'}": ("bins", {**JACOBI, **SOME, "window": n}) for n in WINDOWS},
    **{f"bidirectional_{n or 'all'}": ("bins", {**BIDIRECTIONAL, **SOME, "window": n}) for n in WINDOWS},
    "chunked_ar_whole": ("bins", AR),
    "jacobi_all_whole": ("bins", JACOBI),
    "fast_chunked_ar": ("fast", AR),
    "fast_jacobi_7": ("fast", {**JACOBI, "window": 7}),
    "flow": ("flow", {}),
}
TRIED = {"single_ar": (1, ("single_ar",)), "jacobi_all": (EXECUTED, tuple(
    name for name in ROWS if name.startswith(("jacobi", "chunked_ar")))),
    **{name: (EXECUTED, (name,)) for name in ROWS if name.startswith("bidirectional")},
    "fast_chunked_ar": (EXECUTED, ("fast_chunked_ar", "fast_jacobi_7")),
    "flow": (EXECUTED, ("flow",))}
"""Rows that are tried, how many steps they execute, and the rows that give the same chunks."""


def measure() -> dict[str, Any]:
    """Train or find the policies, try them, time the decoders."""
    torch.set_num_threads(1)
    policies = Policies()
    loaded = {name: policies.policy(name) for name in dict.fromkeys(name for name, _ in ROWS.values())}
    trials = tried(policies)
    observations = _observations(loaded["bins"], policies.suite.demonstrate(TASK, 2, SEED))
    times = _timed(loaded, observations)
    table = {name: _row(name, row) | trials[name] for name, row in times.items()}
    best = max((f"jacobi_{n or 'all'}" for n in WINDOWS), key=lambda name: table[name]["hz"])
    single, chunked = table["single_ar"], table["chunked_ar"]
    return {
        "task": TASK, "horizon": HORIZON, "executed": EXECUTED, "train_steps": STEPS, "decoders": table,
        "window": best.removeprefix("jacobi_"),
        "jacobi_vs_single_ar": round(table[best]["hz"] / single["hz"], 3),
        "jacobi_vs_chunked_ar": round(table[best]["hz"] / chunked["hz"], 3),
        "jacobi_vs_chunked_ar_forwards": round(chunked["forwards"] / table["jacobi_all"]["forwards"], 3),
        "chunked_ar_vs_single_ar": round(chunked["hz"] / single["hz"], 3),
        **_mismatches(loaded["bins"], observations),
        "trials": TRIALS}


def tried(policies: Policies) -> dict[str, dict[str, Any]]:
    """Success by row; nothing for rows that were not tried."""
    found: dict[str, dict[str, Any]] = {name: {} for name in ROWS}
    for name, (replan_steps, alike) in TRIED.items():
        success = policies.success(*ROWS[name], replan_steps)
        found |= dict.fromkeys(alike, success)
    return found


def _timed(policies: dict[str, Policy], observations: list[Any]) -> dict[str, dict[str, list[Any]]]:
    """Seconds, passes and cold passes of every row on every observation."""
    rows: dict[str, dict[str, list[Any]]] = {name: {"seconds": [], "forwards": [], "cold": []} for name in ROWS}
    plans: dict[str, np.ndarray[Any, Any]] = {}
    for images, state, instruction in observations:
        for name, (kind, decoder) in ROWS.items():
            policy = policies[kind]
            head: Any = policy.bundle.actor.head
            if decoder:
                head.config = dataclasses.replace(head.config, **{"window": 0, "steps": 0, **decoder})
            if name in plans and decoder.get("decoder") == "jacobi":
                rows[name]["cold"].append(policy.act(images, state, [instruction]).forwards)
            began = time.process_time()
            chunk = policy.act(images, state, [instruction], plan=plans.get(name))
            rows[name]["seconds"].append(time.process_time() - began)
            if decoder:
                rows[name]["forwards"].append(chunk.forwards)
                executed = 1 if name == "single_ar" else EXECUTED
                rest = chunk.actions[:, executed:]
                plans[name] = np.concatenate([rest, np.repeat(rest[:, -1:], executed, 1)], 1)
    return rows


def _observations(policy: Policy, episodes: list[Any]) -> list[tuple[dict[str, Any], Any, str]]:
    """Observations as a robot meets them: every EXECUTED steps along demonstrations."""
    found = []
    for episode in episodes:
        for step in range(0, len(episode), EXECUTED):
            images = {camera.name: episode.images[camera.name][step][None] for camera in policy.features.cameras}
            found.append((images, episode.state[step][None], episode.instruction))
    return found[:OBSERVATIONS]


def _row(name: str, row: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians of times, means of passes; the first two observations warm the caches. `tokens_per_s`: bins only, since
    FAST's stand for different numbers of actions."""
    seconds = float(np.median(row["seconds"][2:]))
    executed = 1 if name == "single_ar" else EXECUTED
    result = {"steps": ROWS[name][1].get("steps") or HORIZON, "chunk_ms": round(1e3 * seconds, 2),
              "chunks_per_s": round(1 / seconds, 2),
              "hz": round(executed / seconds, 2)}
    if row["forwards"]:
        result["forwards"] = round(float(np.mean(row["forwards"][2:])), 2)
        if ROWS[name][0] != "fast":
            result["tokens_per_s"] = round(8 * result["steps"] / seconds, 1)
    if row["cold"]:
        result["cold_forwards"] = round(float(np.mean(row["cold"][1:])), 2)
    return result


def _mismatches(policy: Policy, observations: list[Any]) -> dict[str, int]:
    """Tokens on which exact Jacobi differs from one token a pass, in float32, greedy and drawn, over all windows."""
    head = policy.bundle.actor.head
    assert isinstance(head, TokenHead)
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
