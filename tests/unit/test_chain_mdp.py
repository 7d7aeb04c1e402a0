"""Stage 2 as a whole against dynamic programming on a chain of five states (tests/chain_mdp.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chain_mdp import HORIZON, LENGTH, Chain, chain_config, chain_stage, make_chain, run

from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.policy.actor import Actor, Observation


def largest_error(stage: CoRFTStage, chain: Chain, truth: np.ndarray | None = None) -> float:
    """Largest error of a learned prefix value on recorded chunks, against `truth` (N, H), else the targets of the true
    values."""
    columns = [length - 1 for length in stage.critic.critic.values.lengths]
    truth = (chain.table.targets(chain.advancing_values) if truth is None else truth)[:, columns]
    q = stage.table_values(chain.frames.samples.actions[:, None])[:, :, 0].mean(0).numpy()
    return float(np.abs(q - truth)[chain.table.target_valid[:, columns]].max())


def test_the_scalar_critic_learns_the_prefix_values() -> None:
    chain = make_chain(200)
    stage = chain_stage(chain, chain_config(co_rft__alpha=0.0, co_rft__actor_steps=0))
    run(stage)
    assert largest_error(stage, chain) < 1e-2


FASTER = {"co_rft__lr": 3e-3, "co_rft__steps": 500, "co_rft__refresh": 25, "policy__critic__width": 16}
DISTRIBUTIONAL = {"co_rft__lr": 2e-3}


@pytest.mark.parametrize("pairs", [
    FASTER | {"co_rft__target_source": "network", "co_rft__tau": 0.05},
    FASTER | {"policy__critic__horizon": 1},
    FASTER | {"policy__critic__prefixes": False},
    DISTRIBUTIONAL | {"policy__critic__head": "hl_gauss"},
    DISTRIBUTIONAL | {"policy__critic__head": "c51"},
], ids=["target networks", "one step", "whole chunk", "HL-Gauss", "C51"])
def test_other_critics_and_targets_learn_the_same_values(pairs: dict[str, object]) -> None:
    chain = make_chain(60)
    stage = chain_stage(chain, chain_config(co_rft__alpha=0.0, co_rft__actor_steps=0, **pairs))
    run(stage)
    assert largest_error(stage, chain) < 1e-2


EVEN = {"threads": 1, "co_rft__lr": 3e-3, "co_rft__refresh": 10, "co_rft__alpha": 0.0, "co_rft__actor_steps": 0}
"""With every distinct chunk trained on equally often, the rare ones are learned as quickly as the others."""


def even_stage(chain: Chain, **pairs: object) -> CoRFTStage:
    return chain_stage(chain, chain_config(**EVEN | pairs), rows=chain.distinct)


def test_transformer_critic_learns_the_prefix_values() -> None:
    chain = make_chain(60)
    stage = even_stage(chain, policy__critic__kind="transformer", policy__critic__width=32, co_rft__lr=2e-3,
                       co_rft__steps=700, co_rft__batch=64)
    run(stage, settle=0.1)
    assert largest_error(stage, chain) < 1e-2


def test_shared_targets_teach_the_mean_of_the_whole_chunks_value() -> None:
    chain = make_chain(60)
    stage = even_stage(chain, policy__critic__width=16, co_rft__targets="shared", co_rft__steps=600)
    run(stage, settle=0.3)
    truth = chain.shared_values(chain.distinct)
    assert np.abs(truth - chain.table.targets(chain.advancing_values)).max() > 0.05, "the definitions differ here"
    assert largest_error(stage, chain, truth) < 1e-2


def test_prefix_values_that_bootstrap_from_the_expectile_value_are_those_of_value_iteration() -> None:
    chain = make_chain(60)
    stage = even_stage(chain, policy__encoder__embedding=64, policy__critic__width=32, co_rft__value="iql",
                       co_rft__expectile=0.7, co_rft__steps=900, co_rft__batch=256)
    run(stage, settle=0.5)
    value = chain.expectile_values(chain.distinct, 0.7)
    assert np.abs(value - chain.advancing_values).max() > 0.05, "not the policy's own value"
    assert largest_error(stage, chain, chain.table.targets(value)) < 1e-2


def test_value_without_an_action_critic_is_the_operators_own() -> None:
    chain = make_chain(300)
    stage = chain_stage(chain, chain_config(co_rft__advantage="value", co_rft__steps=300, co_rft__lr=2e-3,
                                            co_rft__actor_steps=0, co_rft__refresh=20))
    run(stage)
    assert stage.critic.state_value is not None and stage.run_time_critic is None
    with torch.no_grad():
        value = stage.critic.state_value(stage.critic.embedding).numpy()
    empirical = [chain.table.mc_return[chain.state == s].mean() for s in range(5)]
    found = [value[chain.state == s].mean() for s in range(5)]
    assert found == pytest.approx(empirical, abs=0.05)
    assert np.unique(chain.behaviour_values) == pytest.approx(np.array(empirical), abs=0.05)


def test_expectile_value_lies_between_the_operators_and_the_best() -> None:
    chain = make_chain(100)
    stage = chain_stage(chain, chain_config(
        co_rft__value="iql", co_rft__expectile=0.9, co_rft__alpha=0.0, co_rft__actor_steps=0, **FASTER,
    ))
    run(stage)
    assert stage.critic.state_value is not None
    with torch.no_grad():
        value = stage.critic.state_value(stage.critic.embedding).numpy()
    found = np.array([value[chain.state == s].mean() for s in range(5)])
    behaviour, best = np.unique(chain.behaviour_values), np.unique(chain.advancing_values)
    assert np.all(found > behaviour + 0.01) and np.all(found < best + 0.03)


@pytest.mark.parametrize(("pairs", "kind"), [
    ({}, "critic"), ({"co_rft__value": "iql"}, "iql"), ({"co_rft__advantage": "value"}, "value"),
    ({"co_rft__advantage": "value", "co_rft__value": "mc"}, "mc"),
])
def test_advantage_prefers_advancing_to_staying(pairs: dict[str, object], kind: str) -> None:
    chain = make_chain(60)
    stage = chain_stage(chain, chain_config(
        co_rft__actor_steps=0, co_rft__lr=3e-3, co_rft__steps=200, co_rft__alpha=0.0, policy__critic__width=16, **pairs,
    ))
    run(stage)
    advantage = stage.critic.advantages().numpy()
    steps = chain.table.action[:, :, 0]
    inside = chain.state <= 2  # the whole chunk can be walked
    quick, slow = inside & (steps.sum(1) == 3), inside & (steps.sum(1) <= -1)
    assert advantage[quick].mean() > advantage[slow].mean() + 0.05, kind


def advancing_share(actor: Actor) -> float:
    """Share of its chunks' steps that advance (+1) and do not stay (−1), in states from which a chunk can be walked."""
    state = torch.eye(LENGTH)[: LENGTH - HORIZON + 1]
    observation = Observation(torch.zeros(len(state), 0, 0, 0), torch.zeros(len(state), 0), state)
    with torch.no_grad():
        chunks = actor.eval().sample(observation, 64)
    return float(((1.0 + chunks[..., 0]) / 2.0).clamp(0.0, 1.0).mean())


@pytest.mark.parametrize(("extraction", "head"), [("awr", "flow"), ("weighted_anchor", "chunk")])
def test_the_actor_advances_more_often_than_the_operator_it_imitated(extraction: str, head: str) -> None:
    chain = make_chain(60)
    pairs = FASTER | {"policy__head__kind": head, "co_rft__steps": 300, "co_rft__alpha": 0.0, "co_rft__actor_lr": 3e-3,
                      "co_rft__actor_steps": 200}
    imitation = chain_stage(chain, chain_config(**pairs | {"co_rft__extraction": "imitation"}), advancing=False)
    run(imitation)
    operator = advancing_share(imitation.extraction.actor)
    assert operator == pytest.approx(0.6, abs=0.15)
    stage = chain_stage(
        chain, chain_config(**pairs | {"co_rft__extraction": extraction}), imitator=imitation.extraction.actor
    )
    run(stage)
    assert advancing_share(stage.extraction.actor) > operator + 0.15
