"""The chunk table against a brute-force reading of its definition, and each pitfall by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.data.chunks import ChunkTable, build_chunks
from corft_core.data.returns import upsampling_scale
from corft_core.errors import CorftError

GAMMA = 0.9


def table_of(
    lengths: list[int], success: list[bool], horizon: int, copies: int = 1, gamma: float = GAMMA
) -> ChunkTable:
    count = sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    reward, done = np.zeros(count), np.zeros(count, bool)
    for end, good in zip(np.cumsum(lengths) - 1, success, strict=True):
        reward[end], done[end] = float(good), good
    action = np.arange(count, dtype=np.float64)[:, None]
    return build_chunks(episode, action, reward, done, horizon, gamma, copies)


episodes = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(episodes, st.integers(1, 6), st.integers(1, 4))
def test_table_equals_brute_force(shape: list[tuple[int, bool]], horizon: int, copies: int) -> None:
    lengths, success = [n for n, _ in shape], [s for _, s in shape]
    table = table_of(lengths, success, horizon, copies)
    value = np.random.default_rng(0).uniform(size=sum(lengths))
    targets = table.targets(value)
    scale = upsampling_scale(GAMMA, copies)
    row = 0
    for length, good in shape:
        start = row
        for t in range(length):
            # A success gives its reward at the last step and copies − 1 times behind it, then nothing for ever.
            def reward(step: int, length: int = length, good: bool = good) -> float:
                return scale if good and length - 1 <= step < length - 1 + copies else 0.0

            assert table.mc_return[row] == pytest.approx(sum(GAMMA**j * reward(t + j) for j in range(length + copies)))
            for i in range(1, horizon + 1):
                recorded = t + i - 1 < length
                assert table.valid[row, i - 1] == recorded
                assert table.action[row, i - 1, 0] == start + min(t + i - 1, length - 1)
                if t + i < length:
                    expected = sum(GAMMA**j * reward(t + j) for j in range(i)) + GAMMA**i * value[start + t + i]
                    assert table.bootstrap_index[row, i - 1] == start + t + i
                elif good:
                    expected = sum(GAMMA**j * reward(t + j) for j in range(length + copies))
                else:
                    expected = 0.0
                assert table.target_valid[row, i - 1] == (t + i < length or good)
                assert targets[row, i - 1] == pytest.approx(expected)
            row += 1


@settings(max_examples=40, deadline=None)
@given(episodes, st.integers(1, 8))
def test_no_sample_crosses_an_episode(shape: list[tuple[int, bool]], horizon: int) -> None:
    table = table_of([n for n, _ in shape], [s for _, s in shape], horizon)
    owner = table.episode
    assert np.all(owner[table.bootstrap_index] == owner[:, None])
    assert np.all(owner[table.action[..., 0].astype(int)] == owner[:, None])


@pytest.mark.parametrize("offset", range(6))
def test_reward_on_the_last_step_is_seen_at_every_offset(offset: int) -> None:
    table = table_of([6], [True], horizon=8)
    steps_left = 6 - offset
    assert np.all(table.target_valid[offset])
    assert table.known_return[offset, steps_left - 1 :] == pytest.approx(GAMMA ** (steps_left - 1))
    assert table.known_return[offset, : steps_left - 1] == pytest.approx(0.0)


def test_short_prefix_is_discounted_by_its_own_length() -> None:
    table = table_of([10], [True], horizon=3)
    assert table.bootstrap_discount[0] == pytest.approx([GAMMA, GAMMA**2, GAMMA**3])


def test_truncation_is_not_terminal() -> None:
    table = table_of([4], [False], horizon=3)
    assert not table.terminal.any()
    assert table.truncated[-1].all()
    assert not table.target_valid[-1].any(), "nothing is known beyond the last observation"
    assert table.target_valid[-2].tolist() == [True, False, False], "the prefix that ends on it bootstraps there"


def test_return_uses_the_gamma_and_scale_of_the_targets() -> None:
    for gamma, copies in ((0.9, 1), (0.98, 5)):
        table = table_of([7], [True], horizon=3, copies=copies, gamma=gamma)
        # The demonstration's return is a fixed point of its own targets.
        assert table.targets(table.mc_return) == pytest.approx(np.repeat(table.mc_return[:, None], 3, 1))
        assert table.mc_return == pytest.approx(gamma ** np.arange(6, -1, -1))
        assert table.value_range == pytest.approx((0.0, 1.0))


def test_padded_steps_are_marked() -> None:
    table = table_of([3], [True], horizon=4)
    assert table.valid.sum(1).tolist() == [3, 2, 1]


def test_rows_of_an_episode_must_lie_together() -> None:
    with pytest.raises(CorftError, match="sorted by episode"):
        build_chunks(np.array([0, 1, 0]), np.zeros((3, 1)), np.zeros(3), np.zeros(3, bool), 2, GAMMA)


def test_done_inside_an_episode_is_refused() -> None:
    with pytest.raises(CorftError, match="before the last step"):
        build_chunks(np.zeros(3, int), np.zeros((3, 1)), np.zeros(3), np.array([True, False, False]), 2, GAMMA)


def test_empty_data_is_refused() -> None:
    with pytest.raises(CorftError, match="no step"):
        build_chunks(np.zeros(0, int), np.zeros((0, 1)), np.zeros(0), np.zeros(0, bool), 2, GAMMA)
