"""policy_node: a checkpoint, here or on a policy server, behind the RunPolicy action.

While a goal runs, every `replan_steps` ticks of the policy's rate (ROS time) the node takes the observation as of
the tick from the aligner that the converter uses, runs the policy in a thread of its own and publishes an
ActionChunk stamped with the tick. A goal ends by an EpisodeEvent SUCCESS or FAILURE, timeout (ROS time), cancel,
or is aborted with a reason: stale observations, frozen images, a standing clock, time going back, an executor that is
silent, has stopped or is no longer enabled, deactivation. Feedback: chunk number, latency, the critic's value, the
executor's queue. In `chunk_mode` rtc a chunk goes on from the actions that the executor is committed to (real-time
chunking).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, EpisodeEvent
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.task import Future
from rclpy.time import Time

from corft.chunk_messages import duration_message
from corft.node_base import ERROR, OK, WARN, CorftLifecycleNode, Diagnosis, load_contract, qos_profile
from corft.node_main import run_node
from corft.policy.checks import check_robot, rtc_delay
from corft.policy.executor_link import ExecutorLink
from corft.policy.inference import Inference
from corft.policy.inputs import PolicyInputs
from corft.policy.opening import open_policy
from corft.policy.parameters import POLICY_PARAMETERS
from corft.policy.predictor import Predictor
from corft.policy.run import PolicyRun
from corft_core.contract import Contract
from corft_core.data.align import Aligner
from corft_core.errors import CorftError

Result = RunPolicy.Result
BUFFER_S = 2.0
"""Of observations, and as far as the policy looks back besides."""


class PolicyNode(CorftLifecycleNode):
    """See the module's docstring."""

    PARAMETERS = POLICY_PARAMETERS

    def __init__(self) -> None:
        self._contract: Contract | None = None
        self._predictor: Predictor | None = None
        self._chunk_publisher: Any = None
        self._run: PolicyRun | None = None
        self._inputs: PolicyInputs | None = None
        self._link: ExecutorLink | None = None
        self._inference: Inference | None = None
        super().__init__("policy_node")
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._time_jumped)
        self._server = ActionServer(
            self, RunPolicy, "run_policy", execute_callback=self._execute, goal_callback=self._accept,
            cancel_callback=self._cancel)

    # Lifecycle

    def configure(self) -> None:
        own = load_contract(self.param("contract")) if self.param("contract") else None
        policy, source = open_policy(self.param, self.get_fully_qualified_name())
        info = policy.info
        contract = self._contract = own or info.contract
        self._predictor = Predictor(policy, contract)
        check_robot(info.contract, contract, source)
        self.hardware_id = contract.robot.name
        if self.param("replan_steps") > info.horizon:
            raise CorftError(f"parameter 'replan_steps' is {self.param('replan_steps')}, "
                             f"the checkpoint's chunks have {info.horizon} steps")
        self._aligner = Aligner(contract, BUFFER_S + policy.info.spacing.span * 1e-9)
        self._chunk_publisher = self.create_lifecycle_publisher(
            ActionChunk, "action_chunk", qos_profile("reliable", 10))
        first_s, warm_s = self._predictor.predict_nothing(), self._predictor.predict_nothing()
        interval_s = self.param("replan_steps") / contract.rate_hz
        where = f" at {source}" if self.param("server") else ""
        self.get_logger().info(
            f"policy {info.policy_id}{where}: {info.horizon} steps at {info.rate_hz} Hz = "
            f"{info.horizon / info.rate_hz:.2f} s a chunk, a new one every {interval_s:.2f} s; inference "
            f"{warm_s * 1e3:.0f} ms warm, {first_s * 1e3:.0f} ms cold")
        if warm_s > interval_s:
            self.get_logger().warning(f"inference ({warm_s:.2f} s) is slower than the interval between chunks")
        if self.param("chunk_mode") == "rtc":
            delay = rtc_delay(contract, info.horizon, self.param("replan_steps"), self.param("handoff_s"), warm_s)
            if not info.inpaints:
                self.get_logger().warning("this policy's head can't go on from given actions: chunks are only blended "
                                          "with the running motion")
            self.get_logger().info(f"rtc: {delay} of {info.horizon} steps are expected to pass until a chunk is "
                                   "followed")

    def activate(self) -> None:
        assert self._contract is not None and self._predictor is not None
        self._aligner.reset()
        self._inputs = PolicyInputs(self, self._contract, self._aligner, self.param("image_topic"),
                                    self._receive_event)
        self._link = ExecutorLink(self)
        self._inference = Inference(self, self._contract, self._predictor, self._aligner, self._link,
                                    self._chunk_publisher, self._finish)

    def deactivate(self) -> None:
        self._finish(self._run, Result.ABORTED, "policy_node was deactivated")
        for part in (self._inference, self._inputs, self._link):
            if part is not None:
                part.destroy()
        self._inference = self._inputs = self._link = None

    def cleanup(self) -> None:
        if self._predictor is not None:
            self._predictor.policy.close()
        if self._chunk_publisher is not None:
            self.destroy_lifecycle_publisher(self._chunk_publisher)
        self._predictor = self._chunk_publisher = None

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
        self._wake()
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
        timer = self.create_timer(self._contract.step_ns * 1e-9, self._wake)
        self._begin(run, handle)
        try:
            outcome, reason = await future  # type: ignore[misc]
        finally:
            self.destroy_timer(timer)
            self._run = None
            if self._inference is not None:
                self._inference.serve(None, None)
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
        assert self._predictor is not None
        known = list(self._predictor.policy.info.instructions)
        if not run.instruction:
            run.end(Result.ABORTED, f"the instruction is empty; this policy learned: {', '.join(known) or 'none'}")
        elif known and run.instruction not in known:
            self.get_logger().warning(f"instruction '{run.instruction}' was not among the demonstrations; "
                                      f"this policy learned: {', '.join(known)}")
        self._predictor.begin(self.param("seed"))
        self._run = run
        if self._inference is not None:
            self._inference.serve(run, handle)

    def _finish(self, run: PolicyRun | None, outcome: int, reason: str) -> None:
        if run is not None and run.end(outcome, reason):
            self._wake()

    def _wake(self) -> None:
        if self._inference is not None:
            self._inference.wake()

    def diagnose(self) -> Iterable[Diagnosis]:
        run, predictor = self._run, self._predictor
        level, message = OK, "idle" if run is None else f"running '{run.instruction}'"
        inference = self._inference
        if run is not None and inference is not None and inference.waiting_for:
            level, message = ERROR, "waiting for " + ", ".join(inference.waiting_for)
        elif inference is not None and inference.trouble:
            level, message = ERROR, f"no chunks: {inference.trouble}"
        elif (self._contract is not None and predictor is not None
              and predictor.latency_s(0.95) > self.param("replan_steps") / self._contract.rate_hz):
            level, message = WARN, "inference is slower than the interval between chunks"
        yield Diagnosis(level, message, {} if predictor is None else predictor.statistics())


def main() -> int:
    """Entry point of `ros2 run corft policy_node`."""
    return run_node(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
