"""`ros2 run corft doctor` finds nothing on a robot that is well, and names what is wrong and what to type otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rclpy
from policy_servers import free_port, serving
from ros.graph import CONTRACT, running, spin_until
from ros.tiny_policy import make_tiny_checkpoint
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from corft.doctor_server import server_checks
from corft_core.contract import Contract
from corft_core.policy.config import HistoryConfig
from corft_core.serving.local import LocalPolicy

pytestmark = pytest.mark.ros


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and findings by what was looked at."""
    result = subprocess.run([sys.executable, "-m", "corft.doctor", "--json", *arguments], capture_output=True,
                            text=True, check=False, timeout=120)
    assert result.stdout, result.stderr
    found = json.loads(result.stdout)
    return result.returncode, {check["what"]: check for check in found["checks"]}


def test_a_robot_that_is_well_and_one_that_is_off(rclpy_context: None, tmp_path: Path) -> None:
    node = rclpy.create_node("patient")
    heard: list[JointState] = []
    node.create_subscription(JointState, "joint_states", heard.append, 1)
    with running("cell_node", {"contract": CONTRACT}):
        spin_until(node, lambda: heard, "joint states of the cell")
        code, checks = doctor("--contract", str(CONTRACT), "--use-sim-time")
        assert code == 0, checks
        assert {"joint_state", "front", "wrist", "joint names", "arm's pose", "controller"} <= checks.keys()
        assert "positions, velocities and accelerations" in checks["controller"]["seen"]

        wrong = tmp_path / "contract.yaml"
        wrong.write_text(CONTRACT.read_text().replace("front_camera/image_raw", "head_camera/image_raw"))
        code, checks = doctor("--contract", str(wrong), "--use-sim-time")
        assert code == 1 and "/front_camera/image_raw" in checks["front"]["seen"], "the topic that is meant is named"

        code, checks = doctor("--contract", str(CONTRACT))
        assert code == 1 and "--use-sim-time" in checks["joint_state"]["seen"]
    spin_until(node, lambda: not node.count_publishers("joint_states"), "the end of the cell")
    recorder = rclpy.create_node("rosbag2_recorder")
    recorder.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda message: None, 1)
    code, checks = doctor("--contract", str(CONTRACT))
    assert code == 1 and "nobody publishes it" in checks["joint_state"]["seen"]
    assert "list_controllers" in checks["arm command"]["fix"]
    recorder.destroy_node()
    node.destroy_node()


def test_without_a_robot_the_contract_is_checked(tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    text = CONTRACT.read_text()
    contract.write_text(text.replace("velocity_rad_s: [2.17,", "velocity_rad_s: [9.0,"))
    code, checks = doctor("--contract", str(contract), "--offline")
    assert code == 0 and "panda_joint1 9 above" in checks["velocity limits"]["seen"]
    assert checks["scene"]["level"] == "warning", "no scene.yaml lies beside this contract"
    assert "joint_state" not in checks

    contract.write_text(text.replace("home_rad: [0.0, -0.6,", "home_rad: [0.0, 1.5,"))
    code, checks = doctor("--contract", str(contract), "--scene", str(CONTRACT.parent / "scene.yaml"), "--offline")
    assert code == 1 and checks["home pose"]["level"] == "ERROR"

    code, checks = doctor("--contract", str(CONTRACT), "--offline", "--checkpoint", str(tmp_path), "--device", "cuda")
    assert code == 1 and "config.json" in checks["checkpoint"]["seen"]


def test_a_policy_server_is_greeted_and_asked(tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    checkpoint = make_tiny_checkpoint(tmp_path / "memory", contract, history=HistoryConfig(steps=2, stride=2))
    with serving(LocalPolicy(checkpoint)) as server:
        code, checks = doctor("--contract", str(CONTRACT), "--offline", "--server", server.address)
        assert code == 0 and checks["chunks"]["level"] in ("ok", "warning"), checks
        assert "ms are not inference" in checks["chunks"]["seen"] and "tiny-test" in checks["connection"]["seen"]
        other = tmp_path / "contract.yaml"
        other.write_text(CONTRACT.read_text().replace("rate_hz: 10", "rate_hz: 20"))
        found = {check.what: check for check in server_checks(server.address, None, Contract.load(other))}
        assert "rate_hz: 10 != 20" in found["policy"].seen and "chunks" not in found


def test_a_policy_server_that_is_not_there_is_said() -> None:
    found = list(server_checks(f"tcp://127.0.0.1:{free_port()}", None, Contract.load(CONTRACT), 0.3))
    assert [check.level for check in found] == ["ERROR"] and "is it running" in found[0].seen
    assert "policy_server --checkpoint" in found[0].fix


def test_moveit_that_is_missing_is_named() -> None:
    code, checks = doctor("--contract", str(CONTRACT), "--offline", "--planner", "moveit")
    found = checks["moveit_py"]
    assert (code, found["level"]) == (0, "ok") or (code == 1 and "apt install" in found["seen"])
