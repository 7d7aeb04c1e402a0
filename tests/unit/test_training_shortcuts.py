"""The fast forms of the training step equal the plain ones."""

from __future__ import annotations

import numpy as np
import torch

from corft_core.learning.noise import BANK, gaussian_like
from corft_core.policy.keypoints import locate
from corft_core.policy.observation import grid_positions


def plain_locate(weight: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return (weight @ tokens.transpose(2, 3)).softmax(3) @ positions


def test_keypoints_and_their_gradients_equal_autograds() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(3, 2, 16, 6, dtype=torch.float64, requires_grad=True)
    positions = grid_positions(16).double()
    fast, plain = locate(weight, tokens, positions), plain_locate(weight, tokens, positions)
    torch.testing.assert_close(fast, plain)
    target = torch.randn_like(plain)
    for one, other in zip(
        torch.autograd.grad((fast * target).sum(), [weight, tokens]),
        torch.autograd.grad((plain * target).sum(), [weight, tokens]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_keypoints_of_large_logits_stay_finite() -> None:
    weight, tokens = 1e3 * torch.ones(1, 1, 2), torch.rand(1, 1, 9, 2)
    points = locate(weight, tokens, grid_positions(9))
    torch.testing.assert_close(points, plain_locate(weight, tokens, grid_positions(9)))


def test_noise_is_standard_normal_and_depends_on_the_seed_alone() -> None:
    like = torch.empty(64, 2, 256, 24)
    torch.manual_seed(5)
    first = gaussian_like(like).clone()
    second = gaussian_like(like).clone()
    torch.manual_seed(5)
    assert torch.equal(first, gaussian_like(like))
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.005 and abs(float(first.std()) - 1.0) < 0.005
    rows = first.flatten(1).numpy()
    correlation = np.corrcoef(rows)
    np.fill_diagonal(correlation, 0.0)
    assert np.abs(correlation).max() < 0.06  # 64 rows of 12288 independent numbers


def test_noise_larger_than_half_the_bank_is_drawn_anew() -> None:
    like = torch.empty(BANK // 2 + 1)
    torch.manual_seed(1)
    drawn = gaussian_like(like)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.randn_like(like))
