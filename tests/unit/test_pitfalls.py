"""The known pitfalls of chunked offline RL, and the test that pins each.

 1 chunks that cross a terminal lose the reward   test_chunks: reward on the last step at every offset
 2 a fixed γ^h on short prefixes                  test_chunks: short prefix is discounted by its own length
 3 samples that cross episodes                    test_chunks: brute force, no sample crosses (property tests)
 4 truncation treated as terminal                 test_chunks: truncation is not terminal; test_co_rft_losses: by hand
 5 MC return with another γ or scale              test_chunks: return uses the gamma and scale of the targets
 6 Q divergence                                   test_stage2_switches: alarms; targets are clipped
 7 prefix Q that sees later actions               test_policy_networks, test_distribution: causality
 8 Qs of different prefix lengths compared        test_policy_networks: ranking; test_selection: bias of a head
 9 padded actions learned as "freeze"             test_co_rft_losses: padding; test_policy_networks: flow; here
10 statistics of other data, constant dimensions  test_statistics: constant joint, gripper, round trip; here
11 delta actions with absolute statistics         test_statistics: relative actions are measured relative
12 delay estimates that differ from the index     test_execution_steps: elapsed actions are dropped by time
13 checkpoint chosen after seeing the results     here: the last step is what is exported
14 evaluation that cannot be repeated             here: trials repeat with their seed; test_cell: so does a reset
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chain_mdp import chain_config, chain_stage, make_chain, run
from learning_data import small_config, square_data
from point_suite import PointSuite, PointWorld
from safetensors.torch import load_file

from corft_core.evaluation.results import EpisodeResult
from corft_core.evaluation.rollout import run_trials
from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.learning.sft import SFTStage, part
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy, load_checkpoint
from corft_core.policy.config import HeadConfig
from corft_core.policy.heads import make_head

PINNED = {
    1: ("test_chunks", "test_reward_on_the_last_step_is_seen_at_every_offset"),
    2: ("test_chunks", "test_short_prefix_is_discounted_by_its_own_length"),
    3: ("test_chunks", "test_no_sample_crosses_an_episode"),
    4: ("test_chunks", "test_truncation_is_not_terminal"),
    5: ("test_chunks", "test_return_uses_the_gamma_and_scale_of_the_targets"),
    6: ("test_stage2_switches", "test_targets_are_clipped_to_the_feasible_range_or_left"),
    7: ("test_policy_networks", "test_prefix_value_does_not_see_later_actions"),
    8: ("test_selection", "test_adaptive_length_does_not_depend_on_the_bias_of_a_prefix_head"),
    9: ("test_pitfalls", "test_padding_moves_neither_head_nor_weights"),
    10: ("test_pitfalls", "test_statistics_of_held_out_episodes_do_not_leak_in"),
    11: ("test_statistics", "test_relative_actions_are_measured_relative_and_per_step"),
    12: ("test_execution_steps", "test_elapsed_actions_are_dropped_by_time"),
    13: ("test_pitfalls", "test_the_last_step_is_what_is_exported"),
    14: ("test_pitfalls", "test_an_evaluation_repeats_with_its_seed"),
}


@pytest.mark.parametrize("number", range(1, 15))
def test_every_pitfall_has_a_test(number: int) -> None:
    module, name = PINNED[number]
    assert re.search(rf"^def {name}\(", (Path(__file__).parent / f"{module}.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("kind", ["chunk", "flow"])
def test_padding_moves_neither_head_nor_weights(kind: str) -> None:
    torch.manual_seed(0)
    head = make_head(4, 3, 2, HeadConfig(kind=kind, width=8, layers=2))
    embedding, actions = torch.randn(5, 4), torch.randn(5, 3, 2)
    valid = torch.tensor([[True, True, False]]).expand(5, -1)
    losses = []
    for padding in (0.0, 9.0):
        actions[:, 2] = padding
        losses.append(head.loss(embedding, actions, valid, torch.Generator().manual_seed(0)))
    if kind == "chunk":
        assert torch.equal(losses[0], losses[1])
    else:  # the padded steps are part of the noisy input, never of the error
        weight = head.trunk.last[-1].weight
        gradient, = torch.autograd.grad(losses[1].sum(), weight)
        assert float(gradient[4:].abs().max()) == 0.0 < float(gradient[:4].abs().max())
    half = torch.tensor([[True, False, False]]).expand(5, -1)
    if kind == "chunk":
        only = (head(embedding) - actions).square().mean(-1)[:, 0]
        assert torch.allclose(head.loss(embedding, actions, half), only), "divided by the valid count"


def test_advantage_of_a_padded_tail_is_that_of_its_recorded_steps() -> None:
    chain = make_chain(8)
    stage = chain_stage(chain, chain_config(co_rft__actor_steps=0))
    before = stage.critic.advantages()
    chunk = chain.frames.samples.actions
    padded = ~chain.frames.samples.valid
    chunk[padded] += 5.0
    assert torch.allclose(stage.critic.advantages(), before, atol=1e-6)


def test_statistics_of_held_out_episodes_do_not_leak_in(tmp_path: Path) -> None:
    data = square_data(episodes=4)
    for name in ("state", "action"):
        getattr(data.episodes[-1], name)[:, :3] += 3.0
    config = small_config(held_out=1, sft__steps=1, sft__warmup=0, co_rft__steps=0, co_rft__warmup=0)
    run_folder = train(data, tmp_path / "held" , config, quiet=True)
    statistics = load_checkpoint(run_folder / "checkpoints/sft").statistics
    assert float(abs(statistics.state_mean[:3]).max()) < 1.0


def test_the_last_step_is_what_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after: dict[str, list[dict[str, torch.Tensor]]] = {"sft": [], "co_rft": []}
    names = {"model.0.": "actor.", "model.1.": "backbone.", "actor.": "actor.", "critic.": "critic."}

    def recorded(step: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        def record(stage: SFTStage | CoRFTStage, number: int) -> dict[str, float]:
            info = step(stage, number)
            tensors = stage.tensors()
            after[stage.name].append({exported + key: value.clone() for saved, exported in names.items()
                                      for key, value in part(tensors, saved).items()})
            return info

        return record

    for kind in (SFTStage, CoRFTStage):
        monkeypatch.setattr(kind, "step", recorded(kind.step))
    config = small_config(sft__steps=4, sft__ema=0.0, co_rft__steps=4, co_rft__actor_steps=2, save_every=1)
    run_folder = train(square_data(), tmp_path / "run", config, quiet=True)
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == set(after), "one checkpoint for each stage"
    for stage, steps in after.items():
        exported = load_file(run_folder / "checkpoints" / stage / "model.safetensors")
        assert steps[-1].keys() <= exported.keys() and any(key.startswith("actor.head") for key in steps[-1])
        assert all(torch.equal(exported[key], value) for key, value in steps[-1].items())
        assert not all(torch.equal(exported[key], value) for key, value in steps[-2].items())


def test_an_evaluation_repeats_with_its_seed(tmp_path: Path) -> None:
    suite, scenes = PointSuite(), [f"near/ind/{number}" for number in range(6)]
    data = EpisodesInMemory(suite.features("near"), suite.demonstrate("near", 6, 0))
    config = small_config(policy__backbone="none", policy__backbone_options={}, check_frames=0)
    policy = Policy.load(train(data, tmp_path / "run", config, quiet=True) / "checkpoints/co_rft")

    def trials(seed: int) -> tuple[list[EpisodeResult], list[list[float]]]:
        way: list[list[float]] = []
        results = run_trials(policy, [PointWorld() for _ in range(4)], scenes, 20, replan_steps=2, seed=seed,
                             on_step=lambda world: way.append(world.point.tolist()))
        return list(results), way

    first = trials(0)
    torch.manual_seed(99)  # nothing is drawn but by the evaluation's own generator
    assert trials(0) == first
    assert trials(1)[1] != first[1]


def test_stage_2_repeats_with_its_seed() -> None:
    chain = make_chain(8)
    pairs = {"co_rft__steps": 6, "co_rft__actor_steps": 4, "co_rft__batch": 8, "policy__head__kind": "flow"}
    first, second, other = (
        chain_stage(chain, chain_config(seed=seed, **pairs), advancing=False) for seed in (3, 3, 4)
    )
    for stage in (first, second, other):
        run(stage)
    a, b, c = (stage.tensors() for stage in (first, second, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)
