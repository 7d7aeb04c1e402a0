"""policy_node: a checkpoint behind the RunPolicy action.

While a goal runs, every `replan_steps` ticks of the policy's rate (ROS time) the node takes the observation as of
the tick from the aligner that the converter uses, runs the policy in a thread of its own and publishes an
ActionChunk stamped with the tick. A goal ends by an EpisodeEvent SUCCESS or FAILURE, timeout (ROS time), cancel,
or is aborted with a reason: stale observations, a standing clock, time going back, an executor that has stopped or
fallen silent, deactivation. Feedback: chunk number, latency, the critic's value, the executor's queue. In `chunk_mode`
rtc a chunk goes on from the actions that the executor is committed to (real-time chunking).
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, EpisodeEvent
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.task import Future
from rclpy.time import Time

from corft.chunk_messages import chunk_message, duration_message
from corft.node_base import ERROR, OK, WARN, CorftLifecycleNode, Diagnosis, load_contract, qos_profile
from corft.node_main import run_node
from corft.policy.checks import check_robot, checkpoint_folder, staleness
from corft.policy.executor_link import ExecutorLink, shifted
from corft.policy.inputs import PolicyInputs
from corft.policy.parameters import POLICY_PARAMETERS
from corft.policy.run import PolicyRun
from corft.stream_health import percentile
from corft_core.contract import Contract
from corft_core.data.align import Aligner
from corft_core.errors import CorftError
from corft_core.execution.splice import check_rtc, delay_steps

Result = RunPolicy.Result
FIRST_OBSERVATION_S = 3.0


class PolicyNode(CorftLifecycleNode):
    """See the module's docstring."""

    PARAMETERS = POLICY_PARAMETERS

    def __init__(self) -> None:
        self._policy: Any = None
        self._contract: Contract | None = None
        self._run: PolicyRun | None = None
        self._handle: ServerGoalHandle | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._inputs: PolicyInputs | None = None
        self._link: ExecutorLink | None = None
        self._last_chunk: tuple[int, Any] | None = None
        self._latencies_s: deque[float] = deque(maxlen=256)
        self._chunks = 0
        self._waiting_for: list[str] = []
        super().__init__("policy_node")
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._time_jumped)
        self._server = ActionServer(
            self, RunPolicy, "run_policy", execute_callback=self._execute, goal_callback=self._accept,
            cancel_callback=self._cancel)

    # Lifecycle

    def configure(self) -> None:
        folder = checkpoint_folder(self.param("checkpoint"))
        # torch takes seconds to import: a wrong folder is refused before.
        import torch

        from corft_core.policy.policy import Policy

        torch.set_num_threads(self.param("torch_threads") or max(1, (torch.get_num_threads() + 1) // 2))
        policy = Policy.load(folder, device=self.param("device"))
        self._contract = load_contract(self.param("contract")) if self.param("contract") else policy.contract
        check_robot(policy.contract, self._contract, folder)
        self.hardware_id = self._contract.robot.name
        if self.param("replan_steps") > policy.horizon:
            raise CorftError(f"parameter 'replan_steps' is {self.param('replan_steps')}, "
                             f"the checkpoint's chunks have {policy.horizon} steps")
        self._policy = policy
        self._generator = torch.Generator(device="cpu")
        self._aligner = Aligner(self._contract)
        self._chunk_publisher = self.create_lifecycle_publisher(
            ActionChunk, "action_chunk", qos_profile("reliable", 10))
        first_s, warm_s = self._predict_nothing(), self._predict_nothing()
        interval_s = self.param("replan_steps") / self._contract.rate_hz
        self.get_logger().info(
            f"policy {policy.policy_id}: {policy.horizon} steps at {policy.rate_hz} Hz = "
            f"{policy.horizon / policy.rate_hz:.2f} s a chunk, a new one every {interval_s:.2f} s; inference "
            f"{warm_s * 1e3:.0f} ms warm, {first_s * 1e3:.0f} ms cold")
        if warm_s > interval_s:
            self.get_logger().warning(f"inference ({warm_s:.2f} s) is slower than the interval between chunks")
        if self.param("chunk_mode") == "rtc":
            self._check_rtc(warm_s)

    def _check_rtc(self, inference_s: float) -> None:
        """Before anything connects: real-time chunking needs joint actions, and d ≤ s ≤ h - d."""
        assert self._contract is not None
        if self._contract.action_space != "joint":
            raise CorftError(f"chunk_mode rtc goes on from joint positions; this policy's actions are "
                             f"{self._contract.action_space}. Use chunk_mode:=splice.")
        delay = delay_steps(inference_s, self.param("handoff_s"), self._contract.step_ns * 1e-9)
        check_rtc(self._policy.horizon, self.param("replan_steps"), delay)
        if not self._policy.inpaints:
            self.get_logger().warning("this policy's head can't go on from given actions: chunks are only blended with "
                                      "the running motion")
        self.get_logger().info(f"rtc: {delay} of {self._policy.horizon} steps are expected to pass until a chunk is "
                               "followed")

    def _predict_nothing(self) -> float:
        """Wall seconds that one inference on black images takes."""
        assert self._contract is not None
        images = {c.name: np.zeros((1, *c.size, 3), np.uint8) for c in self._contract.cameras}
        state = np.zeros((1, len(self._contract.state_names)))
        state[0, :len(self._contract.robot.joints)] = self._contract.robot.home_rad
        start = time.perf_counter()
        self._policy.act(images, state, [self._policy.instructions[0] if self._policy.instructions else "go"],
                         self._generator)
        return time.perf_counter() - start

    def activate(self) -> None:
        assert self._contract is not None
        self._aligner.reset()
        self._inputs = PolicyInputs(self, self._contract, self._aligner, self.param("image_topic"),
                                    self._receive_event)
        self._link = ExecutorLink(self)
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        self._finish(self._run, Result.ABORTED, "policy_node was deactivated")
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(10.0)
            self._thread = None
        for part in (self._inputs, self._link):
            if part is not None:
                part.destroy()
        self._inputs = self._link = None

    def cleanup(self) -> None:
        if self._policy is not None:
            self.destroy_lifecycle_publisher(self._chunk_publisher)
        self._policy = None

    # Events (executor thread)

    def _receive_event(self, event: EpisodeEvent) -> None:
        run = self._run
        stamp_ns = Time.from_msg(event.header.stamp).nanoseconds
        if run is None or (stamp_ns and stamp_ns < run.start_ns):
            return  # a late event of the episode before must not end this one
        if event.kind == EpisodeEvent.SUCCESS:
            self._finish(run, Result.SUCCESS, "success")
        elif event.kind == EpisodeEvent.FAILURE:
            self._finish(run, Result.FAILURE, "failure was signalled")

    def _time_jumped(self, jump: Any) -> None:
        if self._contract is None:
            return
        self._aligner.reset()
        self._finish(self._run, Result.ABORTED, "time went back (was the simulation restarted?)")
        self.get_logger().warning("time went back: buffered observations dropped")

    # The action (executor thread)

    def _accept(self, goal: RunPolicy.Goal) -> GoalResponse:
        reason = ("policy_node is not active" if not self.active
                  else "another goal is running" if self._run is not None else "")
        if reason:
            self.get_logger().warning(f"goal '{goal.instruction}' rejected: {reason}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _cancel(self, _handle: ServerGoalHandle) -> CancelResponse:
        with self._wake:
            self._wake.notify_all()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        assert self._contract is not None
        goal = handle.request
        future: Future[tuple[int, str]] = Future(executor=self.executor)

        def ended(outcome: int, reason: str) -> None:
            future.set_result((outcome, reason))
            if self.executor is not None:
                self.executor.wake()

        now_ns = self.get_clock().now().nanoseconds
        timeout_ns = goal.timeout.sec * 1_000_000_000 + goal.timeout.nanosec
        run = PolicyRun(goal.instruction.strip() or self._contract.instruction, now_ns,
                        now_ns + timeout_ns if timeout_ns else None, self._contract.step_ns,
                        self.param("replan_steps"), ended)
        # The timer only wakes the inference thread; it runs on ROS time, so it keeps pace with a fast simulation.
        timer = self.create_timer(self._contract.step_ns * 1e-9, self._notify)
        self._begin(run, handle)
        try:
            outcome, reason = await future  # type: ignore[misc]
        finally:
            self.destroy_timer(timer)
            with self._wake:
                self._run = self._handle = None
        elapsed_ns = max(0, self.get_clock().now().nanoseconds - run.start_ns)
        self.get_logger().info(f"goal '{run.instruction}' ended after {elapsed_ns * 1e-9:.1f} s and "
                               f"{run.chunks} chunks: {reason}")
        if outcome == Result.CANCELED:
            handle.canceled()
        elif outcome == Result.ABORTED:
            handle.abort()
        else:
            handle.succeed()
        return Result(outcome=outcome, reason=reason, chunks=run.chunks, elapsed=duration_message(elapsed_ns))

    def _begin(self, run: PolicyRun, handle: ServerGoalHandle) -> None:
        known = list(self._policy.instructions)
        if not run.instruction:
            run.end(Result.ABORTED, f"the instruction is empty; this policy learned: {', '.join(known) or 'none'}")
        elif known and run.instruction not in known:
            self.get_logger().warning(f"instruction '{run.instruction}' was not among the demonstrations; "
                                      f"this policy learned: {', '.join(known)}")
        self._generator.manual_seed(self.param("seed"))
        with self._wake:
            self._run, self._handle = run, handle
            self._wake.notify_all()

    def _finish(self, run: PolicyRun | None, outcome: int, reason: str) -> None:
        if run is not None and run.end(outcome, reason):
            self._notify()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    # Inference (own thread)

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                run, handle = self._run, self._handle
                if run is None or run.ended or run.due_tick(self.get_clock().now().nanoseconds) is None:
                    self._wake.wait(timeout=0.1)
                    run, handle = self._run, self._handle
            if run is None or handle is None or run.ended:
                continue
            try:
                self._step(run, handle)
            except CorftError as error:
                self._finish(run, Result.ABORTED, str(error))
            except Exception as error:
                self.get_logger().error(f"inference raised:\n{traceback.format_exc()}")
                self._finish(run, Result.ABORTED, f"inference raised {type(error).__name__}: {error}")

    def _step(self, run: PolicyRun, handle: ServerGoalHandle) -> None:
        now_ns = self.get_clock().now().nanoseconds
        if handle.is_cancel_requested:
            self._finish(run, Result.CANCELED, "canceled")
        elif run.timed_out(now_ns):
            self._finish(run, Result.TIMEOUT, "timeout")
        elif run.standing_s(now_ns) > self.param("stall_timeout"):
            self._finish(run, Result.ABORTED, f"ROS time has stood still at {now_ns * 1e-9:.3f} s for "
                         f"{self.param('stall_timeout'):.0f} s of wall time (is /clock published?)")
        elif self._link is not None and (trouble := self._link.trouble(run.begun_s)):
            self._finish(run, Result.ABORTED, trouble)
        else:
            tick_ns = run.due_tick(now_ns)
            if tick_ns is not None:
                self._predict(run, handle, tick_ns, now_ns)

    def _predict(self, run: PolicyRun, handle: ServerGoalHandle, tick_ns: int, now_ns: int) -> None:
        assert self._contract is not None
        start_s = time.perf_counter()
        observation = self._aligner.observation(tick_ns)
        self._waiting_for = list(observation.missing)
        if observation.missing:
            run.skipped(tick_ns)
            limit_s = self._contract.limits.max_observation_age_s
            if run.blind_s(now_ns) > (limit_s if run.chunks else max(limit_s, FIRST_OBSERVATION_S)):
                self._finish(run, Result.ABORTED, "stale observations: " + "; ".join(
                    staleness(self._contract, name, observation.ages_s.get(name)) for name in observation.missing))
            return
        plan, frozen = self._plan(run, tick_ns)
        inference_s = time.perf_counter()
        prediction = self._policy.act(
            {camera.name: observation.values[camera.name][None] for camera in self._contract.cameras},
            self._aligner.state(observation.values)[None], [run.instruction], self._generator,
            plan=None if plan is None else plan[None], frozen=frozen)
        inference_s = time.perf_counter() - inference_s
        value = float(prediction.value[0])
        chunk = chunk_message(self._contract, tick_ns, prediction.actions[0], chunk_number=run.chunks,
                              policy_id=self._policy.policy_id, value=value, inference_s=inference_s)
        if run.ended:
            return  # ended during inference: nothing may follow the end
        self._chunk_publisher.publish(chunk)
        latency_s = time.perf_counter() - start_s
        self._latencies_s.append(latency_s)
        self._chunks += 1
        handle.publish_feedback(RunPolicy.Feedback(chunk_number=run.chunks, latency=latency_s, value=value,
                                                   queue=self._link.queue_s if self._link is not None else math.nan,
                                                   elapsed=(now_ns - run.start_ns) * 1e-9))
        self._last_chunk = (tick_ns, prediction.actions[0])
        run.predicted(tick_ns)

    def _plan(self, run: PolicyRun, tick_ns: int) -> tuple[Any, int]:
        """What the chunk of `tick_ns` goes on from, (H, A) or None, and how many of its actions are settled (rtc).

        In rtc that is what the executor is committed to; else the last chunk of this run, as a first guess.
        """
        assert self._contract is not None
        if self.param("chunk_mode") == "rtc" and self._link is not None:
            return self._link.plan(tick_ns, self._contract.step_ns, self._policy.horizon) or (None, 0)
        if run.chunks == 0 or self._last_chunk is None:
            return None, 0
        stamp_ns, actions = self._last_chunk
        return shifted(actions, (tick_ns - stamp_ns) // self._contract.step_ns), 0

    def diagnose(self) -> Iterable[Diagnosis]:
        run = self._run
        level, message = OK, "idle" if run is None else f"running '{run.instruction}'"
        p95_s = percentile(self._latencies_s, 0.95)
        if run is not None and self._waiting_for:
            level, message = ERROR, "waiting for " + ", ".join(self._waiting_for)
        elif self._contract is not None and p95_s > self.param("replan_steps") / self._contract.rate_hz:
            level, message = WARN, "inference is slower than the interval between chunks"
        yield Diagnosis(level, message, {
            "policy_id": self._policy.policy_id if self._policy is not None else "", "chunks": self._chunks,
            "latency_p50_s": percentile(self._latencies_s, 0.5), "latency_p95_s": p95_s})


def main() -> int:
    """Entry point of `ros2 run corft policy_node`."""
    return run_node(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
