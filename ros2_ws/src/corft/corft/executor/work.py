"""The executor's slow part, in a thread of its own: chunks become motions, planned moves are planned."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from corft_msgs.msg import ActionChunk

from corft.executor.chunk_markers import ValueColour, chunk_markers, tool_path
from corft.executor.messages import chunk_from_message, stamp_ns
from corft.worker import Worker
from corft_core.contract import Contract
from corft_core.execution import Chunk, Measured, Reason, Refusal, RefusedError, Supervisor
from corft_core.planning import MotionPlanner, PlanningError, SceneObject

END_S = 10.0
WARM_STEPS = 16


def warm_up(supervisor: Supervisor, contract: Contract, now_ns: int) -> None:
    """Plan a chunk that stands still and drop it: the first real one must not pay for what is loaded on first use."""
    home = np.array(contract.robot.home_rad)
    chunk = Chunk(now_ns, contract.robot.joints, np.tile(home, (WARM_STEPS, 1)),
                  None if contract.gripper is None else np.ones(WARM_STEPS), contract.step_ns * 1e-9)
    supervisor.executor.prepare(chunk, now_ns, Measured(now_ns, home, np.zeros_like(home)))


class ExecutorWork:
    """The only user of the planner. ``dry``: what was planned is forgotten at once, since the arm does not follow.

    ``markers``: publishes a MarkerArray, or None. ``done``: called after every piece of work, in the worker's thread.
    """

    def __init__(self, node: Any, contract: Contract, supervisor: Supervisor, planner: MotionPlanner, dry: bool,
                 markers: Any, done: Callable[[], None]) -> None:
        self.chunk_number, self.chunk_age_s = 0, 0.0
        self._node, self._contract, self._supervisor, self._planner = node, contract, supervisor, planner
        self._dry, self._markers, self._done = dry, markers, done
        self._colour = ValueColour()
        self._worker = Worker("planning", self._failed)

    @property
    def replaced(self) -> int:
        """Chunks that gave way to a newer one before they were looked at."""
        return self._worker.replaced["chunk"]

    def chunk(self, message: ActionChunk) -> None:
        """Execute a chunk, in the place of one that waits."""
        self._worker.put("chunk", lambda: self._chunk(message))

    def move(self) -> None:
        """Plan and start the move that the supervisor holds ready."""
        self._worker.put("move", self._move)

    def recheck(self) -> None:
        """Look whether the running motion is still free of collision."""
        self._worker.put("recheck", self._recheck)

    def scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace the scene's objects, and look whether the running motion is still free of collision."""
        self._worker.put("scene", lambda: self._scene(objects))

    def stop(self) -> None:
        """End the thread; logs when planning goes on beyond END_S."""
        if not self._worker.stop(END_S):
            self._node.get_logger().error(f"planning did not end within {END_S:.0f} s")

    def _chunk(self, message: ActionChunk) -> None:
        now_ns = self._now_ns()
        try:
            chunk = chunk_from_message(message, self._contract)
        except RefusedError as malformed:
            self._supervisor.refuse(malformed.refusal, int(message.chunk_number))
        else:
            outcome = self._supervisor.chunk(chunk, now_ns)
            self._after(chunk.stamp_ns)
            if self._markers is not None:
                executed, cut = tool_path(self._planner, chunk, outcome, self._contract)
                self._markers.publish(chunk_markers(self._contract.robot.base_frame, message.header.stamp, executed,
                                                    cut, self._colour(message.value)))
        # Only now: a status in between would speak of this chunk and not know its outcome.
        self.chunk_number = int(message.chunk_number)
        self.chunk_age_s = (now_ns - stamp_ns(message.header.stamp)) * 1e-9
        self._done()

    def _move(self) -> None:
        now_ns = self._now_ns()
        success, text = self._supervisor.plan_pending(now_ns)
        self._after(now_ns)
        if success and not self._dry:
            self._node.get_logger().info(text)
        self._done()

    def _recheck(self) -> None:
        before = self._supervisor.event
        self._supervisor.recheck(self._now_ns())
        if self._supervisor.event is not before:  # asked 20 times a second: a status only when there is news
            self._done()

    def _scene(self, objects: Sequence[SceneObject]) -> None:
        try:
            self._planner.set_scene(objects)
        except PlanningError as error:
            self._node.get_logger().error(f"the scene stays as it was: {error}")
            return
        self._node.get_logger().info(f"scene: {', '.join(item.name for item in objects) or 'empty'}")
        self._supervisor.recheck(self._now_ns())
        self._done()

    def _after(self, stamp: int) -> None:
        if self._dry:
            with self._supervisor.lock:
                self._supervisor.executor.reset(stamp)

    def _failed(self, error: Exception) -> None:
        """A bug: the arm is stopped, and the log says where it was."""
        self._node.get_logger().error("".join(traceback.format_exception(error)))
        self._supervisor.stop(Refusal(Reason.PLANNING_FAILED, f"planning raised {type(error).__name__}: {error}"),
                              self._now_ns())

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
