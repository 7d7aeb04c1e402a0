"""Training in several processes (torchrun): which of them this is, joined batches, averaged gradients.

Every process holds all weights and tables and works on its share of each batch; averaging the gradients then gives
those of the joined batch. Alone, all functions are identities. Gradients are averaged by one call after backward
rather than by DistributedDataParallel, because the stages call their networks in more ways than one `forward`; the
experts are too small for overlapping the transfer with the backward pass to pay. With `sft.shard` a trained backbone is
divided among the processes, which average its gradients themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist

from corft_core.errors import CorftError
from corft_core.policy.backbones.shards import divided

BUCKET = 1 << 24
"""Gradients that travel together: enough to use the link, little beside a model."""


def count() -> int:
    """Number of processes; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes files and talks."""
    return rank() == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the group that torchrun announces; yields the device of this process ("cuda" → its own card)."""
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def share(batch: int) -> slice:
    """This process's part of a joined batch; raises CorftError when it cannot be divided evenly."""
    if batch % count():
        raise CorftError(f"a batch of {batch} cannot be divided among {count()} processes: choose a multiple.")
    size = batch // count()
    return slice(rank() * size, (rank() + 1) * size)


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """Mean of a detached tensor over the processes."""
    if count() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / count()


def balance(valid: Tensor) -> float:
    """Factor for a loss that divides by the number of true entries of `valid`.

    The mean over processes of the corrected losses divides by the joined batch's number, as one process would.
    """
    if count() == 1:
        return 1.0
    own = valid.sum().double()
    return float(own / mean(own).clamp_min(1e-9))


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over the processes, in transfers of at most about BUCKET numbers."""
    if count() == 1:
        return
    bucket: list[Tensor] = []
    for gradient in [p.grad for p in parameters if p.grad is not None and not divided(p)]:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            _average(bucket)
            bucket = []
        bucket.append(gradient)
    if bucket:
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    joined_gradients = mean(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, joined_gradients.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer, so that they stop at the same step."""
    return flag if count() == 1 else bool(mean(torch.tensor(float(flag))) > 0)


def wait() -> None:
    """Return when all processes are here."""
    if count() > 1:
        dist.barrier()
