"""policy_node drives an exported policy where neither checkpoint nor language model is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import rclpy
from corft_msgs.msg import EpisodeEvent
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, change_state, running
from ros.test_policy_node import Operator, Robot
from ros.tiny_policy import make_tiny_checkpoint

from corft_core.contract import Contract
from corft_core.learning.export import export_policy
from corft_core.policy.backbones.small import make_small

pytestmark = pytest.mark.ros


def test_an_exported_policy_drives_after_its_sources_are_deleted(rclpy_context: None, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    model = make_small(tmp_path / "model", "smolvlm")
    checkpoint = make_tiny_checkpoint(tmp_path / "run" / "co_rft", contract, f"hf:{model}", trainable="all")
    folder = export_policy(checkpoint, tmp_path / "elsewhere" / "policy")
    shutil.rmtree(model)
    shutil.rmtree(checkpoint)
    node = rclpy.create_node("exported_policy_test")
    robot = Robot(node, contract)
    try:
        with running("policy_node", {"checkpoint": folder, "use_sim_time": True, "torch_threads": 1}):
            assert change_state(node, "policy_node", CONFIGURE, ACTIVATE) == [True, True]
            operator = Operator(node)
            assert operator.client.wait_for_server(30.0)
            handle = operator.send()
            operator.wait_for_chunks(2)
            robot.signal(EpisodeEvent.SUCCESS)
            assert operator.result(handle).result.chunks >= 2
    finally:
        robot.stop()
