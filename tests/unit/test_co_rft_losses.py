"""Losses of both stages by hand-computed values, and prefix values against dynamic programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corft_core.data.chunks import build_chunks
from corft_core.learning.co_rft import actor_loss, advantage_weights, conservative_loss, shared_targets, td_loss
from corft_core.policy.config import CriticConfig
from corft_core.policy.critic import make_critic
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


def test_prefix_values_equal_dynamic_programming_on_a_chain() -> None:
    # States 0 … 4, action +1 advances, −1 stays; reaching 5 ends the task. The policy to evaluate always advances.
    gamma, horizon, length = 0.8, 3, 5
    rng = np.random.default_rng(0)
    states, actions, owner, done = [], [], [], []
    for number in range(60):
        state = int(rng.integers(length))
        while state < length:
            advance = bool(rng.random() < 0.6)
            states.append(state)
            actions.append([1.0 if advance else -1.0])
            owner.append(number)
            state += advance
            done.append(state == length)
    position = np.array(states)
    ends = np.array(done)
    table = build_chunks(np.array(owner), np.array(actions), ends.astype(float), ends, horizon, gamma)
    truth = table.targets(gamma ** (length - 1.0 - position))  # V of the advancing policy, by dynamic programming

    torch.manual_seed(0)
    critic = make_critic(length, horizon, 1, CriticConfig(ensemble=2, width=16))
    optimiser = torch.optim.Adam(critic.parameters(), 5e-3)
    _, rows = np.unique(np.column_stack([position, table.action[:, :, 0]]), axis=0, return_index=True)
    embedding = torch.eye(length)[position]
    chunk = torch.from_numpy(table.action[rows])[:, None]
    advancing = torch.ones(length, 1, horizon, 1)
    valid = torch.from_numpy(table.target_valid[rows])
    targets = torch.from_numpy(table.targets(table.mc_return)[rows]).float()
    for step in range(900):
        if step % 50 == 0 and step:
            with torch.no_grad():
                value = critic(torch.eye(length), advancing)[:, :, 0, -1].amin(0).clamp(0, 1)
            targets = torch.from_numpy(table.targets(value.double().numpy()[position])[rows]).float()
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / 900)
        loss, _ = td_loss(critic(embedding[rows], chunk)[:, :, 0], targets, valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        q = critic(embedding[rows], chunk)[:, :, 0].mean(0).numpy()
    assert np.abs(q - truth[rows])[table.target_valid[rows]].max() < 1e-2
