"""CUDA graphs: a function's kernels are recorded once and replayed by one launch, so that a small network at batch 1
does not wait for Python. On the processor the function is simply called."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
MOST_GRAPHS = 16

Function = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Recorded:
    graph: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]


class Graphed:
    """``function(*tensors, **settings)`` → tensors, recorded per shape of the tensors and value of the settings.

    The function may neither wait for the GPU nor decide by what it computed. One that does is run as it is, after a
    warning. Random numbers come from `generator` (CUDA), seeded by the caller before every call. Results lie in the
    graph's own memory: use them before the next call. The settings must be hashable, tensors may be None.
    """

    def __init__(self, function: Function, device: torch.device | str = "cuda",
                 generator: torch.Generator | None = None) -> None:
        self._function, self._device, self._generator = function, device, generator
        self._recorded: dict[Hashable, _Recorded | None] = {}

    def __call__(self, *tensors: Tensor | None, **settings: Any) -> tuple[Tensor, ...]:
        """Tensors on the GPU, or in pinned memory: those are copied without waiting."""
        key = (*(None if t is None else (t.shape, t.dtype) for t in tensors), *sorted(settings.items()))
        if key not in self._recorded:
            if len(self._recorded) == MOST_GRAPHS:
                self._recorded.clear()
            with torch.cuda.device(self._device):
                self._recorded[key] = self._record(tensors, settings)
            if self._generator is not None:  # recording drew from it
                self._generator.manual_seed(self._generator.initial_seed())
        recorded = self._recorded[key]
        if recorded is None:
            moved = (None if t is None else t.to(self._device, non_blocking=True) for t in tensors)
            return self._function(*moved, **settings)
        for place, tensor in zip(recorded.inputs, tensors, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor, non_blocking=True)
        recorded.graph.replay()
        return recorded.outputs

    def _record(self, tensors: tuple[Tensor | None, ...], settings: dict[str, Any]) -> _Recorded | None:
        inputs = tuple(None if tensor is None else tensor.to(self._device, copy=True) for tensor in tensors)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # allocations, cuBLAS handles and kernel choice happen outside of the graph
            for _ in range(WARM_UP):
                self._function(*inputs, **settings)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self._generator is not None:
            graph.register_generator_state(self._generator)
        try:
            with torch.cuda.graph(graph):
                outputs = self._function(*inputs, **settings)
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"no CUDA graph of {getattr(self._function, '__qualname__', 'this function')}, it runs step "
                          f"by step: {reason}", stacklevel=3)
            return None
        return _Recorded(graph, inputs, outputs)
