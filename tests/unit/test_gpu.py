"""On a GPU: both stages train, and the checkpoint acts there as it does on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from learning_data import RED, small_config, square_data, squares

from corft_core.learning.trainer import train
from corft_core.policy.policy import Policy

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
