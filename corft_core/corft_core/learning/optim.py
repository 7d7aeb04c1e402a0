"""Small training tools: learning-rate schedule, averaged weights, random streams that depend on the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from corft_core.learning import processes
from corft_core.policy.backbones import Backbone
from corft_core.policy.backbones.shards import as_divided, divided, local, whole

_PICKS = torch.Generator()
"""Draws the batches: apart from the noise, so that processes with other noise draw the same joined batches."""


def backbone_groups(backbone: Backbone, lr: float, vision_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of what is trained of a backbone: learning rates of the vision part (0: as the rest) and of all
    else; norms, biases and other vectors do not decay."""
    vision = {id(p) for p in backbone.vision_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            rate = vision_lr if vision_lr and id(parameter) in vision else lr
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]


def cosine(step: int, total: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine from 1 to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def seed_step(seed: int, stage: int, step: int) -> None:
    """Seed torch for one step: a resumed run draws what an uninterrupted one would have drawn."""
    number = ((seed * 1_000_003 + stage) * 1_000_000_007 + step) % 2**63
    _PICKS.manual_seed(number)
    torch.default_generator.manual_seed(number)  # torch.manual_seed asks every kind of accelerator, 0.3 ms
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)


def draw_batch(rows: Tensor, batch: int) -> Tensor:
    """Draw `batch` entries of `rows` (M,) with repetition → (batch,).

    Under torchrun all processes draw the same joined batch and each gets its share; noise drawn later in the step
    then differs between them.
    """
    picked = torch.randint(len(rows), (batch,), generator=_PICKS)[processes.share(batch)]
    if processes.rank():
        torch.manual_seed((torch.initial_seed() + processes.rank() * 7_919) % 2**63)
    return rows[picked.to(rows.device)]


@torch.no_grad()
def clip_gradients(parameters: list[nn.Parameter], largest: float) -> float:
    """Shorten the gradients so that their joint norm is at most `largest`, 0: any; the norm before."""
    largest = largest or float("inf")
    if not any(map(divided, parameters)):
        return float(nn.utils.clip_grad_norm_(parameters, largest))
    own: list[Tensor] = []
    shared: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            (own if divided(parameter) else shared).append(local(parameter.grad))
    squares = nn.utils.get_total_norm(own).square() * processes.count()  # of this process's parts
    norm = (processes.mean(squares) + nn.utils.get_total_norm(shared).square()).sqrt()
    torch._foreach_mul_(own + shared, (largest / (norm + 1e-6)).clamp_max(1.0))
    return float(norm)


class Averaged:
    """Exponential moving average of parameters; decay 0 keeps the parameters themselves."""

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.decay = decay
        self.values: list[Tensor] = [p.detach().clone() for p in self.parameters]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10.0))  # forget the initial weights quickly
        torch._foreach_lerp_(
            [local(v) for v in self.values], [local(p.detach()) for p in self.parameters], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters; twice restores."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        return {str(i): whole(value) for i, value in enumerate(self.values)}

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        for i, value in enumerate(self.values):
            value.copy_(as_divided(state[str(i)], value))
        self.updates = updates


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors, for safetensors."""
    return {
        f"{index}.{name}": whole(value)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = as_divided(value, parameters[int(index)]) if value.dim() else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
