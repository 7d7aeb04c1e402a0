"""docs/how-to/your-robot.md followed on a second arm that runs: six joints, a revolute gripper, one camera."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from corft_msgs.msg import ActionChunk, ExecutionStatus
from rclpy.node import Node
from ros.graph import ACTIVATE, CONFIGURE, PATIENCE_S, call, change_state, running, spin_for, spin_until
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory
from your_robot import FOLDER, ROOT, blocks

from corft.chunk_messages import chunk_message
from corft_core.contract import Contract

pytestmark = pytest.mark.ros
CONTRACT = Contract.load(FOLDER / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)


def environment() -> dict[str, str]:
    """Of the processes: on this module's domain."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Watcher(Node):
    """Sees the arm, what is sent to its controller and what the executor says; sends chunks."""

    def __init__(self) -> None:
        super().__init__("watcher")
        self.stamp_ns, self.position, self.finger, self.fastest = 0, np.zeros(6), 0.0, 0.0
        self.sent: list[JointTrajectory] = []
        self.shown: list[JointTrajectory] = []
        self.statuses: list[ExecutionStatus] = []
        self.number = 0
        self.chunks = self.create_publisher(ActionChunk, "action_chunk", 1)
        self.create_subscription(JointState, CONTRACT.joint_state.topic, self._on_joints, 1)
        self.create_subscription(JointTrajectory, CONTRACT.arm_command.topic, self.sent.append, 10)
        self.create_subscription(JointTrajectory, "executor_node/dry_run/joint_trajectory", self.shown.append, 10)
        self.create_subscription(ExecutionStatus, "execution_status", self.statuses.append, 10)

    def _on_joints(self, message: JointState) -> None:
        values = dict(zip(message.name, message.position, strict=True))
        self.stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        self.position = np.array([values[name] for name in CONTRACT.robot.joints])
        self.finger = values.get("robotiq_85_left_knuckle_joint", np.nan)
        self.fastest = max(self.fastest, float(np.max(np.abs(message.velocity))))

    def send_chunk(self, contract: Contract, target: np.ndarray) -> None:
        """One chunk from the present position towards ``target``, the gripper, if any, closed."""
        away = target - self.position
        part = np.minimum(0.05 * np.arange(1, 11) / max(float(np.max(np.abs(away))), 1e-9), 1.0)
        arm = self.position + part[:, None] * away
        actions = arm if contract.gripper is None else np.column_stack([arm, np.zeros(10)])
        self.number += 1
        self.chunks.publish(chunk_message(contract, self.stamp_ns, actions, chunk_number=self.number,
                                          policy_id="test", value=float("nan"), inference_s=0.0))


