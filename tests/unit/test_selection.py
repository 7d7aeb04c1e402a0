"""Choosing a chunk at run time: ranking, gradient, adaptive length, determinism."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learning_data import small_config

from corft_core.policy.actor import Actor, Critic, Observation, Shapes
from corft_core.policy.config import PolicyConfig, SelectionConfig
from corft_core.policy.critic import rank_chunks
from corft_core.policy.options import ConfigError, override
from corft_core.policy.selection import Choice, agreed_steps, choose_chunk


def networks(**pairs: object) -> tuple[Actor, Critic, Observation]:
    torch.manual_seed(0)
    config = small_config(policy__backbone="none", policy__backbone_options={}, **pairs).policy
    shapes = Shapes(cameras=0, vision_shape=(0, 0), text_dim=0, state_dim=3, action_dim=2)
    observation = Observation(torch.zeros(4, 0, 0, 0), torch.zeros(4, 0), torch.randn(4, 3))
    return Actor(shapes, config).eval(), Critic(shapes, config).eval(), observation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def choose(actor: Actor, critic: Critic | None, observation: Observation, selection: SelectionConfig) -> Choice:
    with torch.inference_mode():  # as in Policy.act
        return choose_chunk(actor, critic, observation, selection, generator())


@pytest.mark.parametrize("rank", ["last", "mean"])
def test_best_of_n_takes_the_highest_score_and_repeats_with_the_generator(rank: str) -> None:
    actor, critic, observation = networks()
    selection = SelectionConfig(samples=16, rank=rank, noise_scale=1.0)
    first, again = (choose(actor, critic, observation, selection) for _ in range(2))
    assert torch.equal(first.chunk, again.chunk) and torch.equal(first.value, again.value)
    with torch.inference_mode():
        drawn = actor.sample(observation, 16, generator())
        scores = rank_chunks(critic(critic.embed(observation), drawn), rank)
    assert torch.equal(first.chunk, drawn[torch.arange(4), scores.argmax(1)])
    assert torch.equal(first.value, scores.amax(1)) and bool(first.steps.isnan().all())


def test_of_equal_scores_the_first_drawn_chunk_wins() -> None:
    actor, critic, observation = networks()
    torch.nn.init.zeros_(critic.values.out)
    chosen = choose(actor, critic, observation, SelectionConfig(samples=8, noise_scale=1.0))
    assert torch.equal(chosen.chunk, actor.sample(observation, 8, generator())[:, 0])


def test_without_a_critic_one_chunk_is_drawn() -> None:
    actor, _, observation = networks()
    chosen = choose(actor, None, observation, SelectionConfig(samples=8, noise_scale=1.0))
    assert torch.equal(chosen.chunk, actor.sample(observation, 1, generator())[:, 0])
    assert bool(chosen.value.isnan().all()) and bool(chosen.steps.isnan().all())


def test_less_noise_draws_chunks_nearer_to_each_other() -> None:
    actor, _, observation = networks()
    with torch.inference_mode():
        spread = [float(actor.sample(observation, 64, generator(), noise_scale=scale).std(1).mean())
                  for scale in (0.0, 0.3, 1.0)]
    assert spread[0] == 0.0 < spread[1] < spread[2]
    few, many = (choose(actor, None, observation, SelectionConfig(noise_scale=scale)).chunk for scale in (0.0, 1.0))
    with torch.inference_mode():
        assert torch.equal(few, actor.sample(observation, 1, noise_scale=0.0)[:, 0]) and not torch.equal(few, many)


@pytest.mark.parametrize("kind", ["flow", "chunk"])
def test_run_time_gradient_raises_the_score_by_steps_of_the_given_size(kind: str) -> None:
    actor, critic, observation = networks(policy__head__kind=kind)
    plain = SelectionConfig(samples=4)
    before = choose(actor, critic, observation, plain)
    climbing = replace(plain, gradient_steps=1, gradient_step_size=0.01)
    after = choose(actor, critic, observation, climbing)
    assert bool((after.value > before.value).all())
    assert (after.chunk - before.chunk).square().mean((1, 2)).sqrt().tolist() == pytest.approx([0.01] * 4, rel=1e-3)
    further = choose(actor, critic, observation, replace(climbing, gradient_steps=5))
    assert bool((further.value > after.value).all())


def test_run_time_gradient_leaves_actions_that_the_critic_does_not_read() -> None:
    actor, critic, observation = networks(policy__critic__horizon=1)
    plain = SelectionConfig(samples=4)
    before = choose(actor, critic, observation, plain).chunk
    after = choose(actor, critic, observation, replace(plain, gradient_steps=2)).chunk
    assert not torch.equal(after[:, 0], before[:, 0]) and torch.equal(after[:, 1:], before[:, 1:])


def test_adaptive_length_by_hand() -> None:
    # Two critics, three prefixes of 1, 2, 3 steps, two chunks; chunk 0 was chosen. Advantage: half the difference.
    def values(first: list[float], second: list[float]) -> torch.Tensor:
        return torch.tensor([[[advantage, [0.0] * 3]] for advantage in (first, second)])

    chosen = torch.tensor([0])
    assert agreed_steps(values([0.1, 0.2, 0.3], [0.1, 0.1, 0.1]), chosen, (1, 2, 3)).tolist() == [3.0]
    assert agreed_steps(values([0.1, 0.2, 0.3], [0.1, 0.1, -0.1]), chosen, (1, 2, 3)).tolist() == [2.0]
    assert agreed_steps(values([0.1, 0.2, 0.3], [-0.1, -0.1, -0.1]), chosen, (1, 2, 3)).isnan().all()
    assert agreed_steps(values([0.1, 0.2, 0.3], [0.1, 0.1, -0.1]), chosen, (2, 4, 6)).tolist() == [4.0]


def test_adaptive_length_does_not_depend_on_the_bias_of_a_prefix_head() -> None:
    torch.manual_seed(0)
    values, chosen = torch.randn(2, 6, 5, 4), torch.randint(5, (6,))
    biased = values + torch.tensor([0.0, 5.0, -5.0, 1.0])
    found = agreed_steps(values, chosen, (1, 2, 3, 4))
    assert torch.equal(found.nan_to_num(0), agreed_steps(biased, chosen, (1, 2, 3, 4)).nan_to_num(0))


def test_adaptive_length_needs_several_chunks() -> None:
    actor, critic, observation = networks(policy__head__kind="chunk")
    assert choose(actor, critic, observation, SelectionConfig(adaptive=True)).steps.isnan().all()
    actor, critic, observation = networks()
    steps = choose(actor, critic, observation, SelectionConfig(adaptive=True)).steps
    assert bool((steps.isnan() | ((steps >= 1) & (steps <= 3))).all()) and not bool(steps.isnan().all())


def test_a_critic_cannot_read_more_actions_than_a_chunk_has() -> None:
    with pytest.raises(ConfigError, match=r"policy.critic.horizon = 11"):
        override(PolicyConfig, {}, {"critic.horizon": 11})
