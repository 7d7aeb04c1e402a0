"""`ros2 launch corft bringup.launch.py` with a simulated cell: a trial, crashes, Ctrl-C; and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from ros.graph import CONTRACT, PATIENCE_S, call, running, spin_for, spin_until
from ros.tiny_policy import make_tiny_checkpoint
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from corft_core.contract import Contract

pytestmark = [pytest.mark.ros, pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command on the PATH")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("bringup") / "co_rft", Contract.load(CONTRACT))


@contextlib.contextmanager
def launched(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ros2 launch corft bringup.launch.py …` with its output in `log`, ended by Ctrl-C."""
    with log.open("wb") as file:
        process = subprocess.Popen(["ros2", "launch", "corft", "bringup.launch.py", *arguments], stdout=file,
                                   stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    except BaseException:
        print(f"--- output of the launch\n{log.read_text(errors='replace')}")
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def pids(log: Path) -> dict[str, int]:
    """The newest process of every node of a launch."""
    return {name: int(pid) for name, pid in re.findall(
        r"\[(\w+)-\d+\]: process started with pid \[(\d+)\]", log.read_text())}


def activity_of(node: Node) -> Callable[[], bool]:
    """Whether the graph in the node's namespace is active."""
    manager = node.create_client(Trigger, "lifecycle_manager/is_active")

    def active() -> bool:
        """Asked anew after a while: a request to a manager that was killed is never answered."""
        future, deadline_s = manager.call_async(Trigger.Request()), time.monotonic() + 2.0
        while not future.done() and time.monotonic() < deadline_s:
            rclpy.spin_once(node, timeout_sec=0.1)
        answer = future.result() if future.done() else None
        return answer is not None and bool(answer.success)

    return active


@pytest.mark.timeout(900)
def test_a_trial_runs_in_a_namespace_killed_nodes_return_and_ctrl_c_ends_everything(
        rclpy_context: None, checkpoint: Path, tmp_path: Path) -> None:
    node = rclpy.create_node("bringup_test", namespace="/left")
    chunks: list[ActionChunk] = []
    states: set[int] = set()
    node.create_subscription(ActionChunk, "action_chunk", chunks.append, 10)
    node.create_subscription(ExecutionStatus, "execution_status", lambda status: states.add(status.state), 10)

    def trial(scene: str) -> dict[str, Any]:
        chunks.clear()
        states.clear()
        out.unlink(missing_ok=True)
        program = subprocess.Popen(["ros2", "run", "corft", "evaluate_live", "--scenes", scene, "--timeout", "4",
                                    "--out", str(out), "--ros-args", "-r", "__ns:=/left"])
        spin_until(node, lambda: program.poll() is not None, "evaluate_live", 3 * PATIENCE_S)
        assert program.returncode == 0
        (row,) = [json.loads(line) for line in out.read_text().splitlines()]
        assert ExecutionStatus.EXECUTING in states, "the executor followed the chunks"
        return row

    active = activity_of(node)
    log, out = tmp_path / "launch.log", tmp_path / "results.jsonl"
    with running("cell_node", {"real_time_factor": 1.0}, namespace="/left"), \
            launched(log, f"checkpoint:={checkpoint}", "use_sim_time:=true", "namespace:=left",
                     "torch_threads:=1") as launch:
        spin_until(node, active, "the graph", 2 * PATIENCE_S)
        row = trial("ind/0")
        assert (row["scene_id"], row["success"], row["outcome"]) == ("ind/0", False, "timeout")
        assert row["chunks"] == len(chunks) >= 2 and row["latency_p50_s"] > 0
        assert row["instruction"] == "pick up the red cube and put it in the bin"

        before = pids(log)
        for name in ("camera_node", "policy_node", "executor_node", "lifecycle_manager"):
            os.kill(before[name], signal.SIGKILL)
        spin_until(node, lambda: all(pids(log)[name] != pid for name, pid in before.items()), "all to be started anew")
        spin_until(node, active, "the graph after the crash", 3 * PATIENCE_S)
        states.clear()
        spin_until(node, lambda: bool(states), "the executor's status")
        assert states == {ExecutionStatus.DISABLED}, "until the operator enables it again"
        assert trial("ind/1")["outcome"] == "timeout"

        every = {int(pid) for pid in re.findall(r"process started with pid \[(\d+)\]", log.read_text())}
        launch.send_signal(signal.SIGINT)
        assert launch.wait(PATIENCE_S) == 0
    deadline_s = time.monotonic() + PATIENCE_S
    while alive(every) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not alive(every)
    assert "SIGKILL" not in log.read_text()


@pytest.mark.timeout(900)
def test_a_stop_outlives_the_executor_and_with_auto_enable_too_nothing_moves_until_it_is_answered(
        rclpy_context: None, checkpoint: Path, tmp_path: Path) -> None:
    node = rclpy.create_node("bringup_test", namespace="/right")
    goals: ActionClient[Any, Any, Any] = ActionClient(node, RunPolicy, "run_policy")
    statuses: list[ExecutionStatus] = []
    sent: list[JointTrajectory] = []
    node.create_subscription(ExecutionStatus, "execution_status", statuses.append, 10)
    node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", sent.append, 10)
    active = activity_of(node)

    def ask(service: str, on: bool) -> SetBool.Response:
        return call(node, SetBool, f"executor_node/{service}", SetBool.Request(data=on))

    def begin() -> Any:
        future = goals.send_goal_async(RunPolicy.Goal(instruction="put the red cube into the bin"))
        spin_until(node, future.done, "the goal's acceptance")
        assert future.result().accepted
        return future.result().get_result_async()

    def outcome(result: Any) -> str:
        spin_until(node, result.done, "the goal's end")
        return str(result.result().result.reason)

    def moves() -> None:
        statuses.clear()
        spin_until(node, lambda: any(s.state == ExecutionStatus.EXECUTING for s in statuses), "the arm to move")

    def crash() -> None:
        """And back again; what it says then is in ``statuses``, what it sends in ``sent``."""
        before = pids(log)["executor_node"]
        os.kill(before, signal.SIGKILL)
        spin_until(node, lambda: pids(log)["executor_node"] != before, "another executor")
        statuses.clear()
        sent.clear()
        spin_until(node, lambda: bool(statuses) and active(), "the graph after the crash", 2 * PATIENCE_S)
        spin_for(node, 2.0)

    log = tmp_path / "launch.log"
    with running("cell_node", {"real_time_factor": 1.0}, namespace="/right"), \
            launched(log, f"checkpoint:={checkpoint}", "use_sim_time:=true", "namespace:=right", "auto_enable:=true",
                     "torch_threads:=1"):
        spin_until(node, active, "the graph", 2 * PATIENCE_S)
        result = begin()
        moves()
        assert ask("estop", True).success
        assert "EMERGENCY_STOP" in outcome(result)
        crash()
        assert {s.state for s in statuses} == {ExecutionStatus.STOPPED} and sent == []
        assert {s.reason for s in statuses} == {"EMERGENCY_STOP"}
        assert "the emergency stop was called (service estop)" in outcome(begin()), "another goal ends with the reason"
        assert not ask("enable", True).success and sent == []
        assert ask("estop", False).success
        crash()
        assert {s.state for s in statuses} == {ExecutionStatus.DISABLED} and sent == [], "released is not enabled"
        assert ask("enable", True).success
        result = begin()
        moves()
        assert call(node, Trigger, "executor_node/stop", Trigger.Request()).success
        assert "STOP_REQUESTED" in outcome(result)
        crash()
        assert {s.state for s in statuses} == {ExecutionStatus.DISABLED} and sent == []
        assert "waits for ~/enable: stop was called" in log.read_text()
        assert ask("enable", True).success
        crash()
        assert ExecutionStatus.IDLE in {s.state for s in statuses}, "nothing waits for an answer"


def test_a_folder_that_is_no_checkpoint_ends_the_launch_with_the_reason(ros_domain: int, tmp_path: Path) -> None:
    log = tmp_path / "launch.log"
    with launched(log, f"checkpoint:={tmp_path}") as launch:
        assert launch.wait(2 * PATIENCE_S) != 0
    assert "is no checkpoint" in log.read_text()


def test_a_checkpoint_of_another_robot_ends_the_launch_with_the_differences(
        ros_domain: int, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(CONTRACT.read_text().replace("name: panda_cell", "name: other_cell"))
    log = tmp_path / "launch.log"
    with launched(log, f"checkpoint:={checkpoint}", f"contract:={other}") as launch:
        assert launch.wait(2 * PATIENCE_S) != 0
    assert "trained for another robot" in log.read_text() and "panda_cell != other_cell" in log.read_text()


def test_a_contract_with_an_unknown_key_ends_the_launch_with_its_name(ros_domain: int, tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text(CONTRACT.read_text() + "rate_hertz: 10\n")
    log = tmp_path / "launch.log"
    with launched(log, f"contract:={contract}") as launch:
        assert launch.wait(2 * PATIENCE_S) != 0
    assert "unknown key rate_hertz" in log.read_text()


def test_a_checkpoint_that_cannot_be_read_ends_the_launch_with_the_reason(
        ros_domain: int, checkpoint: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    (damaged / "config.json").write_text("{}")
    log = tmp_path / "launch.log"
    with launched(log, f"checkpoint:={damaged}") as launch:
        launch.wait(2 * PATIENCE_S)
    text = log.read_text()
    assert "policy_node: configure failed" in text
    assert "bring-up given up after 3 attempts: policy_node" in text
    assert "Traceback" not in text


def test_without_a_checkpoint_cameras_and_executor_come_up_for_recording(ros_domain: int, tmp_path: Path) -> None:
    log = tmp_path / "launch.log"
    with launched(log) as launch:
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while "all nodes are active" not in log.read_text() and time.monotonic() < deadline_s:
            assert launch.poll() is None, log.read_text()
            time.sleep(0.2)
    assert "all nodes are active" in log.read_text() and "policy_node" not in log.read_text()


def test_the_arguments_are_shown_with_their_descriptions() -> None:
    shown = subprocess.run(["ros2", "launch", "corft", "bringup.launch.py", "--show-args"], capture_output=True,
                           text=True, timeout=PATIENCE_S, check=True).stdout
    for name in ("checkpoint", "contract", "planner", "namespace", "use_sim_time", "replan_steps", "speed_scale"):
        assert f"'{name}':" in shown
    assert "no description" not in shown.lower()
