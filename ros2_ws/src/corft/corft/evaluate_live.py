"""evaluate_live: trials of a running policy graph in a running cell, one JSON line a trial.

For every scene: reset the cell, enable the executor, send a RunPolicy goal with the scene's instruction, say
SUCCESS when the cell sees it, disable the executor. Times are ROS time. One failed trial never ends the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import rclpy
from corft_msgs.action import RunPolicy
from corft_msgs.msg import EpisodeEvent
from corft_msgs.srv import ResetScene
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import remove_ros_args
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from corft.chunk_messages import duration_message
from corft.stream_health import percentile
from corft_core.cli import run_main
from corft_core.errors import CorftError

GRAPH = ("camera_node", "policy_node", "executor_node")
ANSWER_S = 20.0
STANDING_S = 30.0
OUTCOMES = ("success", "failure", "timeout", "canceled", "aborted")


def scene_list(words: list[str]) -> list[str]:
    """`ind/0..ind/9`, `ind:10` (the first ten) and plain ids, also comma-separated → ids. CorftError when unclear."""
    scenes: list[str] = []
    for word in (part for text in words for part in text.split(",") if part):
        split, colon, count = word.partition(":")
        first, dots, last = word.partition("..")
        try:
            if colon:
                scenes += [f"{split}/{index}" for index in range(int(count))]
            elif dots:
                folder, _, low = first.rpartition("/")
                high = last.rpartition("/")[2]
                if last not in (high, f"{folder}/{high}") or int(high) < int(low):
                    raise ValueError
                scenes += [f"{folder}/{index}" for index in range(int(low), int(high) + 1)]
            else:
                scenes.append(word)
        except ValueError:
            raise CorftError(f"--scenes {word!r}: expected ids like ind/3, ranges like ind/0..ind/9, "
                             "or ind:10 for the first ten") from None
    if not scenes:
        raise CorftError("--scenes is empty: expected for example ind/0..ind/9")
    return scenes


class LiveEvaluation:
    """Client of the cell, the policy and the executor. Call from one thread while another spins `node`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._successes = 0
        self._samples = 0
        self._latencies_s: list[float] = []
        self._changed = threading.Condition()
        self._events = node.create_publisher(EpisodeEvent, "episode_event", 10)
        self._goals: ActionClient[Any, Any, Any] = ActionClient(node, RunPolicy, "run_policy")
        self._reset: Client[Any, Any] = node.create_client(ResetScene, "cell/reset")
        self._enable: Client[Any, Any] = node.create_client(SetBool, "executor_node/enable")
        self._states: dict[str, Client[Any, Any]] = {
            name: node.create_client(GetState, f"{name}/get_state") for name in GRAPH}
        node.create_subscription(Bool, "cell/success", self._receive_success, 10)

    @property
    def now_s(self) -> float:
        """ROS time."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def wait_for_graph(self, timeout_s: float) -> None:
        """Until cell and policy graph are up. CorftError names what is missing and how to start it."""
        deadline_s = time.monotonic() + timeout_s

        def remaining_s() -> float:
            return max(0.1, deadline_s - time.monotonic())

        if not self._reset.wait_for_service(remaining_s()):
            raise CorftError(f"no cell (service {self._reset.srv_name}) within {timeout_s:.0f} s; "
                             "start it: ros2 launch corft cell.launch.py")
        label = "missing"
        for name, client in self._states.items():
            while label != "active":
                if client.wait_for_service(remaining_s()):
                    answer = self._call(client, GetState.Request(), 5.0)
                    label = answer.current_state.label if answer is not None else "not answering"
                    if answer is not None and answer.current_state.id == State.PRIMARY_STATE_FINALIZED:
                        deadline_s = 0.0
                if label != "active" and time.monotonic() > deadline_s:
                    raise CorftError(f"{name} is {label} after {timeout_s:.0f} s, expected active; start it: "
                                     "ros2 launch corft bringup.launch.py checkpoint:=… use_sim_time:=true")
                time.sleep(0.0 if label == "active" else 0.2)
            label = "missing"

    def run_scene(self, scene_id: str, timeout_s: float) -> dict[str, Any]:
        """One trial, as a JSON-able row; whatever goes wrong is in its `outcome` and `reason`."""
        row = {"scene_id": scene_id, "success": False, "time_s": timeout_s, "target_xy_m": _target_xy_m(scene_id),
               "chunks": 0, "instruction": "", "outcome": "error", "reason": "", "latency_p50_s": None}
        try:
            row["instruction"] = self._prepare(scene_id)
            self._try(row, timeout_s)
        except CorftError as error:
            row["reason"] = str(error)
        finally:
            self._halt()
        return row

    def _prepare(self, scene_id: str) -> str:
        """Scene set, arm enabled; returns the instruction."""
        self._halt()
        response = self._call(self._reset, ResetScene.Request(scene_id=scene_id))
        if response is None or not response.success:
            raise CorftError("the cell did not answer the reset" if response is None else
                             f"the cell refused scene {scene_id}: {response.message}")
        # The executor must see the arm where the reset put it, and success must be that of the new scene.
        start_s, samples = self.now_s, self._samples
        self._until(lambda: self.now_s >= start_s + 0.3 and self._samples >= samples + 2 and not self._successes,
                    "the cell's state after the reset")
        answer = self._call(self._enable, SetBool.Request(data=True))
        if answer is None or not answer.success:
            raise CorftError("the executor could not be enabled: "
                             + ("no answer" if answer is None else answer.message))
        return str(response.instruction)

    def _try(self, row: dict[str, Any], timeout_s: float) -> None:
        self._latencies_s.clear()
        goal = RunPolicy.Goal(instruction=row["instruction"], timeout=duration_message(round(timeout_s * 1e9)))
        self._signal(EpisodeEvent.START, row)
        start_s = self.now_s
        handle = self._await(self._goals.send_goal_async(goal, self._receive_feedback), "the goal's acceptance")
        if not handle.accepted:
            raise CorftError("policy_node rejected the goal; its log says why")
        result = handle.get_result_async()
        result.add_done_callback(lambda _: self._notify())
        try:
            self._until(lambda: self._successes or result.done(), "the trial's end", start_s + timeout_s + 10.0)
            if self._successes:
                row["time_s"] = round(self.now_s - start_s, 3)
                row["success"] = row["time_s"] <= timeout_s
                self._signal(EpisodeEvent.SUCCESS, row)
            answer = self._await(result, "the goal's result")
        except CorftError:
            handle.cancel_goal_async()
            raise
        finally:
            if not row["success"]:
                self._signal(EpisodeEvent.FAILURE, row)
            self._signal(EpisodeEvent.STOP, row)
        row["chunks"] = int(answer.result.chunks)
        row["outcome"] = OUTCOMES[answer.result.outcome] if answer.result.outcome < len(OUTCOMES) else "unknown"
        row["reason"] = answer.result.reason
        row["latency_p50_s"] = round(percentile(self._latencies_s, 0.5), 4) if self._latencies_s else None

    def _halt(self) -> None:
        """The arm brakes and nothing more is executed."""
        if self._enable.service_is_ready():
            self._call(self._enable, SetBool.Request(data=False))

    def _signal(self, kind: int, row: dict[str, Any]) -> None:
        event = EpisodeEvent(kind=kind, instruction=row["instruction"], operator_id="evaluate_live",
                             scene_id=row["scene_id"])
        event.header.stamp = self.node.get_clock().now().to_msg()
        self._events.publish(event)

    # Callbacks (executor thread)

    def _receive_success(self, message: Bool) -> None:
        self._samples += 1
        self._successes = self._successes + 1 if message.data else 0
        self._notify()

    def _receive_feedback(self, message: Any) -> None:
        self._latencies_s.append(message.feedback.latency)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # Waiting

    def _until(self, condition: Callable[[], Any], what: str, deadline_s: float | None = None) -> None:
        """CorftError when ROS time passes `deadline_s` or stands still for STANDING_S of wall time."""
        seen_s, moved_at_s = self.now_s, time.monotonic()
        while not condition():
            with self._changed:
                self._changed.wait(0.02)
            now_s = self.now_s
            if now_s != seen_s:
                seen_s, moved_at_s = now_s, time.monotonic()
            elif time.monotonic() - moved_at_s > STANDING_S:
                raise CorftError(f"ROS time stood still while waiting for {what}; is the cell running?")
            if deadline_s is not None and now_s > deadline_s:
                raise CorftError(f"waited in vain for {what}")
            if not rclpy.ok():
                raise CorftError("interrupted")

    def _await(self, future: Any, what: str) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(ANSWER_S):
            raise CorftError(f"no answer within {ANSWER_S:.0f} s: {what}")
        return future.result()

    def _call(self, client: Any, request: Any, timeout_s: float = ANSWER_S) -> Any | None:
        """The response, or None without one in time."""
        if not client.wait_for_service(timeout_s):
            return None
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            client.remove_pending_request(future)
            return None
        return future.result()


def _target_xy_m(scene_id: str) -> list[float]:
    from corft_core.cell.scene import make_scene

    x, y = make_scene(scene_id).target_xy_m
    return [round(float(x), 4), round(float(y), 4)]


def _describe(row: dict[str, Any]) -> str:
    if row["success"]:
        return f"success after {row['time_s']:.1f} s, {row['chunks']} chunks"
    return f"no success ({row['outcome']}: {row['reason']}), {row['chunks']} chunks"


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ros2 run corft evaluate_live", description="Try a running policy graph in a running cell.",
        epilog="example: ros2 run corft evaluate_live --scenes ind/0..ind/9 --timeout 20 --out results.jsonl")
    parser.add_argument("--scenes", nargs="+", required=True,
                        help="scene ids (ind/3), ranges (ind/0..ind/9) or counts (ind:10)")
    parser.add_argument("--timeout", type=float, default=20.0,
                        help="ROS seconds that a trial may take (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True,
                        help="JSON-lines file, written as trials end; must not exist")
    parser.add_argument("--wait", type=float, default=120.0,
                        help="wall seconds to wait for cell and graph (default: %(default)s)")
    arguments = parser.parse_args(words)
    if arguments.timeout <= 0:
        raise CorftError(f"--timeout must be positive, got {arguments.timeout:g}")
    arguments.scenes = scene_list(arguments.scenes)
    for scene_id in arguments.scenes:
        _target_xy_m(scene_id)  # an unknown scene is refused before anything moves
    if arguments.out.exists():
        raise CorftError(f"--out {arguments.out} exists already; give another file or remove it")
    return arguments


def _evaluate(node: Node, arguments: argparse.Namespace, file: TextIO) -> int:
    evaluation = LiveEvaluation(node)
    evaluation.wait_for_graph(arguments.wait)
    rows = []
    for number, scene_id in enumerate(arguments.scenes, start=1):
        row = evaluation.run_scene(scene_id, arguments.timeout)
        if not rclpy.ok():
            raise KeyboardInterrupt
        rows.append(row)
        file.write(json.dumps(row) + "\n")
        file.flush()
        print(f"scene {scene_id} ({number}/{len(arguments.scenes)}): {_describe(row)}", flush=True)
    ran = sum(row["outcome"] not in ("error", "aborted") for row in rows)
    print(f"{sum(row['success'] for row in rows)} of {len(rows)} successful, {len(rows) - ran} could not be run to "
          f"their end; written to {arguments.out}", flush=True)
    return 0 if ran else 1


def _run() -> int:
    arguments = _parse(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    # A node of the cell's world: its clock is the cell's unless told otherwise.
    node = rclpy.create_node("evaluate_live", parameter_overrides=[
        Parameter("use_sim_time", value=True)] if not _sim_time_given() else None)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return  # Ctrl-C: the main thread sees rclpy.ok() turn false

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w") as file:
            return _evaluate(node, arguments, file)
    except Exception:
        if rclpy.ok():
            raise
        raise KeyboardInterrupt from None  # Ctrl-C has shut the context down; whatever that broke is no news
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(5.0)
        node.destroy_node()
        rclpy.try_shutdown()


def _sim_time_given() -> bool:
    return any("use_sim_time" in word for word in sys.argv)


def main() -> int:
    """Entry point of `ros2 run corft evaluate_live`."""
    return run_main(_run)


if __name__ == "__main__":
    sys.exit(main())
