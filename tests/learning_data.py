"""Small made-up data for policy and learning tests: two coloured squares, the instruction names one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corft_core.contract import Contract
from corft_core.data.episode import Episode
from corft_core.learning.config import TrainConfig
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy.options import override

CONTRACT_PATH = Path(__file__).parents[1] / "ros2_ws/src/corft/config/panda_cell/contract.yaml"
RED, BLUE = "go to the red square", "go to the blue square"


def small_contract(size: int = 32, **changes: object) -> Contract:
    """The Panda cell's contract with small square images."""
    data = Contract.load(CONTRACT_PATH).to_dict() | changes
    for camera in data["cameras"]:
        camera["size"] = [size, size]
    return Contract.from_dict(data)


def squares(column_red: int, column_blue: int, size: int = 32) -> np.ndarray:
    """A picture with a red square in the upper half and a blue one in the lower half."""
    image = np.full((size, size, 3), 40, np.uint8)
    image[4:10, column_red : column_red + 6] = (230, 20, 20)
    image[20:26, column_blue : column_blue + 6] = (20, 20, 230)
    return image


def square_episode(rng: np.random.Generator, contract: Contract, steps: int, success: bool, number: int) -> Episode:
    """Joint 1 should move to the named square's column: command −1 (left edge) … +1 (right edge) rad."""
    red, blue = rng.integers(0, 26, steps), rng.integers(0, 26, steps)
    pictures = np.stack([squares(r, b) for r, b in zip(red, blue, strict=True)])
    named = red if number % 2 == 0 else blue
    state = np.zeros((steps, 8), np.float32)
    action = np.zeros((steps, 8), np.float32)
    action[:, 0] = named / 12.5 - 1.0
    return Episode(
        {camera.name: pictures for camera in contract.cameras}, state, action, RED if number % 2 == 0 else BLUE,
        success, f"demo/{number}",
    )


def square_data(episodes: int = 6, steps: int = 12, failures: int = 0, seed: int = 0) -> EpisodesInMemory:
    """Episodes over independent pictures; the last `failures` of them did not succeed."""
    rng, contract = np.random.default_rng(seed), small_contract()
    return EpisodesInMemory(
        contract, [square_episode(rng, contract, steps, i < episodes - failures, i) for i in range(episodes)]
    )


def small_config(**pairs: object) -> TrainConfig:
    """Settings for networks and runs of seconds; `pairs` use __ for the dot."""
    base: dict[str, object] = {
        "policy.horizon": 3, "policy.backbone": "tiny", "policy.backbone_options": {"channels": 16, "text_dim": 16},
        "policy.encoder.embedding": 32, "policy.head.width": 32, "policy.head.flow_steps": 4,
        "policy.critic.width": 8, "policy.selection.samples": 4, "sft.steps": 6, "sft.batch": 8, "sft.warmup": 2,
        "sft.shift_px": 0, "sft.token_noise": 0.1, "co_rft.steps": 8, "co_rft.warmup": 4, "co_rft.refresh": 3,
        "co_rft.batch": 8,
        "co_rft.actor_steps": 4, "log_every": 2, "save_every": 1000, "threads": 1,
        "tensorboard": False, "check_frames": 8,
    }
    return override(TrainConfig, {}, base | {key.replace("__", "."): value for key, value in pairs.items()})
