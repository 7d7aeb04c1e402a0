"""The same steps on a GPU: bf16, torch.compile, and the share of the card's own measured matmul rate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from train_steps import Setup

SIDE, REPEATS = 8192, 30
BATCHES = (64, 4096)


def _milliseconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    for _ in range(5):
        work()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / repeats


def measure_gpu() -> dict[str, Any]:
    """Per batch size: samples/s of imitation and critic steps as the trainer runs them, and of forward and backward
    in bf16 and compiled, with their share of the matmul rate; peak memory in MB."""
    square = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    rate = 2.0 * SIDE**3 / (1e-3 * _milliseconds(lambda: square @ square))
    rows: dict[str, Any] = {"card": torch.cuda.get_device_name(), "matmul_tflops_bf16": rate / 1e12}
    for batch in BATCHES:
        torch.cuda.reset_peak_memory_stats()
        setup = Setup("cuda", **{"sft.batch": batch, "co_rft.batch": batch})
        bc, rl = setup.imitation(), setup.reinforcement()
        actor, samples = setup.actor(), setup.samples
        index = setup.index[torch.randint(len(setup.index), (batch,), device="cuda")]
        seen = setup.frames.observe(index)
        compiled = torch.compile(actor.losses)

        def both(losses: Callable[..., Any] = actor.losses, seen: Any = seen, index: Any = index,
                 samples: Any = samples) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                error, aside = losses(seen, samples.actions[index], samples.valid[index], samples.keyframe[index])
            (error.mean() + aside.mean()).backward()

        with FlopCounterMode(display=False) as counter:
            both()
        eager, fused = _milliseconds(both), _milliseconds(lambda both=both, compiled=compiled: both(compiled))
        steps = iter(range(1, 10**9))
        rows[f"batch_{batch}"] = {
            "samples_per_s": {
                "bc": 1e3 * batch / _milliseconds(lambda bc=bc, steps=steps: bc.step(next(steps))),
                "critic": 1e3 * batch / _milliseconds(lambda rl=rl: rl.critic.step()),
                "bf16": 1e3 * batch / eager, "bf16_compiled": 1e3 * batch / fused,
            },
            "share_of_matmul_rate": counter.get_total_flops() / (1e-3 * fused) / rate,
            "peak_mb": torch.cuda.max_memory_allocated() / 2**20,
        }
    return rows
