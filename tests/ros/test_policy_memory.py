"""policy_node's inference with a policy that remembers: which observations it is given, and when it was to see them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from corft_msgs.msg import EpisodeEvent
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, change_state, running, spin_until
from ros.test_policy_node import Operator, Robot
from ros.tiny_policy import REACH_RAD, make_tiny_checkpoint

from corft.policy.inference import Inference
from corft.policy.predictor import Predictor
from corft.policy.run import PolicyRun
from corft_core.contract import Contract
from corft_core.data.align import Aligner
from corft_core.data.history import Spacing
from corft_core.policy.config import HistoryConfig
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import PolicyInfo, Request, Seen

pytestmark = [pytest.mark.ros, pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")]
STEPS, STRIDE, REPLAN, HORIZON = 4, 3, 5, 10


class Recording:
    """In the place of a network: keeps what it was asked."""

    def __init__(self, contract: Contract) -> None:
        spacing = Spacing(STEPS, STRIDE * contract.step_ns)
        self.info = PolicyInfo("recording", "0", contract, HORIZON, False, ("go",), spacing)
        self.asked: list[Request] = []

    def chunk(self, request: Request) -> ChunkPrediction:
        self.asked.append(request)
        home = np.append(self.info.contract.robot.home_rad, 1.0)
        return ChunkPrediction(np.tile(home, (1, HORIZON, 1)), np.zeros(1))

    def check(self) -> None:
        pass


def pushed(aligner: Aligner, contract: Contract, tick_ns: int, step: int) -> None:
    """Observation number `step`: its number is in every picture and in the first joint."""
    aligner.push("joint_state", tick_ns, np.append(contract.robot.home_rad, 1.0) + 1e-3 * step)
    for camera in contract.cameras:
        aligner.push(camera.name, tick_ns, np.full((*camera.size, 3), step, np.uint8))


@pytest.mark.parametrize("lost", [None, 7])
def test_between_chunks_nothing_is_missed_that_is_looked_back_at(lost: int | None) -> None:
    """Chunks every 5 steps, observations 3 steps apart. Where a stream had a gap the sample before it stands in."""
    contract = Contract.load(CONTRACT)
    aligner, policy = Aligner(contract, 10.0), Recording(contract)
    parameters = {"chunk_mode": "splice", "stall_timeout": 1e9, "frozen_image_rad": 1.0}
    node: Any = SimpleNamespace(param=parameters.get, get_clock=lambda: SimpleNamespace(
        now=lambda: SimpleNamespace(nanoseconds=0)))
    quiet: Any = SimpleNamespace(publish=lambda message: None, publish_feedback=lambda message: None, queue_s=0.0)
    predictor = Predictor(policy, contract)
    inference = Inference(node, contract, predictor, aligner, quiet, quiet, lambda *_: None)
    start_ns, step_ns = 10**12, contract.step_ns
    run = PolicyRun("go", start_ns, None, step_ns, REPLAN, lambda *_: None)
    predictor.begin(0)
    known: dict[int, Seen] = {}
    try:
        for step in range(26):
            tick_ns = start_ns + step * step_ns
            if step != lost:
                pushed(aligner, contract, tick_ns, step)
            if step % REPLAN:
                continue
            inference._chunk(run, quiet, tick_ns, tick_ns)
            request = policy.asked[-1]
            assert request.begins == (step == 0) and request.now.stamp_ns == tick_ns
            known |= {seen.stamp_ns: seen for seen in (*request.past, request.now)}
            for back in range(0, STEPS * STRIDE, STRIDE):
                if step >= back:
                    seen = known[tick_ns - back * step_ns]
                    number = step - back - (step - back == lost)
                    assert {int(image[0, 0, 0]) for image in seen.images.values()} == {number}
                    assert seen.state[0] == pytest.approx(contract.robot.home_rad[0] + 1e-3 * number)
            assert not any(seen.stamp_ns < start_ns for seen in request.past), "nothing from before the run"
    finally:
        inference.destroy()


def test_goals_are_served_by_a_checkpoint_that_remembers(rclpy_context: None, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    memory = HistoryConfig(steps=3, stride=2, kind="lstm")
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", contract, history=memory)
    node = rclpy.create_node("memory_test")
    robot = Robot(node, contract)
    try:
        with running("policy_node", {"checkpoint": checkpoint, "contract": CONTRACT, "use_sim_time": True,
                                     "torch_threads": 1}) as policy_node:
            assert change_state(node, "policy_node", CONFIGURE, ACTIVATE) == [True, True]
            operator = Operator(node)
            assert operator.client.wait_for_server(60.0)
            spin_until(node, lambda: node.count_publishers("action_chunk") == 1, "discovery")
            for _ in range(2):  # the second goal begins with nothing to look back at
                handle = operator.send()
                operator.wait_for_chunks(4)
                robot.signal(EpisodeEvent.SUCCESS)
                result = operator.result(handle).result
                assert result.chunks >= 4 and result.outcome == result.SUCCESS, result.reason
                for point in operator.chunks[-1].trajectory.points:
                    assert list(point.positions) == pytest.approx(contract.robot.home_rad, abs=REACH_RAD)
            assert "Traceback" not in policy_node.output
    finally:
        robot.stop()
        node.destroy_node()
