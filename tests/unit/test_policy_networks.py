"""Critic causality, flow head, observation encoder."""

from __future__ import annotations

import pytest
import torch

from corft_core.policy.config import CriticConfig, EncoderConfig, HeadConfig
from corft_core.policy.critic import make_critic, rank_chunks
from corft_core.policy.heads import make_head
from corft_core.policy.observation import ObservationEncoder, grid_positions


@pytest.mark.parametrize("kind", ["masked_mlp", "transformer"])
def test_prefix_value_does_not_see_later_actions(kind: str) -> None:
    torch.manual_seed(0)
    critic = make_critic(6, 5, 2, CriticConfig(kind=kind, width=8)).eval()
    embedding, chunk = torch.randn(3, 6), torch.randn(3, 2, 5, 2)
    reference = critic(embedding, chunk)
    assert reference.shape == (2, 3, 2, 5)
    for i in range(5):
        changed = chunk.clone()
        changed[:, :, i] += 1.0
        difference = (critic(embedding, changed) - reference).abs().amax((0, 1, 2))
        assert torch.all(difference[:i] < 1e-6), "Q of a shorter prefix saw a later action"
        assert torch.all(difference[i:] > 1e-6), "Q of a longer prefix ignored an action"


@pytest.mark.parametrize("kind", ["masked_mlp", "transformer"])
def test_a_new_critic_claims_nothing_that_would_stop_the_run(kind: str) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        critic = make_critic(256, 10, 8, CriticConfig(kind=kind, head="scalar"))
        assert float(critic(torch.randn(128, 256), torch.randn(128, 4, 10, 8)).detach().abs().max()) < 1.0


@pytest.mark.parametrize("kind", ["masked_mlp", "transformer"])
def test_critics_of_an_ensemble_are_independent(kind: str) -> None:
    torch.manual_seed(0)
    critic = make_critic(4, 3, 2, CriticConfig(kind=kind, width=8, ensemble=3))
    values = critic(torch.randn(2, 4), torch.randn(2, 1, 3, 2)).detach()
    assert values.shape[0] == 3
    assert float((values[0] - values[1]).abs().max()) > 1e-4


def test_ranking_compares_equal_lengths_and_is_pessimistic() -> None:
    values = torch.tensor([[[[9.0, 0.2], [0.0, 0.6]]], [[[9.0, 0.4], [0.0, 0.5]]]])  # K 2, B 1, n 2, H 2
    assert rank_chunks(values, "last").tolist() == [[pytest.approx(0.2), pytest.approx(0.5)]]
    assert rank_chunks(values, "mean").tolist() == [[pytest.approx(4.6), pytest.approx(0.25)]]


def test_flow_head_learns_two_modes() -> None:
    torch.manual_seed(0)
    head = make_head(2, 2, 1, HeadConfig(width=48, layers=2, flow_draws=4))
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    embedding, valid = torch.zeros(32, 2), torch.ones(32, 2, dtype=torch.bool)
    for _ in range(250):
        actions = (torch.randint(2, (32, 1, 1)) * 2.0 - 1.0).expand(-1, 2, 1)
        optimiser.zero_grad()
        head.loss(embedding, actions, valid).mean().backward()
        optimiser.step()
    with torch.no_grad():
        drawn = head.sample(embedding[:1], 200, torch.Generator().manual_seed(0))[0, :, :, 0]
    assert float((drawn.abs() - 1).abs().median()) < 0.15
    assert 0.3 < float((drawn[:, 0] > 0).float().mean()) < 0.7
    assert float((drawn[:, 0].sign() == drawn[:, 1].sign()).float().mean()) > 0.95, "a chunk is one mode, not a mixture"


def test_flow_head_goes_on_from_the_frozen_steps_of_a_plan() -> None:
    torch.manual_seed(0)
    head = make_head(2, 4, 1, HeadConfig(kind="flow", width=64, layers=2, flow_steps=10))
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):  # two ways around: all steps -1 or all +1
        side = torch.randint(0, 2, (128, 1, 1), generator=generator) * 2.0 - 1.0
        loss = head.loss(torch.ones(128, 2), side.expand(-1, 4, 1), torch.ones(128, 4, dtype=torch.bool), generator)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        for side in (-1.0, 1.0):
            plan = torch.tensor([[side, side, 9.0, 9.0]])[..., None]
            chunk = head.sample(torch.ones(1, 2), 200, generator, plan, frozen=2)[0, :, :, 0]
            assert torch.allclose(chunk[:, :2], torch.full((200, 2), side))
            assert float((chunk[:, 2:] * side > 0.5).float().mean()) > 0.75, "the rest takes the other way"
        free = head.sample(torch.ones(1, 2), 200, generator, plan, frozen=0)[0, :, :, 0]
        assert 0.2 < float((free[:, 0] > 0).float().mean()) < 0.8, "nothing frozen: the plan does not matter"


def test_flow_loss_ignores_padded_steps() -> None:
    head = make_head(2, 3, 1, HeadConfig(width=8, layers=2))
    valid = torch.tensor([[True, True, False]])
    embedding = torch.zeros(1, 2)
    weight = head.trunk.last[-1]
    head.loss(embedding, torch.ones(1, 3, 1), valid, torch.Generator().manual_seed(0)).sum().backward()
    assert float(weight.weight.grad[2].abs().max()) == 0.0
    assert float(weight.weight.grad[:2].abs().max()) > 0.0


def test_sampling_is_repeatable_with_a_generator() -> None:
    head = make_head(2, 3, 1, HeadConfig(width=8, layers=2))
    first, second = (head.sample(torch.zeros(2, 2), 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_grid_positions_are_row_major() -> None:
    assert grid_positions(4).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert grid_positions(6).shape == (6, 2)


def test_encoder_scales_its_inputs_by_training_data() -> None:
    encoder = ObservationEncoder(2, (4, 3), 5, 8, EncoderConfig(keypoints=2, value_width=4, embedding=16))
    tokens, text = torch.randn(10, 2, 4, 3) * 7 + 3, torch.randn(2, 5)
    encoder.fit_inputs(tokens, text)
    assert encoder.token_mean == pytest.approx(tokens.mean((0, 2)), abs=1e-5)
    assert encoder(tokens, text[:1].expand(10, -1), torch.zeros(10, 8)).shape == (10, 16)
