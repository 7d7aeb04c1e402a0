"""Stage 2: every switch trains and resumes bit for bit; sharing of critics; what each extraction moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from chain_mdp import Chain, chain_config, chain_stage, make_chain, run

from corft_core.learning.co_rft_stage import CoRFTStage, critic_settings
from corft_core.learning.loop import Diverged
from corft_core.learning.optim import draw_batch
from corft_core.policy.options import ConfigError

FLOW = {"policy__head__kind": "flow"}
SWITCHES: dict[str, dict[str, Any]] = {
    "imitation": {"co_rft__extraction": "imitation"},
    "awr": {},
    "awr, flow": FLOW,
    "best of n": FLOW | {"co_rft__extraction": "best_of_n"},
    "paper": {"co_rft__extraction": "paper"},
    "weighted anchor": {"co_rft__extraction": "weighted_anchor"},
    "V only, TD": {"co_rft__advantage": "value"},
    "V only, returns": {"co_rft__advantage": "value", "co_rft__value": "mc"},
    "V only, expectile": {"co_rft__advantage": "value", "co_rft__value": "iql", "co_rft__expectile": 0.9},
    "IQL": {"co_rft__value": "iql", "policy__critic__horizon": 1, "co_rft__target_source": "network"},
    "returns": {"co_rft__value": "mc", "co_rft__target_source": "network"},
    "TD3+BC": {
        "co_rft__extraction": "anchored", "policy__critic__horizon": 1, "co_rft__target_source": "network",
        "co_rft__target_noise": 0.2, "co_rft__policy_delay": 2, "co_rft__q_weight": 2.5, "co_rft__alpha": 0.0,
    },
    "Q-chunking": FLOW | {
        "co_rft__extraction": "best_of_n", "policy__critic__prefixes": False, "co_rft__bootstrap": "max",
        "co_rft__target_source": "network", "co_rft__alpha": 0.0,
    },
    "shared targets, log-sum-exp": {"co_rft__targets": "shared", "co_rft__conservative": "logsumexp"},
    "bound on all": {"co_rft__conservative": "logsumexp", "co_rft__bound": "all"},
    "not calibrated, not clipped": {"co_rft__calibrated": False, "co_rft__clip_targets": False},
    "C51 networks": FLOW | {"policy__critic__head": "c51", "co_rft__target_source": "network"},
    "C51 table": {"policy__critic__head": "c51", "co_rft__targets": "shared"},
    "HL-Gauss IQL": {"policy__critic__head": "hl_gauss", "co_rft__value": "iql"},
    "transformer, five, encoder": {
        "policy__critic__kind": "transformer", "policy__critic__ensemble": 5, "co_rft__train_encoder": True,
    },
}


@pytest.fixture(scope="module")
def chain() -> Chain:
    return make_chain(12, failures=3)


def small_stage(chain: Chain, **pairs: Any) -> CoRFTStage:
    base = {
        "co_rft__steps": 10, "co_rft__warmup": 4, "co_rft__refresh": 3, "co_rft__actor_steps": 6, "co_rft__batch": 8,
        "policy__critic__width": 8, "policy__head__flow_steps": 2, "sft__ema": 0.9,
    }
    return chain_stage(chain, chain_config(**(base | pairs)), advancing=False)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_resumes_bit_for_bit(name: str, chain: Chain) -> None:
    whole = small_stage(chain, **SWITCHES[name])
    before = {k: v.clone() for k, v in whole.tensors().items()}
    middle: dict[int, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {}
    for step in range(whole.steps):
        if step in (5, whole.steps - 2):
            middle[step] = ({k: v.clone() for k, v in whole.tensors().items()}, copy.deepcopy(whole.extra()))
        whole.step(step)
    for start, (tensors, extra) in middle.items():
        resumed = small_stage(chain, **SWITCHES[name])
        resumed.load(tensors, extra)
        for step in range(start, whole.steps):
            resumed.step(step)
        expected, found = whole.tensors(), resumed.tensors()
        assert expected.keys() == found.keys()
        different = [key for key in expected if not torch.equal(expected[key], found[key])]
        assert not different, f"resumed at {start}"
    after = whole.tensors()
    moved = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    settings = whole.settings
    assert ("actor" in moved) == (settings.extraction != "best_of_n")
    assert ("critic" in moved) == (settings.extraction != "imitation" and settings.advantage == "critic")
    assert ("state_value" in moved) == (settings.advantage == "value" or settings.value == "iql")
    assert (whole.run_time_critic is not None) == ("critic" in moved)


def test_delayed_actor_moves_once_every_so_many_critic_steps(chain: Chain) -> None:
    stage = small_stage(chain, co_rft__extraction="anchored", co_rft__policy_delay=2)
    updates = []
    for step in range(stage.steps):
        stage.step(step)
        updates.append(stage.extraction.updates)
    assert updates == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3], "after a warm-up of 4"
    spread = small_stage(chain, co_rft__extraction="anchored")
    run(spread)
    assert spread.extraction.updates == 6


def test_target_networks_follow_slowly(chain: Chain) -> None:
    stage = small_stage(chain, co_rft__target_source="network", co_rft__tau=0.25)
    networks = stage.critic.networks
    assert networks is not None
    old = networks.critic.values.state_dict()["out"].clone()
    stage.step(0)
    new = stage.critic.critic.values.state_dict()["out"]
    assert torch.allclose(networks.critic.values.state_dict()["out"], 0.75 * old + 0.25 * new)
    assert not any(p.requires_grad for p in networks.critic.parameters())


def test_targets_are_clipped_to_the_feasible_range_or_left(chain: Chain) -> None:
    for clip in (True, False):
        stage = small_stage(chain, co_rft__clip_targets=clip)
        torch.nn.init.constant_(stage.critic.critic.values.out_bias, 5.0)
        stage.critic.refresh()
        largest = float(stage.critic.targets(torch.arange(len(chain.table))).value.max())
        assert (largest <= 1.0) == clip


@pytest.mark.parametrize("head", ["hl_gauss", "c51"])
def test_a_distributional_critic_without_clipped_targets_is_refused(head: str) -> None:
    with pytest.raises(ConfigError, match=rf"critic\.head = {head} cover .* policy\.critic\.head=scalar"):
        chain_config(policy__critic__head=head, co_rft__clip_targets=False)


def test_an_expectile_value_is_taught_and_read_over_the_encoder_that_belongs_to_it(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = small_stage(chain, co_rft__value="iql", co_rft__target_source="network", co_rft__tau=0.0,
                        co_rft__train_encoder=True, co_rft__lr=1e-2)
    run(stage)
    critic = stage.critic
    assert critic.networks is not None and critic.state_value is not None
    taught: list[tuple[torch.Tensor, torch.Tensor]] = []
    learn = critic._value_loss
    monkeypatch.setattr(critic, "_value_loss", lambda index, embedding, target: (
        taught.append((index, target)), learn(index, embedding, target))[1])
    stage.step(1)
    index, target = taught[0]
    observation, actions = chain.frames.observe(index), chain.frames.samples.actions[index][:, None]
    longest = critic.table.longest[index, None]

    def values(embedding: torch.Tensor) -> torch.Tensor:
        return critic.networks.critic(embedding, actions)[:, :, 0].amin(0).gather(1, longest)[:, 0]

    with torch.no_grad():
        assert torch.allclose(target, values(critic.networks.critic.embed(observation)))
        assert not torch.allclose(target, values(critic.critic.embed(observation)), atol=1e-3)
        following = critic.table.following[index]
        online = critic.state_value(critic.critic.embed(chain.frames.observe(following.flatten())))
    expected = online.clamp(critic.table.low, critic.table.high).view(following.shape)
    assert torch.allclose(critic._following(index).value, expected, atol=1e-6)


@pytest.mark.parametrize(("bias", "alpha", "message"), [
    (3.0, 0.0, r"for recorded chunks, the largest feasible return is 1\.00"),
    (3.0, 0.1, r"for the policy's chunks, the largest feasible return is 1\.00"),
    (-3.0, 0.1, r"for recorded chunks, the smallest feasible return is 0\.00"),
])
def test_values_far_outside_the_feasible_range_raise_the_alarm(
    bias: float, alpha: float, message: str, chain: Chain
) -> None:
    stage = small_stage(chain, co_rft__alpha=alpha)
    torch.nn.init.constant_(stage.critic.critic.values.out_bias, bias)
    with pytest.raises(Diverged, match=message):
        stage.step(0)


@pytest.mark.parametrize("head", ["c51", "hl_gauss"])
def test_a_distributional_critic_that_claims_the_top_of_its_range_everywhere_raises_the_alarm(
    head: str, chain: Chain
) -> None:
    stage = small_stage(chain, policy__critic__head=head)
    stage.step(0)
    with torch.no_grad():
        values = stage.critic.critic.values
        values.out_bias.view(values.ensemble, values.groups, values.atoms)[..., -1] = 20.0
    with pytest.raises(Diverged, match=r"mean value of recorded chunks is (0\.9|1\.).*mean return is 0\.[0-4].*Lower"):
        stage.step(1)
    stage.critic.check_saturation(0.95, 0.6)  # demonstrations that are nearly done everywhere earn such values


def test_an_actor_that_runs_away_from_the_critic_raises_the_alarm(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = small_stage(chain, co_rft__extraction="paper", co_rft__warmup=0)
    follow = stage.extraction.follow
    monkeypatch.setattr(stage.extraction, "follow", lambda critic: follow(critic) | {"actor_q": 2.01})
    with pytest.raises(Diverged, match=r"value of 2\.01 for the actor's chunks"):
        run(stage)


def test_values_near_the_feasible_range_and_low_ones_of_the_policy_raise_no_alarm(chain: Chain) -> None:
    critic = small_stage(chain).critic
    critic.check_range("recorded chunks", 1.9, -0.9)
    critic.check_range("the policy's chunks", -30.0)


def test_imitation_draws_only_what_stage_1_imitated(chain: Chain) -> None:
    stage = small_stage(chain, co_rft__extraction="imitation")
    stage.extraction.imitation_index = torch.tensor([0])
    seen: list[torch.Tensor] = []
    observe = chain.frames.observe
    chain.frames.observe = lambda index, train=False: (seen.append(index), observe(index, train))[1]  # type: ignore[method-assign]
    try:
        run(stage)
    finally:
        del chain.frames.observe
    assert len(seen) == 6 and all(torch.equal(index, torch.zeros(8).long()) for index in seen)


@pytest.mark.parametrize("pairs", [{}, FLOW, {"co_rft__extraction": "weighted_anchor"}])
def test_the_policy_moves_on_its_own_frames_only(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, pairs: dict[str, Any]
) -> None:
    stage = small_stage(chain, **pairs)
    stage.extraction.actor_index = torch.tensor([0, 2])
    drawn: list[torch.Tensor] = []

    def note(index: torch.Tensor, batch: int) -> torch.Tensor:
        drawn.append(draw_batch(index, batch))
        return drawn[-1]

    monkeypatch.setattr("corft_core.learning.extraction.draw_batch", note)
    run(stage)
    assert drawn and set(torch.cat(drawn).tolist()) <= {0, 2}


def test_a_taken_critic_gives_the_same_policy_as_an_own_one(chain: Chain) -> None:
    for pairs in ({}, {"co_rft__value": "iql"}, {"co_rft__advantage": "value"}, {"co_rft__train_encoder": True}, FLOW):
        own = small_stage(chain, **pairs)
        run(own)
        other = small_stage(chain, **pairs)
        start = other.take_critic({k: v.clone() for k, v in own.trained_critic().items()})
        assert start == other.critic_steps == 10
        for step in range(start, other.steps):
            other.step(step)
        for key, value in own.extraction.tensors().items():
            assert torch.equal(value, other.extraction.tensors()[key]), (pairs, key)


def test_critics_are_shared_only_between_runs_that_train_the_same_one() -> None:
    def settings(**pairs: object) -> dict[str, Any] | None:
        return critic_settings(chain_config(**pairs))

    base = settings()
    assert base is not None
    for same in (
        {"co_rft__temperature": 1.0}, {"co_rft__actor_steps": 5}, {"policy__selection__samples": 1},
        {"policy__selection__gradient_steps": 3},
    ):
        assert settings(**same) == base
    assert settings(**FLOW) == settings(**FLOW, co_rft__extraction="best_of_n")
    for different in (
        {"co_rft__alpha": 0.0}, {"co_rft__value": "iql"}, {"policy__critic__horizon": 1}, {"seed": 1},
        {"sft__steps": 7}, {"co_rft__advantage": "value"}, {"co_rft__gamma": 0.9},
    ):
        assert settings(**different) != base
    for extraction in ("imitation", "paper", "anchored", "weighted_anchor"):
        assert settings(co_rft__extraction=extraction) is None


def test_weights_without_an_action_critic_need_regression() -> None:
    with pytest.raises(ConfigError, match="trains no action critic"):
        chain_config(co_rft__advantage="value", co_rft__extraction="weighted_anchor")
