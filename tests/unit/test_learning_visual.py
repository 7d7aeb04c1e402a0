"""A visual task learned in seconds, and the instruction deciding."""

from __future__ import annotations

import numpy as np
import pytest
from learning_data import BLUE, RED, small_config, square_data, squares

from corft_core.learning.trainer import train
from corft_core.policy import Policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    config = small_config(
        policy__head__kind="chunk", co_rft__extraction="weighted_anchor", co_rft__steps=0, co_rft__warmup=0,
        sft__steps=350, sft__batch=32, sft__lr=3e-3, sft__backbone_lr=3e-3, sft__warmup=20, sft__ema=0.95,
    )
    folder = tmp_path_factory.mktemp("visual") / "run"
    train(square_data(episodes=20, steps=20), folder, config, quiet=True)
    return Policy.load(folder / "checkpoints/sft")


def commanded(policy: Policy, red: int, blue: int, text: str) -> float:
    image = squares(red, blue)[None]
    prediction = policy.act({"front": image, "wrist": image}, np.zeros((1, 8)), [text])
    return float(prediction.actions[0, 0, 0])


def test_policy_finds_the_named_square(policy: Policy) -> None:
    rng = np.random.default_rng(9)
    errors = []
    for _ in range(20):
        red, blue = (int(x) for x in rng.integers(0, 26, 2))
        errors.append(abs(commanded(policy, red, blue, RED) - (red / 12.5 - 1)))
        errors.append(abs(commanded(policy, red, blue, BLUE) - (blue / 12.5 - 1)))
    assert np.mean(errors) < 0.25, "guessing the middle errs by 0.5"


def test_the_other_instruction_goes_to_the_other_square(policy: Policy) -> None:
    assert commanded(policy, 1, 24, RED) < -0.4 and commanded(policy, 1, 24, BLUE) > 0.4
    assert commanded(policy, 24, 1, RED) > 0.4 and commanded(policy, 24, 1, BLUE) < -0.4
