"""`ros2 run corft doctor` finds nothing on a robot that is well, and names what is wrong and what to type otherwise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from policy_servers import free_port, serving
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros.graph import CONTRACT, running, spin_until
from ros.tiny_policy import make_tiny_checkpoint
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from corft.doctor_server import server_checks
from corft_core.contract import Contract
from corft_core.planning import resolve_description
from corft_core.policy.config import HistoryConfig
from corft_core.serving.local import LocalPolicy

pytestmark = pytest.mark.ros


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and findings by what was looked at, those of several lines joined."""
    result = subprocess.run([sys.executable, "-m", "corft.doctor", "--json", *arguments], capture_output=True,
                            text=True, check=False, timeout=120)
    assert result.stdout, result.stderr
    found = json.loads(result.stdout)
    checks: dict[str, Any] = {}
    for check in found["checks"]:
        before = checks.get(check["what"])
        checks[check["what"]] = check if before is None else {key: f"{before[key]}\n{check[key]}" for key in check}
    return result.returncode, checks


class Robot:
    """A robot whose faults the test chooses, spun in a thread: joint states, pictures, a controller's node."""

    def __init__(self, joints: tuple[str, ...], position: Sequence[float], controller: Mapping[str, Any],
                 front: QoSProfile, commands: QoSProfile, wrist_hz: float = 30.0, urdf: str = "") -> None:
        self._position = [*position, 0.04]
        self._names = [*joints, "panda_finger_joint1"]
        self._node = rclpy.create_node("driver")
        arm = Node("arm_controller")
        for name, value in controller.items():
            arm.declare_parameter(name, value)
        self._states = self._node.create_publisher(JointState, "joint_states", 10)
        self._front = self._node.create_publisher(Image, "front_camera/image_raw", front)
        self._wrist = self._node.create_publisher(Image, "wrist_camera/image_raw", 2)
        self._node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda _: None, commands)
        self._node.create_timer(0.02, self._joints)
        self._node.create_timer(1 / 30, lambda: self._picture(self._front))
        self._node.create_timer(1 / wrist_hz, lambda: self._picture(self._wrist))
        if urdf:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._node.create_publisher(String, "robot_description", latched).publish(String(data=urdf))
        self._executor = SingleThreadedExecutor()
        for node in (self._node, arm):
            self._executor.add_node(node)
        self._nodes = (self._node, arm)
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()

    def _joints(self) -> None:
        message = JointState(name=self._names, position=self._position)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._states.publish(message)

    def _picture(self, publisher: Publisher[Image]) -> None:
        message = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12))
        message.header.stamp = self._node.get_clock().now().to_msg()
        publisher.publish(message)

    def end(self) -> None:
        """Stop spinning, take the nodes out of the graph."""
        self._executor.shutdown()
        self._thread.join()
        for node in self._nodes:
            node.destroy_node()


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
        code, checks = doctor("--contract", str(wrong))
        assert code == 1 and "/front_camera/image_raw" in checks["front"]["seen"], "the topic that is meant is named"
        assert "--use-sim-time" in checks["joint_state"]["seen"]
    spin_until(node, lambda: not node.count_publishers("joint_states"), "the end of the cell")
    recorder = rclpy.create_node("rosbag2_recorder")
    recorder.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda message: None, 1)
    code, checks = doctor("--contract", str(CONTRACT))
    assert code == 1 and "nobody publishes it" in checks["joint_state"]["seen"]
    assert "list_controllers" in checks["arm command"]["fix"]
    recorder.destroy_node()
    node.destroy_node()


JOINTS = Contract.load(CONTRACT).robot.joints
HOME = Contract.load(CONTRACT).robot.home_rad
VOLATILE = QoSProfile(depth=10)


def test_every_fault_of_topics_qos_rates_joint_names_and_the_controllers_joints_is_named(
        rclpy_context: None, tmp_path: Path) -> None:
    plain = yaml.safe_load(CONTRACT.read_text())
    front, wrist = plain["cameras"]
    front["qos"], wrist["max_age_s"] = "reliable", 2.0
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(plain))
    shutil.copy(CONTRACT.parent / "scene.yaml", tmp_path)
    robot = Robot((*JOINTS[:-1], "panda_joint_7"), HOME, {"joints": ["joint_a", "joint_b"]},
                  front=QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT),
                  commands=QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL), wrist_hz=4.0)
    try:
        code, checks = doctor("--contract", str(tmp_path / "contract.yaml"))
    finally:
        robot.end()
    assert code == 1
    level, seen, fix = ({what: check[key] for what, check in checks.items()} for key in ("level", "seen", "fix"))
    assert level["joint_state"] == "ok", checks
    assert level["front"] == "ERROR" and "driver: Best effort publisher and reliable subscription" in seen["front"]
    assert "`qos: sensor_data`" in seen["front"]
    assert level["wrist"] == "warning" and "Hz is below the contract's rate_hz 10" in seen["wrist"]
    assert level["joint names"] == "ERROR" and seen["joint names"].startswith("panda_joint7 never came")
    assert "panda_joint_7" in seen["joint names"] and "robot.joints" in fix["joint names"]
    assert level["arm command"] == "ERROR" and "VOLATILE" in fix["arm command"]
    assert "which driver does not hear with its TRANSIENT_LOCAL" in seen["arm command"]
    assert level["controller"].startswith("ERROR") and "moves the joints joint_a, joint_b" in seen["controller"]
    assert level["gripper command"] == "warning" and "gripper_interface" in fix["gripper command"]


def test_every_fault_of_clock_limits_and_the_controllers_parameters_is_named(rclpy_context: None) -> None:
    urdf = resolve_description("example-robot-data:panda_description").urdf
    assert 'upper="2.8973"' in urdf
    robot = Robot(JOINTS, [*HOME[:-1], 45.0], {"joints": list(JOINTS), "interpolate_from_desired_state": False,
                                               "constraints.panda_joint1.trajectory": 0.0},
                  front=VOLATILE, commands=VOLATILE,
                  urdf=re.sub(r'upper="2.8973"', 'upper="1.5"', urdf, count=1))
    try:
        code, checks = doctor("--contract", str(CONTRACT), "--use-sim-time")
    finally:
        robot.end()
    assert code == 1
    level, seen, fix = ({what: check[key] for what, check in checks.items()} for key in ("level", "seen", "fix"))
    assert level["clock"] == "ERROR" and "no /clock" in seen["clock"] and "--use-sim-time" in fix["clock"]
    assert level["arm's pose"] == "ERROR" and "panda_joint7 45.000 rad not in [-2.897, 2.897]" in seen["arm's pose"]
    assert "unit: deg" in fix["arm's pose"]
    assert level["running description"] == "warning"
    assert "panda_joint1 [-2.897, 1.500], not [-2.897, 2.897] rad" in seen["running description"]
    assert "ros2 param get" in fix["running description"]
    assert level["arm command"] == "ok", seen["arm command"]
    assert level["joint names"] == "ok", seen["joint names"]
    assert "ERROR" not in level["controller"]
    for advice in ("ros2 param set arm_controller interpolate_from_desired_state true",
                   "ros2 param set arm_controller constraints.panda_joint1.trajectory 0.2",
                   "ros2 param set arm_controller use_sim_time true"):
        assert advice in seen["controller"]


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
