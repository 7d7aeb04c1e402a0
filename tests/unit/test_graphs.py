"""What surrounds a CUDA graph, with a stand-in for the graph itself; tests/unit/test_gpu.py has real ones."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from corft_core.policy import graphs
from corft_core.policy.graphs import Graphed


class Replayed:
    """In the place of a CUDA graph: a replay computes from the recorded inputs into the recorded outputs."""

    def __init__(self, function: Any, inputs: Any, outputs: Any, settings: Any) -> None:
        self.function, self.inputs, self.outputs, self.settings = function, inputs, outputs, settings

    def replay(self) -> None:
        for place, value in zip(self.outputs, self.function(*self.inputs, **self.settings), strict=True):
            place.copy_(value)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Keys of what was recorded."""
    made: list[Any] = []

    def record(self: Graphed, tensors: Any, settings: Any) -> Any:
        made.append((tuple(None if t is None else tuple(t.shape) for t in tensors), dict(settings)))
        inputs = tuple(None if tensor is None else tensor.clone() for tensor in tensors)
        outputs = self._function(*inputs, **settings)
        return graphs._Recorded(Replayed(self._function, inputs, outputs, settings), inputs, outputs)

    monkeypatch.setattr(Graphed, "_record", record)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    return made


def scaled(x: torch.Tensor, more: torch.Tensor | None, by: int = 1) -> tuple[torch.Tensor, ...]:
    return (x * by if more is None else x * by + more,)


def test_each_shape_and_setting_is_recorded_once_and_replayed_with_new_inputs(recordings: list[Any]) -> None:
    graphed = Graphed(scaled, "cpu")
    one, two = torch.ones(3), torch.arange(3.0)
    assert [graphed(x, None, by=2)[0].tolist() for x in (one, two)] == [[2, 2, 2], [0, 2, 4]]
    assert graphed(one, two, by=2)[0].tolist() == [2, 3, 4]
    assert graphed(torch.ones(2), None, by=2)[0].tolist() == [2, 2]
    assert graphed(one, None, by=3)[0].tolist() == [3, 3, 3]
    assert graphed(two, None, by=2)[0].tolist() == [0, 2, 4]
    assert recordings == [(((3,), None), {"by": 2}), (((3,), (3,)), {"by": 2}), (((2,), None), {"by": 2}),
                          (((3,), None), {"by": 3})]


def test_results_lie_in_the_graphs_own_memory(recordings: list[Any]) -> None:
    graphed = Graphed(scaled, "cpu")
    first = graphed(torch.ones(3), None)[0]
    assert graphed(torch.zeros(3), None)[0] is first and first.tolist() == [0, 0, 0]


def test_no_more_graphs_are_kept_than_memory_is_meant_for(recordings: list[Any]) -> None:
    graphed = Graphed(scaled, "cpu")
    for size in range(1, graphs.MOST_GRAPHS + 3):
        graphed(torch.ones(size), None)
    assert len(graphed._recorded) <= graphs.MOST_GRAPHS == len(recordings) - 2


def test_recording_takes_nothing_from_the_callers_noise(recordings: list[Any]) -> None:
    generator = torch.Generator()
    graphed = Graphed(lambda x: (x + torch.rand(3, generator=generator),), "cpu", generator)
    drawn = []
    for _ in range(2):
        generator.manual_seed(5)
        drawn.append(graphed(torch.zeros(3))[0].tolist())
    assert drawn[0] == drawn[1] == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()


def test_what_cannot_be_recorded_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graphed, "_record", lambda self, tensors, settings: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    graphed = Graphed(scaled, "cpu")
    assert graphed(torch.ones(2), None, by=4)[0].tolist() == [4, 4]