@contextlib.contextmanager
def process(command: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stays, its output in ``log``, ended as by Ctrl-C."""
    with log.open("wb") as file:
        child = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=environment())
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(PATIENCE_S)
        print(f"--- {' '.join(command)}\n{log.read_text(errors='replace')[-6000:]}")


@pytest.fixture
def watcher(rclpy_context: None) -> Iterator[Watcher]:
    node = Watcher()
    yield node
    node.destroy_node()


@pytest.mark.parametrize("gripper", [True, False])
def test_the_executor_drives_the_arm_on_chunks_and_its_gripper_by_polarity(
        watcher: Watcher, tmp_path: Path, gripper: bool) -> None:
    plain = CONTRACT.to_dict()
    if not gripper:
        del plain["gripper"], plain["streams"]["gripper_command"]
    contract, file = Contract.from_dict(plain), tmp_path / "contract.yaml"
    file.write_text(yaml.safe_dump(plain))
    shutil.copy(FOLDER / "scene.yaml", tmp_path)
    command = [sys.executable, str(FOLDER / "driver.py"), str(file)]
    with process(command, ROOT, tmp_path / "driver.log"), \
            running("executor_node", {"contract": file, "handoff_s": 0.2}) as executor:
        assert change_state(watcher, "executor_node", CONFIGURE, ACTIVATE) == [True, True]
        spin_until(watcher, lambda: watcher.stamp_ns > 0 and watcher.chunks.get_subscription_count() == 1, "the arm")
        enable = SetBool.Request(data=True)
        spin_until(watcher, lambda: call(watcher, SetBool, "executor_node/enable", enable).success, "enabling")
        target = HOME + np.array([-0.4, 0.1, 0.1, 0.0, 0.2, -0.3])

        def arrived() -> bool:
            watcher.send_chunk(contract, target)
            spin_for(watcher, 0.25)
            return bool(np.max(np.abs(watcher.position - target)) < 0.02)

        spin_until(watcher, arrived, "the arm to be there")
        if gripper:
            spin_until(watcher, lambda: watcher.finger == 0.8, "the gripper to be closed")
        spin_until(watcher, lambda: watcher.sent, "what was sent")
        assert set(watcher.sent[0].joint_names) == set(CONTRACT.robot.joints)
        assert watcher.fastest <= max(CONTRACT.limits.velocity_rad_s) + 1e-6
        assert "Traceback" not in executor.output


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command on the PATH")
def test_the_guide_leads_from_the_doctor_to_a_policy_that_drives(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    shutil.copytree(FOLDER, tmp_path / "my_robot")
    log = tmp_path / "stays.log"
    with contextlib.ExitStack() as robot, contextlib.ExitStack() as graph:
        for number, block in enumerate(blocks()):
            if block.mark == "stays":
                log = tmp_path / f"stays_{number}.log"
                launch = block.text.startswith("ros2 launch")
                graph.close()
                watcher.statuses.clear()
                (graph if launch else robot).enter_context(process(block.text.split(), tmp_path, log))
                ready = "all nodes are active" if launch else "is running"
                spin_until(watcher, lambda log=log, ready=ready: ready in log.read_text(), ready, 2 * PATIENCE_S)
                spin_until(watcher, lambda launch=launch: watcher.stamp_ns and (watcher.statuses or not launch),
                           "its topics")
                stood, watcher.fastest = watcher.position.copy(), 0.0
                watcher.sent.clear()
            elif block.mark == "live":
                output = run(block.text, tmp_path, watcher, 0 if not block.expect else None)
                assert block.expect in output, output
                check(block.section, block.expect, watcher, stood, log)


def run(text: str, folder: Path, watcher: Watcher, code: int | None) -> str:
    """Run a block of commands while the watcher listens; its output."""
    with (folder / "live.log").open("wb") as file:
        child = subprocess.Popen(["bash", "-ec" if code == 0 else "-c", text], cwd=folder, stdout=file,
                                 stderr=subprocess.STDOUT, env=environment())
    try:
        spin_until(watcher, lambda: child.poll() is not None, text, 5 * PATIENCE_S)
    finally:
        child.kill()
    output = (folder / "live.log").read_text(errors="replace")
    print(f"$ {text}\n{output}")
    assert code is None or child.returncode == code, output
    return output


def check(section: str, expect: str, watcher: Watcher, stood: np.ndarray, log: Path) -> None:
    """What the guide says is to be seen after a block."""
    if section == "6. Dry run":
        spin_until(watcher, lambda: "dry run, not sent" in log.read_text(), "the line in the log")
        spin_until(watcher, lambda: watcher.shown, "what would be sent")
        assert "starts 0.0" in log.read_text() and "from the measured arm" in log.read_text()
        spin_for(watcher, 1.5)
        assert watcher.sent == [] and np.array_equal(watcher.position, stood)
        end = watcher.shown[-1]
        order = [end.joint_names.index(name) for name in CONTRACT.robot.joints]
        np.testing.assert_allclose(np.array(end.points[-1].positions)[order], HOME, atol=1e-3)
    elif section == "7. First motion" and expect == "success=True":
        spin_until(watcher, lambda: np.max(np.abs(watcher.position - HOME)) < 1e-3, "the arm to be home")
        assert 0.0 < watcher.fastest < 0.1 * max(CONTRACT.limits.velocity_rad_s)
    elif section == "7. First motion" and expect in ("disabled", "success=False"):
        assert np.array_equal(watcher.position, stood)
    elif section.startswith("8.") and expect == "timeout":
        assert any(status.state == ExecutionStatus.EXECUTING for status in watcher.statuses), "chunks were followed"
