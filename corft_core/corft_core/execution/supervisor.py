"""When the arm may move at all: enabling, stopping, faults, stale inputs, planned moves. Pure; the node connects it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution.chunk import Chunk
from corft_core.execution.command import Command
from corft_core.execution.executor import REST_RAD_S, ChunkExecutor
from corft_core.execution.options import ExecutorOptions
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import GripperSchedule
from corft_core.execution.watchdog import ClockWatch, Hearing, Measured, Watchdog
from corft_core.planning import moves
from corft_core.planning.interface import MotionPlanner, PlanningError
from corft_core.trajectory import JointPath

REANCHOR_RAD = 0.05
SETTLED_RAD = 0.01  # an arm that stands so close to its command stands where the controller holds it
SETTLE_NS = 200_000_000
MOVE_SCALE = 0.5
PLANS = 5  # a sampling planner knows no workspace: another of its ways may keep to it
UNCERTAIN_S = 0.06  # three setpoints at their usual rate
# A simulated clock that this process did not follow, because it hung: by steady time, or by the joint states' stamps.
SILENT_S, BEHIND_NS = 0.5, 200_000_000
MoveKind = Literal["home", "park", "approach", "recover", "detour"]


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
    ``simulated``: an arm or a clock that jumps is a reset simulation, not a fault. ``clock`` reads that clock: for the
    check that a planned motion still comes in time, and that the clock does not jump; None: neither is checked.
    ``steady_s``: a clock that never jumps.

    Only :meth:`chunk`, :meth:`plan_pending` and :meth:`recheck` use the planner and take long. They may run in a thread
    of their own: they plan without ``lock``, and what they planned is dropped when a stop or another motion came
    meanwhile. All other methods hold ``lock`` for a moment only, so a stop never waits for planning.
    """

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions,
                 send: Callable[[Command], None], report: Callable[[str, Refusal], None],
                 simulated: bool = False, clock: Callable[[], int] | None = None,
                 steady_s: Callable[[], float] = time.monotonic) -> None:
        self.executor = ChunkExecutor(contract, planner, options)
        self.lock = threading.RLock()
        self._news = threading.Condition(self.lock)  # setpoints
        self.enabled = False
        self.event: Refusal | None = None  # the last refusal, truncation or stop; None after an accepted chunk
        self.stopped: Refusal | None = None  # latched until enable()
        self.emergency: Refusal | None = None  # latched until clear_emergency_stop()
        self.faults: dict[str, Refusal] = {}  # by who reports them, until they are cleared there
        self.stale: Refusal | None = None
        self.tracking_error_rad = 0.0
        self.counts = {"accepted": 0, "refused": 0, "truncated": 0, "detours": 0, "stops": 0, "lost": 0}
        self.compute_s: deque[float] = deque(maxlen=100)
        self._contract, self._planner, self._simulated, self._clock = contract, planner, simulated, clock
        self._send, self._report_to, self._hearing, self._steady_s = send, report, Hearing(steady_s), steady_s
        self._watchdog, self._clock_watch = Watchdog(contract), ClockWatch(simulated)
        self._gripper = GripperSchedule()
        self._measured: Measured | None = None
        self._move: tuple[MoveKind, NDArray[np.float64] | None] | None = None
        self._braking: float | None = None  # since when a brake waits for a setpoint, by ``steady_s``
        self._settling: Refusal | None = None  # why chunks wait until the arm stands
        self._ended: Command | None = None  # the chunk whose end without a successor was reported
        self._free: Command | None = None  # the motion whose rest was last found free of collision

    def restart(self, now_ns: int) -> None:
        """Start anew, disabled, as when the node is activated: somebody else may have moved the arm since.

        An emergency stop, a stop and faults stay.
        """
        with self.lock:
            self.executor.reset(now_ns)
            self.enabled = False
            self._clock_watch = ClockWatch(self._simulated)
            self._measured, self._move, self._ended, self._settling, self._braking = None, None, None, None, None
            self._gripper.clear()

    def chunk(self, chunk: Chunk, now_ns: int) -> Command | Refusal:
        """Execute a chunk, or refuse it."""
        now_ns = self._certain(now_ns)
        begin_s = time.perf_counter()
        with self.lock:
            try:
                measured = self._require_ready(now_ns)
            except RefusedError as error:
                return self.refuse(error.refusal, chunk.number)
        prepared = self.executor.prepare(chunk, now_ns, measured)
        with self.lock:
            if isinstance(prepared, Refusal):
                return self.refuse(prepared, chunk.number)
            commit_ns = self._clock() if self._clock else now_ns
            try:
                self._require_ready(commit_ns)
            except RefusedError as error:
                return self.refuse(error.refusal, chunk.number)
            deaf = self._hearing.deaf(self.executor.options.handoff_s) if self._clock else None
            if deaf is not None:
                return self.refuse(deaf, chunk.number)
            outcome = self.executor.commit(prepared, commit_ns)
            if isinstance(outcome, Refusal):
                return self.refuse(outcome, chunk.number)
            self._send(outcome)
            self._gripper.replace(outcome.gripper, outcome.handoff_ns)
            self.compute_s.append(time.perf_counter() - begin_s)
            self._accepted(outcome, len(chunk.positions))
            return outcome

    def _certain(self, now_ns: int) -> int:
        """Wait until setpoints show which motion runs, UNCERTAIN_S at most. The time then."""
        until_s = time.monotonic() + UNCERTAIN_S
        with self._news:
            while (self._clock is not None and self.executor.doubt(now_ns) is not None
                   and self._news.wait(until_s - time.monotonic())):
                now_ns = self._clock()
        return now_ns

    def _accepted(self, command: Command, horizon: int) -> None:
        self.counts["accepted"] += 1
        self.event = None
        steps, delay = self.executor.options.execute_steps, command.delay_steps
        if command.truncated is not None:
            self.counts["truncated"] += 1
            self._report(f"chunk {command.number} cut to {command.used} actions", command.truncated)
            if command.detour is not None:
                self._move = ("detour", command.detour)
        elif self.executor.options.mode == "rtc" and not delay <= steps <= horizon - delay:
            self._report("real-time chunking is late", Refusal(
                Reason.DELAY_TOO_LONG, f"{delay} of {horizon} actions had passed at the hand-off, execute_steps "
                                       f"{steps} allows at most {min(steps, horizon - steps)}"))

    def refuse(self, refusal: Refusal, number: int) -> Refusal:
        """Count and report a refused chunk; what runs goes on to its own stop."""
        with self.lock:
            self.counts["refused"] += 1
            self._report(f"chunk {number} refused", refusal)
        return refusal

    def joint_state(self, measured: Measured, now_ns: int) -> None:
        """Compare the arm with its command; stop or start anew where they do not fit together."""
        with self.lock:
            before = None if self._check_clock(now_ns) else self._measured
            early = self._watchdog.early(now_ns, measured, self._simulated)
            if early is not None:  # as if it had not come: without good ones the watchdog stops the arm
                self._report("joint state ignored", early)
                return
            if before is not None and measured.stamp_ns < before.stamp_ns:
                return  # overtaken on its way
            self._measured = measured
            self._hearing.heard()
            jump = self._watchdog.teleported(before, measured)
            if jump is not None and self._simulated:
                self._forget(jump, now_ns)
            elif jump is not None:
                self.stop(jump, now_ns)
            self.tracking_error_rad = self._watchdog.tracking_error(measured, self.executor.commanded_state)
            off_track = self._watchdog.off_track(measured, self.executor.commanded_state)
            # While settling the arm may rightly be elsewhere: a simulation started anew.
            if off_track is not None and self.enabled and self.stopped is None and self._settling is None:
                self.stop(off_track, now_ns)

    def setpoint(self, setpoint: Measured, now_ns: int) -> None:
        """What the controller follows, by its own word: go on from that, or wait when it is nothing of ours."""
        with self.lock:
            if self._check_clock(now_ns):
                return
            self._hearing.heard()
            news = self.executor.follower.heard(setpoint)
            self._news.notify_all()
            stopping = False
            if news is None:
                self._keep_step()
            elif isinstance(news, Refusal):
                self._foreign(news, now_ns)
            else:
                stopping = self._ought_to_rest
                self.counts["lost"] += 1
                self.executor.adopt(news.command)
                self._gripper.replace(news.command.gripper, now_ns)
                self._report("going on from the motion before", news.reason)
            if stopping or self._braking is not None:
                self._hold(now_ns)

    @property
    def _ought_to_rest(self) -> bool:
        """Whether the arm is to stand, or to come to rest."""
        running = self.executor.running
        return ((running is not None and running.kind == "hold") or not self.enabled or self.stopped is not None
                or self.stale is not None or bool(self.faults))

    def _keep_step(self) -> None:
        """A controller that scales its speed is ever later: so are the motion and the gripper."""
        before = self.executor.running
        by_ns = self.executor.keep_step()
        if by_ns:
            self._gripper.delay(by_ns)
            self._ended = self.executor.running if self._ended is before else self._ended
            self._free = self.executor.running if self._free is before else self._free

    def gripper_due(self, now_ns: int) -> float | None:
        """The gripper opening to command now, once; None when there is nothing new."""
        with self.lock:
            return self._gripper.take_due(now_ns) if self.enabled and self.stopped is None else None

    def tick(self, now_ns: int) -> None:
        """To be called some 20 times a second, also when nothing arrives: clock, stale inputs, chunks that end."""
        with self.lock:
            self._check_clock(now_ns)
            if self._settling is not None:
                self._settle(now_ns)
            if self._braking is not None:
                self._hold(now_ns)
            self.stale = self._watchdog.stale(now_ns, self._measured)
            running = self.executor.running
            if self._settling is not None:
                return  # the controller's clock may be another one now: what it has ends by itself
            if (self.stale is not None and running is not None and running.kind != "hold"
                    and not self.executor.at_rest(now_ns)):
                self._move = None
                self.brake(self.stale, now_ns)
            elif (running is not None and running.kind == "chunk" and running is not self._ended
                  and self._move is None and now_ns >= running.content_end_ns):
                self._ended = running
                self._report("the arm comes to rest", Refusal(
                    Reason.NO_NEW_CHUNK, f"no chunk was accepted after chunk {running.number}, whose last action is "
                                         "over"))

    def recheck(self, now_ns: int) -> None:
        """Brake when what is still to come of the running motion collides in the scene as it is now.

        A planned move that begins in contact, to get out of it, is looked at from when its rest is free.
        """
        with self.lock:
            running = self.executor.running
            if running is None or running.kind == "hold" or self.executor.at_rest(now_ns):
                return
        hit = self.executor.hit_ahead(running, now_ns)
        with self.lock:
            if self.executor.running is not running:
                return
            if hit is None:
                self._free = running
            elif running.kind == "chunk" or self._free is running:
                self._move = None
                self.brake(hit, self._clock() if self._clock else now_ns)

    def enable(self, now_ns: int) -> tuple[bool, str]:
        """Let the arm move; clears a stop, but no emergency stop and no fault. Success and a sentence."""
        with self.lock:
            against = (self.emergency or self._watchdog.stale(now_ns, self._measured)
                       or next(iter(self.faults.values()), None))
            if against is not None:
                return False, against.message
            if self.tracking_error_rad > REANCHOR_RAD:
                if not self.executor.at_rest(now_ns):
                    return False, "the arm is still braking; call again when it stands"
                self.executor.reset(now_ns)
            self.enabled, self.stopped, self.event = True, None, None
            return True, "enabled: chunks are executed"

    def disable(self, now_ns: int, reason: Refusal) -> None:
        """Brake if the arm moves, and refuse what comes."""
        with self.lock:
            self._move = None
            if not self.executor.at_rest(now_ns):
                self.brake(reason, now_ns, at_once=True)  # the process may be about to end
            self._gripper.clear()
            self.enabled = False

    def stop(self, reason: Refusal, now_ns: int) -> None:
        """Brake and stay stopped until enable()."""
        with self.lock:
            self._move = None
            self.stopped = reason
            self.brake(reason, now_ns)

    def emergency_stop(self, now_ns: int, message: str = "the emergency stop is pressed") -> None:
        """Brake and stay stopped until clear_emergency_stop() and then enable()."""
        with self.lock:
            again, self.emergency = self.emergency is not None, Refusal(Reason.EMERGENCY_STOP, message)
            if not again:
                self.stop(self.emergency, now_ns)

    def clear_emergency_stop(self) -> tuple[bool, str]:
        """Release the emergency stop; the arm stays stopped until enable(). Success and a sentence."""
        with self.lock:
            self.emergency = None
            return True, "the emergency stop is released; call ~/enable to go on"

    def fault(self, source: str, refusal: Refusal | None, now_ns: int) -> None:
        """What ``source`` has against moving, for example the controller that is inactive; None: nothing any more.

        A new fault brakes once; while there is one chunks, moves and enable() are refused.
        """
        with self.lock:
            known = source in self.faults
            if refusal is None:
                self.faults.pop(source, None)
                return
            self.faults[source] = refusal
            if not known and self.enabled:
                self._move = None
                self.brake(refusal, now_ns)

    def brake(self, reason: Refusal, now_ns: int, at_once: bool = False) -> None:
        """Brake to rest and report why; chunks may follow. ``at_once``: no setpoint is waited for."""
        with self.lock:
            self._gripper.clear()
            self._hold(now_ns, at_once)
            self.counts["stops"] += 1
            self._report("braking", reason)

    def _hold(self, now_ns: int, at_once: bool = False) -> None:
        """Brake from what the controller follows; when that is nothing of ours, nothing could continue it.

        While that is not known, a setpoint is waited for, UNCERTAIN_S at most: a brake from elsewhere is a jump.
        """
        now_s = self._steady_s()
        doubt = None if self._clock is None else self.executor.doubt(now_ns)
        if doubt is not None and doubt.reason is Reason.COMMAND_LOST and not at_once:
            self._braking = now_s if self._braking is None else self._braking
            if now_s - self._braking < UNCERTAIN_S:
                return
        self._braking = None
        if self.executor.follower.astray(now_ns):
            self._foreign(Refusal(Reason.FOREIGN_COMMAND, "the controller follows none of the last motions"), now_ns)
            return
        instead = self.executor.follower.instead(now_ns)
        if instead is not None:
            self.executor.adopt(instead)
        command = self.executor.hold(now_ns)
        if command is not None:
            self._send(command)

    def set_speed_scale(self, scale: float) -> None:
        """Part of the predicted speed, from the next chunk or move on. Raises ValueError outside (0, 1]."""
        with self.lock:
            self.executor.options = replace(self.executor.options, speed_scale=scale)

    def request_move(self, kind: MoveKind, now_ns: int, pose: NDArray[np.float64] | None = None) -> tuple[bool, str]:
        """Ask for a planned move, after braking if the arm moves; ``pose`` (4, 4) belongs to "approach". A
        "detour" is asked for by a chunk that was cut, with the joints (J,) to go to.

        The caller plans it with :meth:`plan_pending` once :meth:`move_due`. Success and a sentence.
        """
        with self.lock:
            try:
                self._require_ready(now_ns)
            except RefusedError as error:
                return False, str(error)
            self._move = (kind, pose)
            if self.executor.at_rest(now_ns):
                return True, f"planning the move: {kind}"
            self.brake(Refusal(Reason.BUSY, f"a move was asked for: {kind}"), now_ns)
            return True, f"braking, then {kind}"

    def move_due(self, now_ns: int) -> bool:
        """Whether a move waits and the arm stands."""
        return self._move is not None and self.executor.at_rest(now_ns)

    def plan_pending(self, now_ns: int) -> tuple[bool, str]:
        """Plan and start the move that was asked for. Success and a sentence."""
        with self.lock:
            if self._move is None or self._measured is None:
                return False, "no move was asked for"
            move = self._move
            kind, goal = move
            commanded = self.executor.commanded_state(now_ns)
            start = self.executor.rest(now_ns, self._measured) if commanded is None else commanded.position
        try:
            for _ in range(PLANS):
                path = self._planned(kind, start, goal)
                against = None if kind == "recover" else self.executor.leaves_workspace(path, kind in ("home", "park"))
                if against is None:
                    break
        except PlanningError as error:
            with self.lock:
                self._move = None
                self._report(f"no way: {kind}", Refusal(Reason.PLANNING_FAILED, str(error)))
            return False, f"{kind}: {error}"
        with self.lock:
            if self._move is not move:
                return False, f"{kind}: {self.event.message if self.event else 'called off'}"
            self._move = None
            then_ns = self._clock() if self._clock else now_ns
            try:
                self._require_ready(then_ns)
            except RefusedError as error:
                against = error.refusal
            if against is not None:
                self._report(f"no way: {kind}", against)
                return False, f"{kind}: {against.message}"
            if path.duration_s < 1e-3 or np.max(np.abs(path.positions - start)) < 1e-3:
                return True, f"already there: {kind}"
            outcome = self.executor.move(path, then_ns)
            if isinstance(outcome, Refusal):
                self._report(f"no way: {kind}", outcome)
                return False, outcome.message
            self.counts["detours"] += kind == "detour"
            self._gripper.clear()
            self._send(outcome)
            return True, f"moving: {kind}, {path.duration_s:.1f} s"

    def _planned(self, kind: MoveKind, start: NDArray[np.float64], goal: NDArray[np.float64] | None) -> JointPath:
        scale = MOVE_SCALE * self.executor.options.speed_scale
        if kind == "recover":
            return moves.recover(self._planner, start, scale=moves.RECOVERY_SCALE * self.executor.options.speed_scale)
        if kind in ("approach", "detour"):
            if goal is None:
                raise PlanningError(f"the move {kind} needs to know where to go")
            way = moves.approach if kind == "approach" else moves.plan_between
            return way(self._planner, start, goal, scale=scale)
        return (moves.park if kind == "park" else moves.home)(self._planner, self._contract, start, scale=scale)

    def activity(self, now_ns: int) -> Activity:
        """What goes on at ``now_ns``."""
        with self.lock:
            running, moving = self.executor.running, not self.executor.at_rest(now_ns)
            if running is not None and moving and running.kind != "hold":
                return Activity.EXECUTING if running.kind == "chunk" else Activity.MOVING
            if self.stopped is not None:
                return Activity.STOPPED
            if not self.enabled:
                return Activity.DISABLED
            waiting = self.stale is not None or self.faults or self._settling is not None
            return Activity.HOLDING if moving or waiting else Activity.IDLE

    def _require_ready(self, now_ns: int) -> Measured:
        if self.stopped is not None:
            raise RefusedError(self.stopped.reason, f"stopped ({self.stopped.message}); call ~/enable to go on")
        if not self.enabled:
            raise RefusedError(Reason.DISABLED, "the executor is disabled; call ~/enable with data: true")
        if self._braking is not None:
            raise RefusedError(Reason.BUSY, "the arm is about to brake")
        if self._move is not None:
            raise RefusedError(Reason.BUSY, f"the arm is about to move: {self._move[0]}")
        if self._settling is not None:
            raise RefusedError(self._settling.reason, f"{self._settling.message}; chunks are taken again when the arm "
                                                      "stands")
        for fault in self.faults.values():
            raise RefusedError(fault.reason, fault.message)
        stale = self._watchdog.stale(now_ns, self._measured)
        if stale is not None or self._measured is None:
            raise RefusedError(stale.reason if stale else Reason.NO_JOINT_STATE, stale.message if stale else "")
        silent_s = self._hearing.silence_s
        if self._simulated and self._clock is not None and (
                silent_s > SILENT_S or self._measured.stamp_ns - now_ns > BEHIND_NS):
            raise RefusedError(Reason.OBSERVATION_STALE, f"simulated time may have gone on: nothing was heard for "
                                                         f"{silent_s:.2f} s (does this process get a core?)")
        return self._measured

    def _check_clock(self, now_ns: int) -> bool:
        """Whether the clock jumped; a simulation was then reset, a robot is stopped."""
        if self._clock is None:
            return False
        by_ns = self._clock_watch.jump_ns(self._clock)
        if by_ns == 0:
            return False
        now_ns = self._clock()
        reason = Refusal(Reason.CLOCK_JUMP, f"the clock went {'back' if by_ns < 0 else 'forward'} "
                                            f"{abs(by_ns) * 1e-9:.2f} s at once")
        self._measured = None
        self.executor.clock_jumped(by_ns, now_ns)
        if self._simulated:
            # Reset, or only late? If only late, the controller goes on with what it has: wait until that is over.
            self._settling = reason
            self._gripper.clear()
            self._move = None
            self._report("waiting until the arm rests", reason)
        else:
            self.stop(reason, now_ns)
        return True

    def _settle(self, now_ns: int) -> None:
        """After a jump of a simulation's clock or a foreign command: chunks again once the arm stands, from there."""
        measured = self._measured
        if (measured is None or not self.executor.at_rest(now_ns - SETTLE_NS) or self.executor.follower.moved(now_ns)
                or np.max(np.abs(measured.velocity)) > REST_RAD_S):
            return
        self._settling = None
        commanded = self.executor.commanded_state(now_ns)
        if commanded is None or np.max(np.abs(measured.position - commanded.position)) > SETTLED_RAD:
            self.executor.reset(now_ns)

    def _forget(self, reason: Refusal, now_ns: int) -> None:
        """A simulation was reset: nothing that runs or is scheduled means anything now."""
        self.executor.reset(now_ns)
        self._settling = None
        self._gripper.clear()
        self._move = None
        self._report("starting anew from the measured position", reason)

    def _foreign(self, reason: Refusal, now_ns: int) -> None:
        """The controller follows somebody else's motion, which nothing from here could continue: wait until it ends."""
        self.executor.reset(now_ns)
        self._gripper.clear()
        self._move = None
        if self.enabled:
            self._settling = reason
            self._report("waiting until the arm stands", reason)

    def _report(self, what: str, event: Refusal) -> None:
        self.event = event
        self._report_to(what, event)
