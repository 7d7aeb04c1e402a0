"""Distributional values: atoms, HL-Gauss, the projection of C51 against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.policy.config import CriticConfig
from corft_core.policy.critic import make_critic
from corft_core.policy.distribution import atoms, categorical_projection, expectation, hl_gauss, two_hot

share = st.floats(0.0, 1.0, width=32)


def test_atoms_span_the_range_and_hl_gauss_a_margin_beyond() -> None:
    assert atoms("c51", 0.0, 1.0, 11).tolist() == pytest.approx(np.linspace(0, 1, 11).tolist())
    support = atoms("hl_gauss", -1.0, 3.0, 51)
    width = float(support[1] - support[0])
    assert float(support[0]) == pytest.approx(-1.0 - 2.25 * width, abs=1e-5)
    assert float(support[-1]) == pytest.approx(3.0 + 2.25 * width, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(share, st.sampled_from([11, 51]))
def test_hl_gauss_keeps_the_mean_even_at_the_ends_of_the_range(value: float, count: int) -> None:
    support = atoms("hl_gauss", 0.0, 1.0, count)
    probabilities = hl_gauss(torch.tensor(value), support)
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(probabilities.min()) >= 0.0
    assert float((probabilities * support).sum()) == pytest.approx(value, abs=0.02 / count)


def test_hl_gauss_by_hand() -> None:
    # Bins of width 1 around 0 … 4, deviation 0.75, target on the middle: P(bin k) = Φ((k+½)/.75) − Φ((k−½)/.75).
    probabilities = hl_gauss(torch.tensor(2.0), torch.arange(5.0))
    total = 0.99914  # Φ(2.5 / .75) − Φ(−2.5 / .75)
    assert probabilities.tolist() == pytest.approx(np.array([0.0223, 0.2297, 0.4950, 0.2297, 0.0223]) / total, abs=1e-3)


@settings(max_examples=80, deadline=None)
@given(st.lists(share, min_size=6, max_size=6), share, share)
def test_c51_projection_equals_its_definition(mass: list[float], known: float, discount: float) -> None:
    support = np.linspace(0.0, 1.0, 6)
    probabilities = (np.array(mass) + 1e-3) / (np.sum(mass) + 6e-3)
    expected = np.zeros(6)
    for p, z in zip(probabilities, support, strict=True):
        place = np.clip(known + discount * z, 0.0, 1.0) / 0.2
        for j in range(6):
            expected[j] += p * max(0.0, 1.0 - abs(place - j))
    found = categorical_projection(
        torch.tensor(known), torch.tensor(discount), torch.tensor(probabilities, dtype=torch.float32),
        torch.tensor(support, dtype=torch.float32),
    )
    assert found.numpy() == pytest.approx(expected, abs=1e-5)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)
    if known + discount <= 1.0:  # nothing is cut off
        mean = known + discount * float(probabilities @ support)
        assert float((found * torch.tensor(support)).sum()) == pytest.approx(mean, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(share)
def test_a_certain_value_lies_on_its_two_neighbours(value: float) -> None:
    support = atoms("c51", 0.0, 1.0, 11)
    found = two_hot(torch.tensor([value]), support)[0]
    assert int((found > 1e-6).sum()) <= 2
    assert float((found * support).sum()) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("kind", ["masked_mlp", "transformer"])
@pytest.mark.parametrize("head", ["hl_gauss", "c51"])
def test_distributional_critic_is_causal_and_stays_in_its_range(kind: str, head: str) -> None:
    torch.manual_seed(0)
    critic = make_critic(6, 4, 2, CriticConfig(kind=kind, width=8, head=head, atoms=21))
    critic.set_range(-1.0, 2.0)
    embedding, chunk = torch.randn(3, 6), torch.randn(3, 2, 4, 2)
    logits = critic.logits(embedding, chunk)
    assert logits.shape == (2, 3, 2, 4, 21)
    values = critic(embedding, chunk)
    assert torch.allclose(values, expectation(logits, critic.support))
    assert float(critic.support[0]) <= -1.0 and float(critic.support[-1]) >= 2.0
    later = chunk.clone()
    later[:, :, 2:] += 1.0
    difference = (critic(embedding, later) - values).abs().amax((0, 1, 2))
    assert torch.all(difference[:2] < 1e-6) and torch.all(difference[2:] > 1e-7)


@pytest.mark.parametrize("kind", ["masked_mlp", "transformer"])
def test_critic_without_prefixes_values_the_whole_chunk_once(kind: str) -> None:
    torch.manual_seed(0)
    critic = make_critic(6, 4, 2, CriticConfig(kind=kind, width=8, prefixes=False))
    embedding, chunk = torch.randn(3, 6), torch.randn(3, 2, 4, 2)
    assert critic.lengths == (4,) and critic(embedding, chunk).shape == (2, 3, 2, 1)
    for i in range(4):
        changed = chunk.clone()
        changed[:, :, i] += 1.0
        assert bool((critic(embedding, changed) != critic(embedding, chunk)).all())


def test_critic_of_a_shorter_horizon_ignores_later_actions() -> None:
    critic = make_critic(6, 4, 2, CriticConfig(width=8, horizon=1))
    embedding, chunk = torch.randn(3, 6), torch.randn(3, 2, 4, 2)
    changed = chunk.clone()
    changed[:, :, 1:] += 1.0
    assert critic.lengths == (1,) and torch.equal(critic(embedding, chunk), critic(embedding, changed))
