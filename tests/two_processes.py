"""Notes the gradients of tiny runs of both stages; test_trainer_processes.py starts it by torchrun, twice at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from learning_data import small_config, square_data

from corft_core.learning import processes, trainer
from corft_core.learning.trainer import train

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


def gradients_of_training(run: Path, **settings: Any) -> list[torch.Tensor]:
    """Train into `run`; the gradients of every optimiser step, as the optimiser sees them."""
    noted: list[torch.Tensor] = []
    step = torch.optim.AdamW.step

    def noting(self: torch.optim.AdamW, *rest: Any, **named: Any) -> Any:
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None]
        noted.append(torch.cat(gradients).clone())
        return step(self, *rest, **named)

    torch.optim.AdamW.step = noting  # type: ignore[method-assign]
    trainer.draw_curves = lambda run: None  # type: ignore[assignment]  # slow, and nothing to see
    try:
        train(square_data(failures=2, steps=5), run, small_config(**(SETTINGS | settings)), quiet=True)
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
    return noted


if __name__ == "__main__":
    folder, model = Path(sys.argv[1]), Path(sys.argv[2])
    with processes.joined("cpu"):  # one group for both runs: gloo can't form a second one
        for name, more in (("tiny", {}), ("adapters", adapters(model))):
            found = gradients_of_training(folder / name, **more)
            torch.save(found, folder / name / f"gradients{os.environ['RANK']}.pt")
