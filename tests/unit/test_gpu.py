"""On a GPU: both stages train, and the checkpoint acts there as it does on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from learning_data import RED, small_config, square_data, squares

from corft_core.learning.trainer import train
from corft_core.policy.graphs import Graphed
from corft_core.policy.policy import Policy
from corft_core.policy.tokens.decoding import autoregressive, jacobi
from corft_core.policy.tokens.transformer import TokenTransformer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")]


@pytest.mark.parametrize("head", ["flow", "chunk", "tokens"])
def test_training_and_acting(head: str, tmp_path: Path) -> None:
    data = square_data()
    run = train(data, tmp_path / "run", small_config(policy__head__kind=head, policy__selection__samples=1),
                device="cuda", quiet=True)
    images = {camera.name: np.stack([squares(3, 20)]) for camera in data.contract.cameras}
    chunks = []
    for device in ("cuda", "cpu"):
        policy = Policy.load(run / "checkpoints" / "co_rft", device)
        policy.samples = 1
        chunks.append(policy.act(images, np.zeros((1, 8)), [RED], torch.Generator().manual_seed(0)))
    assert chunks[0].actions.shape == chunks[1].actions.shape == (1, 3, 8)
    assert all(np.isfinite(chunk.actions).all() and np.isfinite(chunk.value).all() for chunk in chunks)
    if head == "chunk":  # the others draw their noise on their own device
        np.testing.assert_allclose(chunks[0].actions, chunks[1].actions, atol=1e-3)


@pytest.mark.parametrize("head", ["flow", "chunk"])
def test_graphs_give_what_the_steps_one_by_one_give(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = square_data()
    run = train(data, tmp_path / "run", small_config(policy__head__kind=head), device="cuda", quiet=True)
    policy = Policy.load(run / "checkpoints" / "co_rft", "cuda")
    generator = torch.Generator()

    def chunks() -> list[np.ndarray]:
        found = []
        for place in (3, 5, 3):
            images = {camera.name: np.stack([squares(place, 20)]) for camera in data.contract.cameras}
            found.append(policy.act(images, np.zeros((1, 8)), [RED], generator.manual_seed(place)).actions)
        return found

    recorded = chunks()
    assert not np.allclose(recorded[0], recorded[1]), "inputs are copied into the graph before every replay"
    np.testing.assert_array_equal(recorded[0], recorded[2])
    monkeypatch.setattr(Graphed, "__call__", lambda self, *tensors, **settings: self._function(
        *(None if tensor is None else tensor.cuda() for tensor in tensors), **settings))
    for one, other in zip(recorded, chunks(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_function_that_waits_for_the_gpu_is_run_as_it_is() -> None:
    graphed = Graphed(lambda x: (x * 2 if float(x.sum()) > 0 else x,))
    with torch.inference_mode(), pytest.warns(UserWarning, match="no CUDA graph"):
        assert graphed(torch.ones(3))[0].tolist() == [2, 2, 2]
    with torch.inference_mode():
        assert graphed(-torch.ones(3))[0].tolist() == [-1, -1, -1]


def test_jacobi_equals_decoding_one_by_one_on_the_gpu() -> None:
    torch.manual_seed(0)
    model = TokenTransformer(8, 12, 16, 16, 2, 2).double().cuda()
    observation = torch.randn(4, 8, dtype=torch.float64, device="cuda")
    expected = autoregressive(model, observation).tokens
    for window in (0, 5):
        found = jacobi(model, observation, window=window)
        assert torch.equal(found.tokens, expected) and found.forwards <= 12 + 1
        assert torch.equal(jacobi(model, observation, expected, window).tokens, expected)
