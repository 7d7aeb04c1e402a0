"""The quick part of the fault campaign (`make faults` is all of it): whatever is broken, the arm keeps its limits."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from faults import campaign
from faults.catalogue import catalogue
from faults.chunks import random_chunks
from faults.rig import Rig
from faults.setpoint import TOLERANCE
from ros.graph import CONTRACT
from ros.tiny_policy import make_tiny_checkpoint

from corft_core.contract import Contract
from corft_core.planning import make_planner

pytestmark = [pytest.mark.ros, pytest.mark.slow,
              pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command on the PATH")]

QUICK = ("chunks: one NaN", "chunks: 1000 x the amplitude", "chunks: through the table", "chunks: wrong joint names",
         "chunks: 10 s ahead, between good ones", "action_chunk: all lost", "joint_state: all lost",
         "joint states: one joint NaN", "clock: back 3 s", "two policies at once", "the emergency stop is pressed",
         "stop is called", "kill -9 policy_node", "images: cut off", "gripper_command: all lost",
         "execution_status: 70 % lost, and stop is called", "kill -9 executor_node under the emergency stop")


def test_random_chunks_never_break_a_limit() -> None:
    contract = Contract.load(CONTRACT)
    planner = make_planner("embedded", contract, CONTRACT.parent / "scene.yaml")
    found = random_chunks(contract, planner, 200, seed=1, budget_s=120.0)
    assert (found["limit_violations"], found["collisions"]) == (0, 0)
    assert {"chunk", "hold", "NOT_FINITE", "WRONG_JOINTS"} <= found["outcomes"].keys(), "both good and bad ones"


@pytest.mark.timeout(1200)
def test_a_broken_graph_holds_and_recovers(ros_domain: int, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    planner = make_planner("embedded", contract, CONTRACT.parent / "scene.yaml")
    kinds = {kind.name: kind for kind in catalogue()}
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", contract)
    rig = Rig(CONTRACT, checkpoint, tmp_path / "logs", seed=0)
    try:
        rig.start()
        rows = [campaign.run_fault(rig, kinds[name], random.Random(0), planner) for name in QUICK]
    finally:
        rig.close()
    for row in rows:
        assert row.outcome.startswith("recovered"), row
        assert row.collisions == 0 and not row.unexplained and not row.never_stopped and not row.missed, row
        # Jerk is judged by the campaign alone: a busy machine's late messages show there first.
        assert max(row.velocity_share, row.acceleration_share) <= TOLERANCE, row
    reasons = {row.fault: row.reason for row in rows}
    assert reasons["chunks: one NaN"] == "NOT_FINITE" and reasons["stop is called"] == "STOP_REQUESTED"
    assert reasons["the emergency stop is pressed"] == "EMERGENCY_STOP"
