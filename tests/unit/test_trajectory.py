"""A joint path interpolates as joint_trajectory_controller does and holds at both ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corft_core.trajectory import JointPath


def polynomial(coefficients: np.ndarray, t: float) -> tuple[float, float, float]:
    p = np.polynomial.Polynomial(coefficients)
    return float(p(t)), float(p.deriv(1)(t)), float(p.deriv(2)(t))


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.floats(0.05, 0.95))
def test_positions_velocities_and_accelerations_reproduce_any_quintic(coefficients, t):
    ends = np.array([polynomial(np.array(coefficients), x) for x in (0.0, 1.0)])
    path = JointPath(("a",), [0.0, 1.0], ends[:, :1], ends[:, 1:2], ends[:, 2:])
    seen = np.ravel(path.sample(t))
    assert seen == pytest.approx(polynomial(np.array(coefficients), t), abs=1e-8)


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.floats(0.05, 0.95))
def test_positions_and_velocities_reproduce_any_cubic(coefficients, t):
    ends = np.array([polynomial(np.array(coefficients), x) for x in (0.0, 1.0)])
    path = JointPath(("a",), [0.0, 1.0], ends[:, :1], ends[:, 1:2])
    assert np.ravel(path.sample(t)) == pytest.approx(polynomial(np.array(coefficients), t), abs=1e-8)


def test_positions_alone_are_joined_by_lines_and_held_at_the_ends():
    path = JointPath(("a", "b"), [1.0, 2.0], [[0.0, 1.0], [2.0, 1.0]])
    assert path.sample(1.25)[0] == pytest.approx([0.5, 1.0]) and path.sample(1.25)[1] == pytest.approx([2.0, 0.0])
    assert path.sample(0.0)[0] == pytest.approx([0.0, 1.0]) and path.sample(9.0)[0] == pytest.approx([2.0, 1.0])
    assert path.duration_s == 2.0


@pytest.mark.parametrize("times,positions,velocities", [
    ([0.0, 0.0], [[0.0], [1.0]], None),
    ([0.0, 1.0], [[0.0, 1.0], [1.0, 1.0]], None),
    ([0.0, 1.0], [[0.0], [np.nan]], None),
    ([0.0, 1.0], [[0.0], [1.0]], [[0.0]]),
    ([], np.zeros((0, 1)), None),
])
def test_a_malformed_path_cannot_be_made(times, positions, velocities):
    with pytest.raises(ValueError):
        JointPath(("a",), times, positions, velocities)
