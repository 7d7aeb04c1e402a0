"""Statistics over the action representation, and transforms with their inverses."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corft_core.data.statistics import MIN_SCALE_RAD, Statistics
from corft_core.errors import CorftError
from corft_core.features import StateFeatures

RNG = np.random.default_rng(0)


def features(representation: str = "relative", joints: int = 2, extra: int = 0, gripper: bool = True) -> Any:
    """A robot of so many joints, whose state has further values behind its gripper."""
    names = [f"joint{i}" for i in range(joints)] + ["gripper"] * gripper
    place = joints if gripper else None
    return SimpleNamespace(state_names=(*names, *(f"extra{i}" for i in range(extra))), action_names=tuple(names),
                           action_representation=representation, state_gripper=place, action_gripper=place)


def data(count: int = 200, horizon: int = 3, joints: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    state = np.concatenate([RNG.normal(1.0, 2.0, (count, joints)), RNG.uniform(size=(count, 1))], 1)
    reach = RNG.normal(0, 0.1, (count, horizon, joints)).cumsum(1)
    gripper = (RNG.uniform(size=(count, horizon, 1)) > 0.9).astype(float)
    action = np.concatenate([state[:, None, :-1] + reach, gripper], -1)
    return state, action, np.ones((count, horizon), bool)


def test_relative_actions_are_measured_relative_and_per_step() -> None:
    state = np.array([[1.0, 0.5], [3.0, 0.5]])
    action = np.array([[[1.1, 0.0], [1.3, 1.0]], [[3.3, 0.0], [3.5, 1.0]]])  # differences .1 .3 | .3 .5
    statistics = Statistics.measure(state, action, np.ones((2, 2), bool), features(joints=1))
    assert statistics.action_mean[:, 0] == pytest.approx([0.2, 0.4])
    assert statistics.action_scale[:, 0] == pytest.approx([0.1, 0.1])
    encoded = statistics.encode_actions(action, state)
    assert encoded[0] == pytest.approx(np.array([[-1.0, -1.0], [-1.0, 1.0]]))


def test_absolute_actions_are_measured_absolute() -> None:
    state, action, valid = data()
    statistics = Statistics.measure(state, action, valid, features("absolute"))
    assert statistics.action_mean[0, :-1] == pytest.approx(action[:, 0, :-1].mean(0))


@pytest.mark.parametrize("representation", ["relative", "absolute"])
def test_decoding_inverts_encoding(representation: str) -> None:
    state, action, valid = data()
    statistics = Statistics.measure(state, action, valid, features(representation))
    assert statistics.decode_actions(statistics.encode_actions(action, state), state) == pytest.approx(action, abs=1e-5)
    assert statistics.decode_state(statistics.encode_state(state)) == pytest.approx(state, abs=1e-5)


def test_gripper_is_mapped_and_never_measured() -> None:
    state, action, valid = data()
    action[..., -1] = 1.0  # a gripper that always rests open
    statistics = Statistics.measure(state, action, valid, features())
    encoded = statistics.encode_actions(np.array([[[0, 0, 0.0], [0, 0, 0.5], [0, 0, 1.0]]]), state[:1])
    assert encoded[0, :, -1] == pytest.approx([-1.0, 0.0, 1.0])


def test_constant_joint_is_not_blown_up() -> None:
    state, action, valid = data()
    state[:, 0] = 0.3
    action[:, :, 0] = 0.3
    statistics = Statistics.measure(state, action, valid, features())
    assert statistics.state_scale[0] == MIN_SCALE_RAD
    assert np.all(statistics.action_scale[:, 0] == MIN_SCALE_RAD)
    assert np.abs(statistics.encode_actions(action, state)[..., 0]).max() < 1e-3


def test_padded_steps_do_not_count() -> None:
    state, action, valid = data()
    valid[100:, 1:] = False
    reference = Statistics.measure(state[:100], action[:100], valid[:100], features())
    action[100:, 1:] += 1000.0
    statistics = Statistics.measure(state, action, valid, features())
    assert statistics.action_mean[1:] == pytest.approx(reference.action_mean[1:])
    assert statistics.action_high.max() < 100


def test_decoded_actions_stay_near_what_was_seen() -> None:
    state, action, valid = data()
    statistics = Statistics.measure(state, action, valid, features())
    wild = statistics.decode_actions(np.full((1, 3, 3), 1e6), state[:1])
    seen = (action[..., :-1] - state[:, None, :-1]).max(0)
    assert np.all(wild[0, :, :-1] - state[0, :-1] <= 1.3 * seen + 0.1)
    assert np.all(wild[..., -1] == 1.0)


def test_statistics_survive_json() -> None:
    state, action, valid = data()
    statistics = Statistics.measure(state, action, valid, features())
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict(), allow_nan=False)))
    assert np.array_equal(again.action_scale, statistics.action_scale)
    with pytest.raises(CorftError, match="keys"):
        Statistics.from_dict({"samples": 3})


def test_unknown_representation_is_refused() -> None:
    with pytest.raises(CorftError, match="expected relative or absolute"):
        Statistics.measure(*data(), features("delta"))


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(CorftError, match="at least one step"):
        Statistics.measure(np.zeros((0, 3)), np.zeros((0, 2, 3)), np.zeros((0, 2), bool), features())


def test_gripper_and_further_state_values_are_never_relative() -> None:
    state, action, valid = data()
    wide = np.concatenate([state, RNG.normal(5.0, 3.0, (len(state), 2))], -1)
    statistics = Statistics.measure(wide, action, valid, features(extra=2))
    narrow = Statistics.measure(state, action, valid, features())
    assert np.array_equal(statistics.action_mean, narrow.action_mean)
    assert statistics.state_mean.shape == (5,) and abs(statistics.state_mean[3] - 5.0) < 1.0
    decoded = statistics.decode_actions(statistics.encode_actions(action, wide), wide)
    np.testing.assert_allclose(decoded, action, atol=1e-5)
    with pytest.raises(CorftError, match="need the commanded joints"):
        Statistics.measure(wide[:, ::-1], action, valid,
                           SimpleNamespace(**vars(features()) | {"state_names": ("gripper", "joint0", "joint1")}))


def test_a_robot_without_gripper_has_all_values_measured() -> None:
    state, action, valid = data(joints=3)
    state, action = state[:, :-1], action[..., :-1]
    statistics = Statistics.measure(state, action, valid, features(joints=3, gripper=False))
    assert statistics.action_gripper is None and statistics.action_mean.shape == (3, 3)
    decoded = statistics.decode_actions(statistics.encode_actions(action, state), state)
    np.testing.assert_allclose(decoded, action, atol=1e-5)
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))).state_gripper is None


def test_state_and_absolute_action_may_differ_in_width() -> None:
    state, action, valid = data()
    wide = np.concatenate([state, state], -1)
    task = StateFeatures(("a", "b", "c", "d", "e", "gripper"), ("x", "y", "gripper"), 10)
    statistics = Statistics.measure(wide, action, valid, task)
    assert statistics.state_mean.shape == (6,) and statistics.action_mean.shape == (3, 3)
    decoded = statistics.decode_actions(statistics.encode_actions(action, wide), wide)
    np.testing.assert_allclose(decoded, action, atol=1e-5)
