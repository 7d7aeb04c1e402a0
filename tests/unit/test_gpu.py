"""On a GPU: both stages train, and the checkpoint acts there as it does on the processor."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learning_data import RED, small_config, square_data, squares

from corft_core.learning.optim import clip_gradients
from corft_core.learning.trainer import train
from corft_core.policy.backbones import make_backbone
from corft_core.policy.backbones.small import FAMILIES
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


@pytest.mark.parametrize("backbone", ["tiny", "smolvlm"])
@pytest.mark.parametrize("head", ["flow", "tokens"])
def test_nothing_waits_for_the_gpu_until_the_chunk_is_there(backbone: str, head: str, tmp_path: Path) -> None:
    """Nor is anything but a token decoder left out of the graphs: that would be a warning."""
    settings: dict[str, Any] = {"policy__head__kind": head, "sft__steps": 2, "co_rft__steps": 2, "co_rft__warmup": 1,
                                "co_rft__actor_steps": 1, "check_frames": 0}
    if backbone != "tiny":
        FAMILIES[backbone](tmp_path / "model")
        settings |= {"policy__backbone": f"hf:{tmp_path / 'model'}",
                     "policy__backbone_options": {"dtype": "bfloat16", "tokens": 4}}
    data = square_data()
    run = train(data, tmp_path / "run", small_config(**settings), device="cuda", quiet=True)
    policy = Policy.load(run / "checkpoints" / "co_rft", "cuda")
    images = {camera.name: np.stack([squares(3, 20)]) for camera in data.contract.cameras}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):  # records the graphs, fills the caches
            policy.act(images, np.zeros((1, 8)), [RED])
        torch.cuda.set_sync_debug_mode("error")
        try:
            chunk = policy.act(images, np.zeros((1, 8)), [RED])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(chunk.actions).all()


@pytest.mark.parametrize("backbone", ["smolvlm"])
def test_a_backbone_divided_among_one_gpu_learns_as_a_whole_one(backbone: str, tmp_path: Path) -> None:
    """FSDP2 with NCCL; with gloo and two processes: test_trainer_processes.py."""
    import torch.distributed as dist

    FAMILIES[backbone](tmp_path / "model")
    options = {"trainable": "all", "tokens": 4, "dtype": "bfloat16", "gradient_checkpointing": True}
    images = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8, device="cuda")
    norms = []
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        for divide in (False, True):
            model: Any = make_backbone(f"hf:{tmp_path / 'model'}", 2, (32, 32), **options).to("cuda")
            if divide:
                model.divide(torch.device("cuda"))
            vision, text = model.encode(images, [RED, RED])
            (vision.square().mean() + text.square().mean()).backward()
            norms.append(clip_gradients(list(model.parameters()), 0.0))
    finally:
        dist.destroy_process_group()
    assert norms[1] == pytest.approx(norms[0], rel=0.05) and norms[0] > 0


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
