"""Losses and targets of both stages by hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corft_core.data.chunks import build_chunks
from corft_core.learning.co_rft import (
    actor_loss,
    advantage_weights,
    chunked_targets,
    conservative_loss,
    distributional_td_loss,
    expectile_loss,
    policy_advantage,
    shared_targets,
    smoothed,
    state_distribution,
    state_value,
    td_loss,
)
from corft_core.learning.targets import PrefixTable
from corft_core.policy.heads import masked_chunk_mean


def test_imitation_error_by_hand_ignores_padding() -> None:
    squared = torch.tensor([[[1.0, 3.0], [100.0, 100.0]], [[2.0, 2.0], [4.0, 8.0]]])  # (2, H 2, A 2)
    valid = torch.tensor([[True, False], [True, True]])
    assert masked_chunk_mean(squared, valid).tolist() == [2.0, 4.0]


def test_td_loss_by_hand() -> None:
    q = torch.tensor([[[1.0, 0.0]], [[0.0, 9.0]]])  # K 2, B 1, H 2
    loss, info = td_loss(q, torch.tensor([[0.5, 1.0]]), torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx(0.25)  # ((1 − .5)² + (0 − .5)²) / 2; the second prefix has no target
    assert info["target"] == pytest.approx(0.5)


def test_calibrated_term_by_hand() -> None:
    q_data = torch.tensor([[[0.4, 0.6]]])
    q_policy = torch.tensor([[[[0.1, 0.9], [0.7, 0.3]]]])  # two policy chunks
    v_mu, valid = torch.tensor([0.5]), torch.ones(1, 2, dtype=torch.bool)
    # prefix 1: mean(max(.1, .5), max(.7, .5)) − .4 = .2; prefix 2: mean(.9, .5) − .6 = .1
    loss, info = conservative_loss(q_data, q_policy, v_mu, valid)
    assert float(loss) == pytest.approx(0.15)
    assert info["bounded_share"] == pytest.approx(0.5)
    plain, _ = conservative_loss(q_data, q_policy, v_mu, valid, calibrated=False)
    assert float(plain) == pytest.approx(((0.4 - 0.4) + (0.6 - 0.6)) / 2, abs=1e-6)


def test_logsumexp_form_bounds_policy_chunks_only() -> None:
    q_data = torch.zeros(1, 1, 1)
    q_policy, q_random = torch.full((1, 1, 1, 1), -3.0), torch.full((1, 1, 1, 1), -2.0)
    loss, _ = conservative_loss(
        q_data, q_policy, torch.tensor([0.5]), torch.ones(1, 1, dtype=torch.bool), True, "logsumexp", q_random
    )
    assert float(loss) == pytest.approx(math.log((math.exp(0.5) + math.exp(-2.0)) / 2))


def test_shared_targets_use_the_longest_prefix() -> None:
    targets, valid = shared_targets(torch.tensor([[0.1, 0.9]]), torch.tensor([[True, False]]))
    assert targets.tolist() == [[pytest.approx(0.9), pytest.approx(0.9)]]
    assert valid.tolist() == [[False, False]]


def test_actor_losses_by_hand() -> None:
    q, imitation, weight = torch.tensor([[0.2, 0.6]]), torch.tensor([2.0]), torch.tensor([0.5])
    assert float(actor_loss(q, imitation, "paper")[0]) == pytest.approx(-0.4)
    assert float(actor_loss(q, imitation, "anchored", 0.1)[0]) == pytest.approx(2.0 - 0.1)
    assert float(actor_loss(q, imitation, "weighted_anchor", 0.1, weight)[0]) == pytest.approx(1.0 - 0.1)


def test_advantage_weights_by_hand() -> None:
    advantage = torch.tensor([-1.0, 0.0, 1.0])  # deviation 1
    weight = advantage_weights(advantage, 2.0)
    assert (weight / weight[1]).tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(2)])
    assert float(weight.mean()) == pytest.approx(1.0)
    extreme = advantage_weights(torch.tensor([-1.0, 0.0, 1.0]), 100.0)
    assert float(extreme[2] / extreme[0]) == pytest.approx(math.exp(9), rel=1e-4)


def test_targets_of_a_success_and_of_a_truncation_by_hand() -> None:
    # Three steps, γ = 0.5, V = .3, .4, .6; the last step succeeds in one episode and is merely the last in the other.
    for success, expected, valid in (
        (True, [[0.2, 0.15], [0.3, 0.5], [1.0, 1.0]], [[True, True]] * 3),
        (False, [[0.2, 0.15], [0.3, 0.0], [0.0, 0.0]], [[True, True], [True, False], [False, False]]),
    ):
        done = np.array([False, False, success])
        table = build_chunks(np.zeros(3, int), np.zeros((3, 1)), done.astype(float), done, 2, 0.5)
        prefixes = PrefixTable.build(table, (1, 2), torch.device("cpu"))
        value = torch.tensor([0.3, 0.4, 0.6])
        targets = chunked_targets(
            prefixes.known_return, prefixes.discount, value[prefixes.following], prefixes.valid
        )
        assert targets.numpy() == pytest.approx(np.array(expected))
        assert prefixes.valid.tolist() == valid
        assert targets.numpy() == pytest.approx(table.targets(value.numpy())), "one equation, two places"


def test_targets_of_a_whole_chunk_critic_are_those_of_the_last_prefix() -> None:
    done = np.array([False, False, False, True])
    table = build_chunks(np.zeros(4, int), np.zeros((4, 1)), done.astype(float), done, 3, 0.5)
    every, last = (PrefixTable.build(table, lengths, torch.device("cpu")) for lengths in ((1, 2, 3), (3,)))
    assert torch.equal(every.known_return[:, -1:], last.known_return)
    assert torch.equal(every.discount[:, -1:], last.discount)
    assert torch.equal(every.longest, torch.full((4,), 2)) and torch.equal(last.longest, torch.zeros(4).long())


def test_longest_prefix_of_a_truncated_tail_ends_at_the_last_observation() -> None:
    table = build_chunks(np.zeros(4, int), np.zeros((4, 1)), np.zeros(4), np.zeros(4, bool), 3, 0.5)
    assert PrefixTable.build(table, (1, 2, 3), torch.device("cpu")).longest.tolist() == [2, 1, 0, 0]


def test_state_value_is_pessimistic_over_critics_and_mean_or_best_over_chunks() -> None:
    q = torch.tensor([[[0.2, 0.8]], [[0.4, 0.6]]])  # K 2, B 1, n 2 → smallest .2, .6
    assert float(state_value(q, "mean")) == pytest.approx(0.4)
    assert float(state_value(q, "max")) == pytest.approx(0.6)


@pytest.mark.parametrize("bootstrap", ["mean", "max"])
def test_state_distribution_has_the_state_value_as_its_mean(bootstrap: str) -> None:
    torch.manual_seed(0)
    support = torch.linspace(0, 1, 7)
    probabilities = torch.randn(3, 5, 4, 7).softmax(-1)
    q = (probabilities * support).sum(-1)
    mixed = state_distribution(q, probabilities, bootstrap)
    assert mixed.sum(-1).tolist() == pytest.approx([1.0] * 5)
    assert torch.allclose((mixed * support).sum(-1), state_value(q, bootstrap), atol=1e-6)


def test_smoothing_noise_is_clipped_and_can_be_off() -> None:
    torch.manual_seed(0)
    chunk = torch.zeros(50, 1, 4, 2)
    moved = smoothed(chunk, 0.2, 0.5)
    assert 0.15 < float(moved.std()) < 0.25 and float(moved.abs().max()) <= 0.5
    assert float(smoothed(chunk, 10.0, 0.5).abs().min()) > 0.0 and float(smoothed(chunk, 10.0, 0.5).abs().max()) == 0.5
    assert smoothed(chunk, 0.0, 0.5) is chunk


def test_conservative_bound_on_all_chunks_holds_random_ones_too() -> None:
    q_data = torch.zeros(1, 1, 1)
    q_policy, q_random = torch.full((1, 1, 1, 1), -3.0), torch.full((1, 1, 1, 1), -2.0)
    v_mu, valid = torch.tensor([0.5]), torch.ones(1, 1, dtype=torch.bool)
    bounded, _ = conservative_loss(q_data, q_policy, v_mu, valid, True, "logsumexp", q_random, "all")
    assert float(bounded) == pytest.approx(0.5)
    plain, _ = conservative_loss(q_data, q_policy, v_mu, valid, False, "logsumexp", q_random, "all")
    assert float(plain) == pytest.approx(math.log((math.exp(-3.0) + math.exp(-2.0)) / 2))


def test_conservative_term_ignores_prefixes_without_a_target() -> None:
    q_data, q_policy = torch.tensor([[[0.2, 7.0]]]), torch.tensor([[[[0.6, -5.0]]]])
    loss, _ = conservative_loss(q_data, q_policy, torch.tensor([0.0]), torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx(0.4)


def test_expectile_loss_by_hand_and_its_minimum() -> None:
    target, value = torch.tensor([1.0, 0.0, 9.0]), torch.full((3,), 0.5)
    valid = torch.tensor([True, True, False])
    assert float(expectile_loss(target, value, 0.7, valid)[0]) == pytest.approx((0.7 * 0.25 + 0.3 * 0.25) / 2)
    assert float(expectile_loss(target, value, 0.5, valid)[0]) == pytest.approx(0.5 * 0.25)
    # The τ-expectile m of {0, 1} solves τ (1 − m) = (1 − τ) m, so m = τ.
    for expectile in (0.5, 0.7, 0.9):
        learned = torch.tensor(0.2, requires_grad=True)
        optimiser = torch.optim.SGD([learned], 0.5)
        for _ in range(200):
            optimiser.zero_grad()
            expectile_loss(torch.tensor([0.0, 1.0]), learned.expand(2), expectile, valid[:2])[0].backward()
            optimiser.step()
        assert float(learned.detach()) == pytest.approx(expectile, abs=1e-3)


def test_distributional_loss_is_zero_when_perfect_and_log_m_when_uniform() -> None:
    certain = torch.eye(4)[2].expand(1, 2, 4)  # B 1, P 2, M 4
    uniform = torch.zeros(1, 1, 2, 4)
    valid = torch.tensor([[True, False]])
    assert float(distributional_td_loss(uniform, certain, valid)[0]) == pytest.approx(math.log(4))
    smeared = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
    assert float(distributional_td_loss(smeared.log()[None], smeared, valid[:, :1])[0]) == pytest.approx(0.0, abs=1e-6)


def test_policy_advantage_by_hand_subtracts_equal_lengths_over_recorded_steps() -> None:
    q_data = torch.tensor([[[0.5, 0.9]]])
    q_policy = torch.tensor([[[[0.1, 0.3], [0.3, 0.5]]]])  # means .2, .4
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert float(policy_advantage(q_data, q_policy, both)) == pytest.approx(0.4)
    assert float(policy_advantage(q_data, q_policy, first)) == pytest.approx(0.3)


def test_anchored_loss_does_not_depend_on_the_scale_of_values() -> None:
    q, imitation = torch.tensor([[0.2, 0.6], [0.1, 0.3]]), torch.tensor([2.0, 1.0])
    small, large = (float(actor_loss(scale * q, imitation, "anchored", 2.5)[0]) for scale in (0.01, 100.0))
    assert small == pytest.approx(large) and small == pytest.approx(1.5 - 2.5)
