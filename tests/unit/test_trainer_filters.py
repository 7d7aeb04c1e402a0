"""What the policy is not taught: pauses, slow episodes, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_data import small_config, small_contract

from corft_core.data.chunks import build_chunks
from corft_core.data.episode import Episode
from corft_core.features import Features, StateFeatures
from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.learning.filters import imitation_data, no_ops, skipping_chunks
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory

STATE = StateFeatures(("x", "opening"), ("dx", "opening"), 10)


def episode(features: Features, arm: list[float], opening: list[float] | None = None, success: bool = True) -> Episode:
    """First joint commanded along `arm`, the others at rest."""
    action = np.zeros((len(arm), len(features.action_names)), np.float32)
    action[:, 0] = arm
    action[:, -1] = opening if opening is not None else 1.0
    images = {c.name: np.zeros((len(arm), *c.size, 3), np.uint8) for c in features.cameras}
    return Episode(images, np.zeros((len(arm), len(features.state_names)), np.float32), action, "go", success, "s")


def table_of(data: EpisodesInMemory, horizon: int = 3) -> Any:
    return build_chunks(data.episode_index, data.action, data.reward, data.done, horizon, 0.98)


def test_pauses_of_position_commands_are_unchanged_commands() -> None:
    data = EpisodesInMemory(small_contract(8), [episode(small_contract(8), [0, 0.1, 0.1, 0.1015, 0.2, 0.2])])
    assert no_ops(data, 0.002, 0.01).tolist() == [False, False, True, True, False, False]


def test_pauses_of_displacement_commands_are_zero_commands() -> None:
    data = EpisodesInMemory(STATE, [episode(STATE, [0, 0.5, 0.5, 0, 0.5, 0])])
    assert no_ops(data, 0.0, 0.0).tolist() == [False, False, False, True, False, False]


def test_a_moving_gripper_is_no_pause() -> None:
    data = EpisodesInMemory(STATE, [episode(STATE, [0, 0, 0, 0], [1, 1, 0.5, 0.5])])
    assert no_ops(data, 0.0, 0.01).tolist() == [False, True, False, False]


def test_a_gripper_that_still_closes_is_waited_for() -> None:
    waiting = episode(STATE, [0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 0])
    waiting.state[:, -1] = [1, 0.8, 0.4, 0.4, 0.4]
    assert no_ops(EpisodesInMemory(STATE, [waiting]), 0.0, 0.01).tolist() == [False, False, True, True, False]


def test_an_episodes_first_command_is_not_compared_with_the_one_before() -> None:
    contract = small_contract(8)
    data = EpisodesInMemory(contract, [episode(contract, [0.3, 0.4, 0.5]), episode(contract, [0.5, 0.5, 0.6])])
    assert no_ops(data, 0.002, 0.01).tolist() == [False, False, False, False, True, False]


def test_chunks_go_on_after_the_pause() -> None:
    data = EpisodesInMemory(STATE, [episode(STATE, [1, 2, 3, 4, 5])])
    action, valid = skipping_chunks(table_of(data), np.array([True, False, False, True, True]))
    assert action[..., 0].tolist() == [[1, 4, 5], [4, 5, 5], [4, 5, 5], [4, 5, 5], [5, 5, 5]]
    assert valid[0].tolist() == [True, True, True]
    assert valid[3].tolist() == [True, True, False] and valid[4].tolist() == [True, False, False]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 5))
def test_skipping_chunks_match_a_walk_over_the_episodes(kept: list[list[bool]], horizon: int) -> None:
    kept = [[*flags[:-1], True] for flags in kept]
    episodes = [episode(STATE, [100 * n + t for t in range(len(flags))]) for n, flags in enumerate(kept)]
    action, valid = skipping_chunks(table_of(EpisodesInMemory(STATE, episodes), horizon), np.concatenate(kept))
    row = 0
    for n, flags in enumerate(kept):
        for t in range(len(flags)):
            left = [100 * n + u for u in range(t, len(flags)) if flags[u]][:horizon]
            assert action[row, : len(left), 0].tolist() == left
            assert valid[row].tolist() == [True] * len(left) + [False] * (horizon - len(left))
            row += 1


def test_fastest_keeps_the_shortest_successes_of_every_instruction() -> None:
    lengths = [9, 3, 5, 2, 8, 7]
    episodes = [episode(STATE, list(range(n)), success=n != 2) for n in lengths]
    episodes = [replace(e, instruction="a" if i < 4 else "b") for i, e in enumerate(episodes)]
    data = EpisodesInMemory(STATE, episodes)
    table = table_of(data)
    config = small_config(sft__filter="fastest", sft__keep_share=0.34).sft
    chosen = imitation_data(data, table, np.ones(len(table), bool), config)
    assert set(table.episode[chosen.rows]) == {1, 2, 5}, "two of three successes of a, one of two of b"
    assert chosen.removed_share == pytest.approx(1 - 15 / 32)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Samples, further and named arguments of every stage 2 that is built."""
    seen: list[Any] = []
    build = CoRFTStage.__init__

    def note(self: CoRFTStage, actor: Any, critic: Any, frames: Any, *rest: Any, **named: Any) -> None:
        seen.append((frames.samples, rest, named))
        build(self, actor, critic, frames, *rest, **named)

    monkeypatch.setattr(CoRFTStage, "__init__", note)
    return seen


@pytest.mark.parametrize(("successes_only", "expected"), [(True, 14), (False, 21)])
def test_failures_teach_the_critic_and_not_the_policy(
    tmp_path: Path, stages: list[Any], successes_only: bool, expected: int
) -> None:
    features = StateFeatures(("x", "y", "opening"), ("dx", "opening"), 10)
    data = EpisodesInMemory(features, [episode(features, [0.5, 0, 0, 0.5, 0, 0.5, 0.5], success=n != 1)
                                       for n in range(3)])
    config = small_config(policy__backbone="none", policy__backbone_options={}, co_rft__successes_only=successes_only)
    train(data, tmp_path / "run", config, quiet=True)
    _, (_, train_index, *_), named = stages[0]
    assert len(train_index) == 21 and len(named["imitation_index"]) == 14
    assert len(named["actor_index"]) == expected
    if successes_only:
        assert not np.isin(named["actor_index"].numpy(), range(7, 14)).any()


def test_filter_changes_imitation_alone(tmp_path: Path, stages: list[Any]) -> None:
    features = StateFeatures(("x", "y", "opening"), ("dx", "opening"), 10)
    data = EpisodesInMemory(features, [episode(features, [0.5, 0, 0, 0.5, 0, 0.5, 0.5]) for _ in range(3)])
    config = small_config(policy__backbone="none", policy__backbone_options={}, sft__filter="no_ops")
    train(data, tmp_path / "run", config, quiet=True)
    samples, (_, train_index, *_), named = stages[0]
    assert len(train_index) == 21 and len(named["imitation_index"]) == 12
    assert samples.actions.shape == samples.imitation_actions.shape
    assert not np.array_equal(samples.actions, samples.imitation_actions)
