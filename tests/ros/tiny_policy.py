"""A checkpoint small enough to make in a test: tiny backbone, random weights, chunks that stay near the joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from corft_core.contract import Contract
from corft_core.data.statistics import Statistics
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.backbones import make_backbone
from corft_core.policy.checkpoint import Bundle, network_shapes, save_checkpoint
from corft_core.policy.config import (
    CriticConfig,
    EncoderConfig,
    HeadConfig,
    HistoryConfig,
    PolicyConfig,
    SelectionConfig,
)
from corft_core.policy.tokens.head import TokenHead

INSTRUCTIONS = ("put the red cube into the bin", "put the blue cube into the bin")
HORIZON = 10
REACH_RAD = 0.02
"""Largest distance of a commanded joint from the measured one."""


def make_tiny_checkpoint(folder: Path, contract: Contract, backbone_name: str = "tiny",
                         history: HistoryConfig | None = None, head: str = "flow", **options: str) -> Path:
    """Write a checkpoint for `contract` whose actions are the measured joints ± REACH_RAD.

    The head "tokens" says the same token everywhere, whatever it sees: decoding from nothing takes it two passes.
    """
    torch.manual_seed(0)
    home = np.append(contract.robot.home_rad, 0.5)
    reach = np.full((HORIZON, len(contract.action_names)), REACH_RAD / 2)
    mean, scale, low, high = 0.0 * reach, reach / 2, -reach, reach.copy()
    mean[:, -1] = scale[:, -1] = 0.5
    low[:, -1], high[:, -1] = 0.0, 1.0
    statistics = Statistics(
        representation="relative", state_gripper=contract.state_gripper, action_gripper=contract.action_gripper,
        state_mean=home, state_scale=np.append(np.ones(len(home) - 1), 0.5), action_mean=mean, action_scale=scale,
        action_low=low, action_high=high, samples=1)
    config = PolicyConfig(
        horizon=HORIZON, backbone=backbone_name, backbone_options=options,
        encoder=EncoderConfig(keypoints=4, value_width=4, embedding=16),
        head=HeadConfig(head, width=16, layers=1, flow_steps=2), critic=CriticConfig(width=8, layers=1),
        selection=SelectionConfig(samples=1 if head == "tokens" else 2), history=history or HistoryConfig())
    cameras = contract.cameras
    backbone = make_backbone(backbone_name, cameras=len(cameras), image_size=cameras[0].size, **options)
    shapes = network_shapes(backbone, contract)
    actor = Actor(shapes, config)
    if isinstance(actor.head, TokenHead):
        for parameter in actor.head.model.last[1].parameters():
            torch.nn.init.zeros_(parameter)
        actor.head.model.last[1].bias.data[140] = 1.0
    save_checkpoint(folder, Bundle(
        config=config, contract=contract, statistics=statistics, backbone=backbone, actor=actor,
        critic=Critic(shapes, config), policy_id="tiny-test", stage="co_rft", instructions=INSTRUCTIONS))
    return folder
