"""Returns by hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from corft_core.data.returns import discounted_return_to_go, prefix_returns, upsampled_rewards, upsampling_scale


def test_return_to_go_by_hand() -> None:
    assert discounted_return_to_go(np.array([1.0, 0.0, 2.0]), 0.5) == pytest.approx([1.5, 1.0, 2.0])


def test_upsampling_repeats_the_success_and_keeps_its_return_at_one() -> None:
    # k = 2, γ = 0.5: rewards 1, 1 scaled by 1 / 1.5.
    extended = upsampled_rewards(np.array([0.0, 1.0]), True, 0.5, 2, 3)
    assert extended == pytest.approx([0.0, 2 / 3, 2 / 3, 0.0, 0.0])
    assert discounted_return_to_go(extended, 0.5)[:3] == pytest.approx([0.5, 1.0, 2 / 3])


def test_truncation_is_not_upsampled() -> None:
    assert upsampled_rewards(np.array([0.0, 1.0]), False, 0.5, 3, 2)[2:] == pytest.approx([0.0, 0.0])


def test_one_copy_means_no_upsampling() -> None:
    assert upsampling_scale(0.9, 1) == 1.0
    assert upsampled_rewards(np.array([0.0, 1.0]), True, 0.9, 1, 2) == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_prefix_returns_by_hand() -> None:
    result = prefix_returns(np.array([1.0, 2.0, 4.0, 0.0]), 2, 0.5, 3)
    assert result == pytest.approx(np.array([[1.0, 2.0], [2.0, 4.0], [4.0, 4.0]]))
