"""policy_node's inference thread: a chunk for every due tick of the running goal."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from corft_msgs.action import RunPolicy
from rclpy.action.server import ServerGoalHandle

from corft.chunk_messages import chunk_message
from corft.node_base import CorftLifecycleNode
from corft.policy.checks import staleness
from corft.policy.executor_link import ExecutorLink
from corft.policy.frozen_images import FrozenImages
from corft.policy.predictor import Predictor
from corft.policy.run import PolicyRun
from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation, Aligner
from corft_core.errors import CorftError
from corft_core.serving.interface import NoAnswerError, Seen

Result = RunPolicy.Result
FIRST_OBSERVATION_S, CHECK_S = 3.0, 2.0


class Inference:
    """Runs from construction until `destroy`. ``finish(run, outcome, reason)`` is called, in the thread, to end a goal.

    `waiting_for`: streams without a usable sample at the last tick. `trouble`: why the policy server gives no chunks.
    It is asked for its health while there is no goal, so that an operator knows before sending one.
    """

    def __init__(self, node: CorftLifecycleNode, contract: Contract, predictor: Predictor, aligner: Aligner,
                 link: ExecutorLink, publisher: Any, finish: Callable[[PolicyRun, int, str], None]) -> None:
        self._node, self._contract, self._predictor, self._aligner = node, contract, predictor, aligner
        self._link, self._publisher, self._finish = link, publisher, finish
        self._run: PolicyRun | None = None
        self._handle: ServerGoalHandle | None = None
        self._frozen = FrozenImages(contract, node.param("frozen_image_rad"))
        self.waiting_for: list[str] = []
        self.trouble = ""
        self._next_check_s = 0.0
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def destroy(self) -> None:
        """End the thread; waits for a chunk that is being made."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(10.0)

    def serve(self, run: PolicyRun | None, handle: ServerGoalHandle | None) -> None:
        """Make chunks for this goal, None: for none."""
        with self._condition:
            self._run, self._handle = run, handle
            self._frozen.reset()
            self._condition.notify_all()

    def wake(self) -> None:
        """Look at the time and at the goal's state again."""
        with self._condition:
            self._condition.notify_all()

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _work(self) -> None:
        while True:
            with self._condition:
                if self._stopping:
                    return
                run, handle = self._run, self._handle
                if run is None or run.ended or run.due_tick(self._now_ns()) is None:
                    self._condition.wait(timeout=0.1)
                    run, handle = self._run, self._handle
            if run is None or handle is None or run.ended:
                self._check_policy()
                continue
            try:
                self._step(run, handle)
            except CorftError as error:
                self._finish(run, Result.ABORTED, str(error))
            except Exception as error:
                self._node.get_logger().error(f"inference raised:\n{traceback.format_exc()}")
                self._finish(run, Result.ABORTED, f"inference raised {type(error).__name__}: {error}")

    def _check_policy(self) -> None:
        if time.monotonic() < self._next_check_s:
            return
        try:
            self._predictor.policy.check()
            self.trouble = ""
        except CorftError as error:
            self.trouble = str(error)
        self._next_check_s = time.monotonic() + CHECK_S

    def _step(self, run: PolicyRun, handle: ServerGoalHandle) -> None:
        now_ns, stall_s = self._now_ns(), self._node.param("stall_timeout")
        if handle.is_cancel_requested:
            self._finish(run, Result.CANCELED, "canceled")
        elif run.timed_out(now_ns):
            self._finish(run, Result.TIMEOUT, "timeout")
        elif run.standing_s(now_ns) > stall_s:
            self._finish(run, Result.ABORTED, f"ROS time has stood still at {now_ns * 1e-9:.3f} s for {stall_s:.0f} s "
                         "of wall time (is /clock published?)")
        elif trouble := self._link.trouble(run.begun_s):
            self._finish(run, Result.ABORTED, trouble)
        else:
            tick_ns = run.due_tick(now_ns)
            if tick_ns is not None:
                self._chunk(run, handle, tick_ns, now_ns)

    def _chunk(self, run: PolicyRun, handle: ServerGoalHandle, tick_ns: int, now_ns: int) -> None:
        asked_s = time.monotonic()
        observation = self._aligner.observation(tick_ns)
        if observation.missing:
            self.waiting_for = list(observation.missing)
            run.skipped(tick_ns)
            limit_s = self._contract.limits.max_observation_age_s
            if run.blind_s(now_ns) > (limit_s if run.chunks else max(limit_s, FIRST_OBSERVATION_S)):
                self._finish(run, Result.ABORTED, "stale observations: " + "; ".join(
                    staleness(self._contract, name, observation.ages_s.get(name)) for name in observation.missing))
            return
        if frozen := self._frozen.check(observation):
            self._finish(run, Result.ABORTED, f"frozen images: {frozen}")
            return
        committed = None
        if self._node.param("chunk_mode") == "rtc":
            committed = self._link.plan(tick_ns, self._contract.step_ns, self._predictor.policy.info.horizon)
        past = (self._aligner.observation(earlier_ns) for earlier_ns in self._predictor.lacking(tick_ns))
        try:
            prediction, inference_s = self._predictor.predict(
                self._seen(observation), run.instruction, committed,
                tuple(self._seen(earlier) for earlier in past if not earlier.missing))
        except NoAnswerError as error:
            self._wait_for_server(run, tick_ns, asked_s, error)
            return
        self.waiting_for, self.trouble = [], ""
        value = float(prediction.value[0])
        chunk = chunk_message(self._contract, tick_ns, prediction.actions[0], chunk_number=run.chunks,
                              policy_id=self._predictor.policy.info.policy_id, value=value, inference_s=inference_s)
        if run.ended:
            return  # ended during inference: nothing may follow the end
        self._publisher.publish(chunk)
        # A simulated clock goes in steps: what happens here is timed by a clock that does not.
        latency_s = (now_ns - tick_ns) * 1e-9 + time.monotonic() - asked_s
        self._predictor.published(latency_s)
        handle.publish_feedback(RunPolicy.Feedback(
            chunk_number=run.chunks, latency=latency_s, value=value, queue=self._link.queue_s,
            elapsed=(now_ns - run.start_ns) * 1e-9))
        run.predicted(tick_ns)

    def _seen(self, observation: AlignedObservation) -> Seen:
        images = {camera.name: observation.values[camera.name] for camera in self._contract.cameras}
        return Seen(observation.tick_ns, images, self._aligner.state(observation.values))

    def _wait_for_server(self, run: PolicyRun, tick_ns: int, asked_s: float, error: NoAnswerError) -> None:
        """No chunk for now: the executor brakes by itself when the last one is over."""
        self.trouble = str(error)
        self._node.get_logger().warning(str(error), throttle_duration_sec=2.0)
        silent_s = run.unanswered(tick_ns, asked_s)
        if silent_s > self._node.param("server_patience_s"):
            self._finish(run, Result.ABORTED, f"no chunk for {silent_s:.1f} s: {error}")
