"""Gaussian noise for data augmentation, cheap on a CPU: random slices of a bank drawn once.

Drawing a batch's token noise anew takes longer than the rest of the observation encoder. A slice's entries are
independent; only steps thousands apart may meet a part of an earlier slice, on other frames. Which slice depends on
torch's seed, so a resumed run sees the noise that an uninterrupted one would have seen.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BANK = 1 << 23
"""Numbers in the bank (32 MiB) [ours]."""
_STRIDE = 16  # slices start at whole cache lines


@cache
def _bank() -> Tensor:
    return torch.randn(BANK, generator=torch.Generator().manual_seed(0))


def gaussian_like(like: Tensor) -> Tensor:
    """Standard normal numbers of this shape; read only, because the memory may be the bank's."""
    size = like.numel()
    if like.device.type != "cpu" or like.dtype != torch.float32 or not 4096 <= size <= BANK // 2:
        return torch.randn_like(like)
    start = int(torch.randint((BANK - size) // _STRIDE, ())) * _STRIDE
    return _bank()[start : start + size].view(like.shape)
