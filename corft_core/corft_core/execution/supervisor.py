"""When the arm may move at all: enabling, stopping, stale inputs, moving home. Pure; the node only connects it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum

import numpy as np

from corft_core.contract import Contract
from corft_core.execution.chunk import Chunk
from corft_core.execution.executor import ChunkExecutor, Command, ExecutorOptions
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import GripperSchedule
from corft_core.execution.watchdog import Measured, Watchdog
from corft_core.planning.interface import MotionPlanner, PlanningError

CLOCK_JITTER_NS = 50_000_000
REANCHOR_RAD = 0.05
HOME_SCALE = 0.5


class Activity(Enum):
    """What the executor does; names as the constants of ExecutionStatus."""

    DISABLED = "DISABLED"
    IDLE = "IDLE"
    EXECUTING = "EXECUTING"
    MOVING = "MOVING"
    HOLDING = "HOLDING"
    STOPPED = "STOPPED"


class Supervisor:
    """Guards a :class:`ChunkExecutor`. Times are nanoseconds of one clock, given by the caller.

    ``send`` gets every motion to be sent at once; ``report`` every refusal and stop with a word on what happened.
    ``simulated``: an arm that jumps is a reset simulation, not a broken encoder.
    """

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions,
                 send: Callable[[Command], None], report: Callable[[str, Refusal], None],
                 simulated: bool = False) -> None:
        self.executor = ChunkExecutor(contract, planner, options)
        self.enabled = False
        self.event: Refusal | None = None  # the last refusal, truncation or stop; None after an accepted chunk
        self.stopped: Refusal | None = None  # latched until enable()
        self.stale: Refusal | None = None
        self.tracking_error_rad = 0.0
        self.counts = {"accepted": 0, "refused": 0, "truncated": 0, "stops": 0}
        self.compute_s: deque[float] = deque(maxlen=100)
        self._contract, self._planner, self._simulated = contract, planner, simulated
        self._send, self._report_to = send, report
        self._watchdog = Watchdog(contract)
        self._gripper = GripperSchedule()
        self._measured: Measured | None = None
        self._newest_ns: int | None = None
        self._home_pending = False

    def chunk(self, chunk: Chunk, now_ns: int) -> Command | Refusal:
        """Execute a chunk, or refuse it."""
        begin_s = time.perf_counter()
        try:
            measured = self._require_ready(now_ns)
        except RefusedError as error:
            return self.refuse(error.refusal, chunk.number)
        outcome = self.executor.accept(chunk, now_ns, measured)
        if isinstance(outcome, Refusal):
            return self.refuse(outcome, chunk.number)
        self._send(outcome)
        self.compute_s.append(time.perf_counter() - begin_s)
        self._gripper.replace(outcome.gripper, outcome.handoff_ns)
        self.counts["accepted"] += 1
        self.event = None
        if outcome.truncated is not None:
            self.counts["truncated"] += 1
            self._report(f"chunk {chunk.number} cut to {outcome.used} actions", outcome.truncated)
        return outcome

    def refuse(self, refusal: Refusal, number: int) -> Refusal:
        """Count and report a refused chunk; what runs goes on to its own stop."""
        self.counts["refused"] += 1
        self._report(f"chunk {number} refused", refusal)
        return refusal

    def joint_state(self, measured: Measured, now_ns: int) -> None:
        """Compare the arm with its command; stop or start anew where they do not fit together."""
        before, self._measured = self._measured, measured
        newest_ns, self._newest_ns = self._newest_ns, now_ns
        if newest_ns is not None and now_ns < newest_ns - CLOCK_JITTER_NS:
            back_s = (newest_ns - now_ns) * 1e-9
            self._forget(Refusal(Reason.CLOCK_JUMP, f"the clock went back {back_s:.2f} s"), now_ns)
            before = None
        jump = self._watchdog.teleported(before, measured)
        if jump is not None and self._simulated:
            self._forget(jump, now_ns)
        elif jump is not None:
            self.stop(jump, now_ns)
        self.tracking_error_rad = self._watchdog.tracking_error(measured, self.executor.commanded_state)
        off_track = self._watchdog.off_track(measured, self.executor.commanded_state)
        if off_track is not None and self.enabled and self.stopped is None:
            self.stop(off_track, now_ns)

    def gripper_due(self, now_ns: int) -> float | None:
        """The gripper opening to command now, once; None when there is nothing new."""
        return self._gripper.take_due(now_ns) if self.enabled and self.stopped is None else None

    def tick(self, now_ns: int) -> None:
        """To be called some 20 times a second, also when nothing arrives: stale inputs, a move home that waits."""
        was_stale, self.stale = self.stale, self._watchdog.stale(now_ns, self._measured)
        at_rest = self.executor.at_rest(now_ns)
        if self.stale is not None and was_stale is None and not at_rest:
            self._home_pending = False
            self.brake(self.stale, now_ns)
        elif self._home_pending and at_rest:
            self._home_pending = False
            self._plan_home(now_ns)

    def enable(self, now_ns: int) -> tuple[bool, str]:
        """Let the arm move; clears a stop. Success and a sentence."""
        stale = self._watchdog.stale(now_ns, self._measured)
        if stale is not None:
            return False, stale.message
        if self.tracking_error_rad > REANCHOR_RAD:
            if not self.executor.at_rest(now_ns):
                return False, "the arm is still braking; call again when it stands"
            self.executor.reset(now_ns)
        self.enabled, self.stopped, self.event = True, None, None
        return True, "enabled: chunks are executed"

    def disable(self, now_ns: int, reason: Refusal) -> None:
        """Brake if the arm moves, and refuse what comes."""
        self._home_pending = False
        if not self.executor.at_rest(now_ns):
            self.brake(reason, now_ns)
        self._gripper.clear()
        self.enabled = False

    def stop(self, reason: Refusal, now_ns: int) -> None:
        """Brake and stay stopped until enable()."""
        self._home_pending = False
        self.stopped = reason
        self.brake(reason, now_ns)

    def brake(self, reason: Refusal, now_ns: int) -> None:
        """Brake to rest and report why; chunks may follow."""
        self._gripper.clear()
        command = self.executor.hold(now_ns)
        if command is not None:
            self._send(command)
        self.counts["stops"] += 1
        self._report("braking", reason)

    def home(self, now_ns: int) -> tuple[bool, str]:
        """Plan and start the move home, after braking if the arm moves. Success and a sentence."""
        try:
            self._require_ready(now_ns)
        except RefusedError as error:
            return False, str(error)
        if self.executor.at_rest(now_ns):
            return self._plan_home(now_ns)
        self.brake(Refusal(Reason.BUSY, "the arm is to move home"), now_ns)
        self._home_pending = True
        return True, "braking, then home"

    def activity(self, now_ns: int) -> Activity:
        """What goes on at ``now_ns``."""
        running, moving = self.executor.running, not self.executor.at_rest(now_ns)
        if running is not None and moving and running.kind != "hold":
            return Activity.EXECUTING if running.kind == "chunk" else Activity.MOVING
        if self.stopped is not None:
            return Activity.STOPPED
        if not self.enabled:
            return Activity.DISABLED
        return Activity.HOLDING if moving or self.stale is not None else Activity.IDLE

    def _require_ready(self, now_ns: int) -> Measured:
        if self.stopped is not None:
            raise RefusedError(self.stopped.reason, f"stopped ({self.stopped.message}); call ~/enable to go on")
        if not self.enabled:
            raise RefusedError(Reason.DISABLED, "the executor is disabled; call ~/enable with data: true")
        if self._home_pending:
            raise RefusedError(Reason.BUSY, "the arm is about to move home")
        stale = self._watchdog.stale(now_ns, self._measured)
        if stale is not None or self._measured is None:
            raise RefusedError(stale.reason if stale else Reason.NO_JOINT_STATE, stale.message if stale else "")
        return self._measured

    def _plan_home(self, now_ns: int) -> tuple[bool, str]:
        assert self._measured is not None
        commanded = self.executor.commanded_state(now_ns)
        start = self._measured.position if commanded is None else commanded.position
        home = np.array(self._contract.robot.home_rad)
        if np.max(np.abs(home - start)) < 1e-3:
            return True, "already home"
        scale = HOME_SCALE * self.executor.options.speed_scale
        try:
            path = self._planner.plan(start, home, velocity_scale=scale, acceleration_scale=scale)
        except PlanningError as error:
            self._report("no way home", Refusal(Reason.PLANNING_FAILED, str(error)))
            return False, f"no way home: {error}"
        outcome = self.executor.move(path, now_ns)
        if isinstance(outcome, Refusal):
            self._report("no way home", outcome)
            return False, outcome.message
        self._gripper.clear()
        self._send(outcome)
        return True, f"moving home, {path.duration_s:.1f} s"

    def _forget(self, reason: Refusal, now_ns: int) -> None:
        """A simulation was reset: nothing that runs or is scheduled means anything now."""
        self.executor.reset(now_ns)
        self._gripper.clear()
        self._home_pending = False
        self._report("starting anew from the measured position", reason)

    def _report(self, what: str, event: Refusal) -> None:
        self.event = event
        self._report_to(what, event)
