"""Weights that are divided among processes (FSDP2): each process keeps a part of every trained tensor.

A layer's weights are gathered when it is computed and dropped again; gradients and the optimiser's state are divided
as the weights are. What is frozen stays whole in every process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


def divide(module: nn.Module, layers: Iterable[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
    """Divide what is trained of `module` among all processes, `layers` one by one and the rest as a whole.

    dtype: the one in which it computes; weights are gathered in it, gradients are added up in float32. Afterwards call
    the module itself, not its methods: gathering hangs on the call.
    """
    from torch.distributed.device_mesh import init_device_mesh  # takes a second, and few need it
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    frozen = {p for p in module.parameters() if not p.requires_grad}
    precision = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in (*layers, module):
        if any(p.requires_grad for p in part.parameters()):
            # True: nothing stays gathered between calls, so that changed weights are seen by the next one.
            fully_shard(part, mesh=mesh, mp_policy=precision, ignored_params=frozen, reshard_after_forward=True)


def divided(tensor: Any) -> bool:
    """Whether this process holds a part of the tensor only (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """The part that this process holds, in the same memory; a tensor that is not divided as it is."""
    return tensor.to_local() if divided(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, all processes must ask. Of a divided one only process 0 gets it, in host memory, the others an
    empty one: no device has to hold the whole model."""
    if not divided(tensor):
        return tensor
    gathered = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return gathered.cpu() if distributed.get_rank() == 0 else gathered.new_empty(0, device="cpu")


@torch.no_grad()
def as_divided(value: Tensor, tensor: Any) -> Tensor:
    """A whole `value` divided as `tensor` is."""
    if not divided(tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has it: none needs to be sent its part.
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
