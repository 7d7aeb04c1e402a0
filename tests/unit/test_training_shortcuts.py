"""The fast forms of the training step equal the plain ones."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learning_data import small_config

from corft_core.learning.frames import CachedFrames, Samples
from corft_core.learning.noise import BANK, gaussian_like
from corft_core.learning.optim import cosine, draw_batch, seed_step
from corft_core.learning.sft import STAGE_NUMBER, SFTStage
from corft_core.policy import observation
from corft_core.policy.actor import Actor, Observation, Shapes
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


def test_stage_1_steps_equal_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(
        sft__token_noise=0.0, sft__state_noise=0.0, sft__steps=5, policy__head__kind="chunk",
        co_rft__extraction="weighted_anchor",
    )
    torch.manual_seed(0)
    count, sft = 40, config.sft
    actions, valid = torch.randn(count, 3, 4), torch.rand(count, 3) < 0.8
    samples = Samples(
        state=torch.randn(count, 5), actions=actions, valid=valid, keyframe=torch.randn(count, 4),
        text_index=torch.zeros(count, dtype=torch.long), instructions=("",), imitation_actions=actions,
        imitation_valid=valid,
    )
    frames = CachedFrames(samples, torch.randn(count, 2, 16, 6).half(), torch.randn(1, 7), samples.text_index)
    fast, rows = Actor(Shapes(2, (16, 6), 7, 5, 4), config.policy), torch.arange(count)
    plain = copy.deepcopy(fast)
    frozen: Any = SimpleNamespace(frozen=True)
    stage = SFTStage(fast, frozen, frames, rows, rows[:0], sft, 0, 50)
    for step in range(sft.steps):
        stage.step(step)

    monkeypatch.setattr(observation, "locate", plain_locate)
    moved = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved, sft.lr, weight_decay=sft.weight_decay, foreach=False, fused=False)
    for step in range(sft.steps):
        seed_step(0, STAGE_NUMBER, step)
        optimizer.param_groups[0]["lr"] = sft.lr * cosine(step, sft.steps, sft.warmup)
        index = draw_batch(rows, sft.batch)
        seen = Observation(frames.tokens[index].float(), frames.text[frames.text_row[index]], samples.state[index])
        error, keyframe = plain.losses(seen, actions[index], valid[index], samples.keyframe[index])
        optimizer.zero_grad()
        (error.mean() + sft.keyframe_weight * keyframe.mean()).backward()
        torch.nn.utils.clip_grad_norm_(moved, sft.clip_norm)
        optimizer.step()
    for (name, one), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_any_seed_of_the_settings_seeds_a_step(seed: int) -> None:
    seed_step(seed, 2, 10_000)
    first = torch.rand(3)
    seed_step(seed, 2, 10_000)
    assert torch.equal(first, torch.rand(3))
