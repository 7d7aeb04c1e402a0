"""policy_node's inference: what it says of a chunk that is out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ros.graph import CONTRACT
from ros.test_policy_memory import HORIZON, Recording, pushed

from corft.policy.inference import Inference
from corft.policy.predictor import Predictor
from corft.policy.run import PolicyRun
from corft_core.contract import Contract
from corft_core.data.align import Aligner

pytestmark = pytest.mark.ros


def test_latency_counts_from_the_observations_stamp_until_the_chunk_is_published() -> None:
    contract, feedback = Contract.load(CONTRACT), []
    node: Any = SimpleNamespace(param={"chunk_mode": "splice", "frozen_image_rad": 0.2}.get)
    out: Any = SimpleNamespace(publish=lambda chunk: None, publish_feedback=feedback.append, queue_s=0.0)
    aligner, predictor = Aligner(contract, 10.0), Predictor(Recording(contract), contract)
    inference = Inference(node, contract, predictor, aligner, out, out, lambda *_: None)
    try:
        for step, late_s in enumerate((0.03, 0.08, 0.25)):
            tick_ns = 10**12 + step * HORIZON * contract.step_ns
            pushed(aligner, contract, tick_ns, step)
            run = PolicyRun("go", tick_ns, None, contract.step_ns, HORIZON, lambda *_: None)
            inference._chunk(run, out, tick_ns, tick_ns + round(late_s * 1e9))
            assert late_s < feedback[-1].latency < late_s + 2.0, "the simulated clock stands meanwhile"
        assert 0.03 < predictor.latency_s(0.5) < predictor.latency_s(0.95)
    finally:
        inference.destroy()
