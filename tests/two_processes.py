"""Notes the gradients of tiny runs of both stages; test_trainer_processes.py starts it by torchrun, twice at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from learning_data import small_config, square_data

from corft_core.learning import processes, trainer
from corft_core.learning.loop import Interrupted
from corft_core.learning.trainer import train
from corft_core.policy.backbones.shards import divided

SETTINGS: dict[str, Any] = {  # nothing random but the joined batch, which is the same in both cases
    "policy__head__kind": "chunk", "sft__token_noise": 0.0, "sft__state_noise": 0.0, "co_rft__policy_noise": 0.0,
    "co_rft__policy_samples": 1, "co_rft__extraction": "weighted_anchor", "co_rft__q_weight": 1.0, "sft__steps": 1,
    "sft__warmup": 0, "co_rft__steps": 2, "co_rft__warmup": 1, "co_rft__actor_steps": 1, "log_every": 1,
    "co_rft__conservative": "mean", "co_rft__random_samples": 0,
}


def adapters(model: Path) -> dict[str, Any]:
    """Settings that train LoRA adapters of the model in a folder, in two parts of a process's batch."""
    return {"policy__backbone": f"hf:{model}", "policy__backbone_options": {"trainable": "lora:2", "tokens": 4},
            "sft__accumulate": 2}


def full(model: Path) -> dict[str, Any]:
    """Settings that train a whole model, which several processes divide among them; averages and clipping count."""
    return {"policy__backbone": f"hf:{model}", "policy__backbone_options": {"trainable": "all", "tokens": 4},
            "sft__accumulate": 2, "sft__steps": 3, "sft__shard": True, "sft__clip_norm": 0.01}


def gradients_of_training(run: Path, stop_after: int = -1, **settings: Any) -> list[torch.Tensor]:
    """Train into `run`; the gradients of every optimiser step, as the optimiser sees them.

    stop_after: after so many steps process 0 is asked to stop, and the training goes on from what was saved.
    """
    noted: list[torch.Tensor] = []
    step = torch.optim.AdamW.step

    def noting(self: torch.optim.AdamW, *rest: Any, **named: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        noted.append(torch.cat([(g.full_tensor() if divided(g) else g).flatten() for g in gradients]).clone())
        if len(noted) == stop_after and processes.is_main():
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *rest, **named)

    torch.optim.AdamW.step = noting  # type: ignore[method-assign]
    trainer.draw_curves = lambda run: None  # type: ignore[assignment]  # slow, and nothing to see
    data, config = square_data(failures=2, steps=5), small_config(**(SETTINGS | settings))
    try:
        train(data, run, config, quiet=True)
    except Interrupted:
        processes.wait()  # until all is saved
        train(data, run, config, quiet=True, resume=True)
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
    return noted


if __name__ == "__main__":
    folder, model = Path(sys.argv[1]), Path(sys.argv[2])
    with processes.joined("cpu"):  # one group for all runs: gloo can't form a second one
        runs: dict[str, dict[str, Any]] = {
            "tiny": {}, "adapters": adapters(model), "full": {**full(model), "stop_after": 2}}
        for name, more in runs.items():
            found = gradients_of_training(folder / name, **more)
            torch.save(found, folder / name / f"gradients{os.environ['RANK']}.pt")
