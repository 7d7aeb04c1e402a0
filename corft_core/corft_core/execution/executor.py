"""From action chunks to motions that keep every limit: the eight steps, without ROS.

Whatever goes into :class:`ChunkExecutor`, what comes out is finite, keeps position, velocity, acceleration and jerk
limits as a controller interpolates it, continues the running motion in position, velocity and acceleration, was
checked for collision with its braking tail, and ends at rest. A refusal leaves the running motion as it is, and that
ends in its own braking tail: so a missing, late or refused chunk is a soft stop. :mod:`corft_core.execution.verify`
checks all of this independently; ``tests/unit/test_execution_invariants.py`` holds it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution import cartesian, splice
from corft_core.execution.brake import brake_along
from corft_core.execution.chunk import Chunk, checked
from corft_core.execution.command import Command, Committed, handoff_time, joined, standing
from corft_core.execution.limits import worst_excess
from corft_core.execution.options import ExecutorOptions
from corft_core.execution.paths import RESERVE, PathMaker
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.reference import Follower
from corft_core.execution.schedule import in_step, refuse_too_few, remaining, stretched
from corft_core.execution.spline import State
from corft_core.execution.watchdog import Measured
from corft_core.planning.interface import MotionPlanner, PlanningError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
REST_RAD_S = 0.05
DELAYS_KEPT = 10
TRANSPORT_S = 0.01  # to the controller
PLANNING_RESERVE, LONGEST_LEAD_S = 1.25, 0.3


@dataclass(frozen=True)
class Prepared:
    """A command that is not in force yet, the chunk it came from, when it came, what it would continue, and how late
    the controller was with that."""

    command: Command
    chunk: Chunk
    asked_ns: int
    generation: int
    late_ns: int


@dataclass
class _History:
    """Chunks that were accepted, for out-of-order checks and ensembling."""

    newest_stamp_ns: int | None = None
    chunks: list[Chunk] = field(default_factory=list)

    def add(self, chunk: Chunk, keep_from_ns: int) -> None:
        self.newest_stamp_ns = chunk.stamp_ns
        self.chunks = [old for old in self.chunks if old.due_ns[-1] >= keep_from_ns] + [chunk]


class ChunkExecutor:
    """Turns chunks into commands. Knows what it commanded; never looks at the time of day itself.

    Only :meth:`prepare` uses the planner and takes long; it changes nothing, so it may run in another thread.
    """

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions | None = None) -> None:
        self.names = contract.robot.joints
        self._contract, self._planner = contract, planner
        self._paths = PathMaker(contract, planner, options or ExecutorOptions())
        self.limits = self._paths.limits
        self.follower = Follower(self.names)
        # What is sent may be taken up from another state than planned: then the contract's own jerk limit counts.
        self._hard = replace(self.limits, jerk=np.array(contract.limits.jerk_rad_s3))
        self._running: Command | None = None
        self._generation = 0
        self._late_ns = 0  # all that a scaling of the controller's speed has cost
        self._history = _History()
        self._delays: deque[int] = deque(maxlen=DELAYS_KEPT)
        self._planning_s: deque[float] = deque(maxlen=DELAYS_KEPT)

    @property
    def options(self) -> ExecutorOptions:
        """How chunks are executed; what is set holds from the next chunk on."""
        return self._paths.options

    @options.setter
    def options(self, options: ExecutorOptions) -> None:
        self._paths.options = options

    @property
    def running(self) -> Command | None:
        """The last command, also after its end; None before the first and after a reset."""
        return self._running

    def commanded_state(self, time_ns: int) -> State | None:
        """What the controller was told for ``time_ns``; None when nothing was commanded yet."""
        running = self._running
        return None if running is None else running.state(time_ns)

    def at_rest(self, now_ns: int) -> bool:
        """Whether the running motion has ended."""
        running = self._running
        return running is None or now_ns >= running.end_ns

    def reset(self, after_ns: int | None = None) -> None:
        """Forget what was commanded: the next motion starts from the measured state.

        Chunks from observations at or before ``after_ns`` are refused from now on.
        """
        self._running = None
        self._generation += 1
        self._history = _History(after_ns)
        self.follower.forget()

    def adopt(self, command: Command) -> None:
        """Go on from ``command``, sent earlier, since the controller follows that one."""
        self._running = command
        self._generation += 1

    def keep_step(self) -> int:
        """The running command becomes as late as the controller, which scales its speed; by how much [ns]."""
        newest = self.follower.newest
        if self._running is None or newest is None or newest is self._running:
            return 0
        by_ns = newest.start_ns - self._running.start_ns
        self._running = newest
        self._late_ns += by_ns
        return by_ns

    def clock_jumped(self, by_ns: int, now_ns: int) -> None:
        """Go on in the time after the jump as if it had always been so; refuse chunks from before."""
        if self._running is not None:
            self._running = self._running.later(by_ns)
        self._generation += 1
        self.follower.forget()
        self._history = _History(now_ns)

    def committed_actions(self, stamp_ns: int, dt_s: float, count: int) -> Committed | None:
        """What is executed at up to ``count`` steps of ``dt_s`` after ``stamp_ns``, as far as the running chunk goes.

        For a policy that predicts while its last chunk runs; None when no chunk has anything left.
        """
        running = self._running
        if running is None or running.kind != "chunk":
            return None
        dt_s = dt_s / self.options.speed_scale
        due_ns = stamp_ns + np.round(np.arange(1, count + 1) * dt_s * 1e9).astype(np.int64)
        due_ns = due_ns[due_ns <= running.content_end_ns]
        if len(due_ns) == 0:
            return None
        gripper = None
        if running.gripper:
            times, openings = (np.array(column) for column in zip(*running.gripper, strict=True))
            gripper = openings[np.clip(np.searchsorted(times, due_ns, side="right") - 1, 0, None)]
        return Committed(stamp_ns, dt_s, running.states(due_ns), gripper, max(self._delays, default=0))

    def accept(self, chunk: Chunk, now_ns: int, measured: Measured) -> Command | Refusal:
        """The command that executes ``chunk`` from now on, which becomes the running one; or why not."""
        prepared = self.prepare(chunk, now_ns, measured)
        return prepared if isinstance(prepared, Refusal) else self.commit(prepared, now_ns)

    def prepare(self, chunk: Chunk, now_ns: int, measured: Measured) -> Prepared | Refusal:
        """The command that would execute ``chunk`` from now on, or why not."""
        generation, late_ns = self._generation, self._late_ns
        try:
            command, single = self._plan(chunk, now_ns, measured)
        except RefusedError as refused:
            return refused.refusal
        except PlanningError as error:
            return Refusal(Reason.PLANNING_FAILED, f"the path can't be checked for collision: {error}")
        return Prepared(command, single, now_ns, generation, late_ns)

    def commit(self, prepared: Prepared, now_ns: int) -> Command | Refusal:
        """Put the command in force, unless something else was meanwhile or its hand-off is over."""
        command = prepared.command
        if prepared.generation != self._generation:
            return Refusal(Reason.SUPERSEDED, "a stop or another motion came while the chunk was planned")
        doubt = self.doubt(now_ns)
        if doubt is not None:
            return doubt
        command = replace(self._in_step(command, now_ns, self._late_ns - prepared.late_ns),
                          bridged=self.follower.scales(now_ns))
        self._planning_s.append((now_ns - prepared.asked_ns) * 1e-9)
        left_s = (command.handoff_ns - now_ns) * 1e-9
        if left_s < min(TRANSPORT_S, self.options.handoff_s / 4):
            return Refusal(Reason.PLANNING_LATE, f"planning ended {left_s:.3f} s before the hand-off, which leaves no "
                                                 "time to send the motion: the executor needs a core; the next "
                                                 f"hand-off comes {self._lead_s:.3f} s after its chunk")
        self._history.add(prepared.chunk, now_ns)
        self._delays.append(command.delay_steps)
        return self._take(command)

    def hold(self, now_ns: int) -> Command | None:
        """Brake and stay, which becomes the running command; None when nothing moves.

        As with a chunk the running motion goes on until the hand-off, so that the controller sees no step. The stop
        never leaves the path that was checked for collision. To stay where a motion ended is no command: an arm that
        stands elsewhere, because the motion never reached its controller, would jump there.
        """
        anchor = self._running
        if anchor is None or self.at_rest(now_ns):
            self._generation += 1  # what is planned now may not begin after the stop
            return None
        if anchor.kind == "hold":
            return anchor
        anchor = self._in_step(anchor, now_ns, 0)
        handoff_ns = handoff_time(anchor, now_ns, self.options.handoff_s)
        stop = brake_along(anchor.path, (handoff_ns - anchor.start_ns) * 1e-9, self.limits)
        start_ns, path = joined(anchor, now_ns, handoff_ns, stop)
        return self._take(Command("hold", path, start_ns, handoff_ns, now_ns, bridged=self.follower.scales(now_ns)))

    def hit_ahead(self, command: Command, now_ns: int) -> Refusal | None:
        """What the rest of a command hits in the scene as it is now; None when nothing. Uses the planner."""
        try:
            return self._paths.hit_ahead(command, now_ns)
        except PlanningError as error:
            return Refusal(Reason.PLANNING_FAILED, f"the motion ahead can't be checked for collision: {error}")

    def leaves_workspace(self, path: JointPath, to_its_end: bool) -> Refusal | None:
        """Where a planned path takes the tool out of the workspace; ``to_its_end``: the end, as it is configured, may
        lie outside. Uses the planner, and raises its PlanningError."""
        return self._paths.leaves_workspace(path, to_its_end)

    def move(self, path: JointPath, now_ns: int) -> Command | Refusal:
        """Follow a planned ``path`` (quintic, ending at rest) from where the arm rests, for example home.

        The path must have been checked for collision.
        """
        # An arm that stands outside its limits is moved back inside.
        reached = replace(self.limits, low=np.minimum(self.limits.low, path.positions[0]),
                          high=np.maximum(self.limits.high, path.positions[0]))
        excess = worst_excess(path, reached, tolerance=0.02)
        if excess is not None:
            return Refusal(Reason.DYNAMIC_LIMIT, f"the planned motion breaks a limit: {excess}")
        if not self.at_rest(now_ns):
            return Refusal(Reason.NOT_AT_REST, "the arm still moves; stop it first")
        commanded = self.commanded_state(now_ns)
        if commanded is not None:
            gap = np.abs(commanded.position - path.positions[0])
            joint = int(np.argmax(gap))
            if gap[joint] > 1e-3:
                return Refusal(Reason.STEP_TOO_LARGE, f"the planned motion starts {gap[joint]:.3f} rad from where "
                                                      f"{self.names[joint]} is held")
        handoff_ns = now_ns + round(self.options.handoff_s * 1e9)
        start_ns, path = joined(standing(self.names, path.positions[0], now_ns), now_ns, handoff_ns, path)
        return self._take(Command("move", path, start_ns, handoff_ns, start_ns + round(path.duration_s * 1e9)))

    def doubt(self, now_ns: int) -> Refusal | None:
        """Why nothing may be sent yet: what is commanded, which it would continue, may not be what runs."""
        return None if self._running is None else self.follower.against(self._running, now_ns, self._hard)

    def rest(self, now_ns: int, measured: Measured) -> Array:
        """(J,) where the first motion starts: where the controller holds the arm, else the measured position."""
        held = self.follower.resting(now_ns)
        return measured.position if held is None else held

    def _in_step(self, command: Command, now_ns: int, by_ns: int) -> Command:
        """The command ``by_ns`` later, and as much more as a controller that scales its speed will have lost since its
        last setpoint when it gets it."""
        by_ns += self.follower.behind_ns(now_ns + round(1e9 * TRANSPORT_S / 2))
        return command.later(by_ns) if by_ns else command

    @property
    def _lead_s(self) -> float:
        """From a chunk to its hand-off: ``handoff_s``, more where planning lately took longer than that leaves."""
        slow_s = PLANNING_RESERVE * max(self._planning_s, default=0.0) + TRANSPORT_S
        return max(self.options.handoff_s, min(slow_s, LONGEST_LEAD_S))

    def _take(self, command: Command) -> Command:
        self._running = command
        self._generation += 1
        self.follower.sent(command)
        return command

    def _plan(self, raw: Chunk, now_ns: int, measured: Measured) -> tuple[Command, Chunk]:
        options = self.options
        chunk = checked(raw, self.names, np.stack([self.limits.low, self.limits.high]),
                        self._contract.limits.position_margin_rad, self._contract.gripper is not None)
        self._refuse_wrong_time(chunk, now_ns)
        # At part of the speed every action is due later, and less of the chunk is over at the hand-off.
        chunk = replace(chunk, dt_s=chunk.dt_s / options.speed_scale)
        anchor = self._anchor(now_ns, measured)
        handoff_ns = handoff_time(anchor, now_ns, self._lead_s)
        start = anchor.state(handoff_ns)
        cut: Refusal | None = None
        if chunk.cartesian:
            chunk, cut = cartesian.to_joints(chunk, start.position, handoff_ns, self._planner, self.limits,
                                             options.steepest, options.min_actions)
        single = chunk
        if options.mode == "temporal_ensemble":
            chunk = splice.ensembled(chunk, self._history.chunks, options.ensemble_decay)
        refuse_too_few(chunk, handoff_ns, options.min_actions)
        chunk = in_step(chunk, anchor.state(chunk.stamp_ns).position, start.position, handoff_ns, options.lag_rad)
        waypoints = remaining(chunk, handoff_ns, options.min_actions, options.horizon_s / options.speed_scale)
        overlap_s = (anchor.content_end_ns - handoff_ns) * 1e-9
        running = anchor.states(handoff_ns + np.round(waypoints.due_s * 1e9).astype(np.int64))
        blend_s = splice.blend_time(waypoints, running, self.limits, options)
        waypoints, offset = splice.blended(
            waypoints, running, overlap_s, splice.running_weight(waypoints, len(raw.positions), options, blend_s),
            options.max_splice_rad, self.names)
        # A chunk that comes late is caught up with, but no faster than the speed scale allows.
        slower = replace(self.limits, velocity=RESERVE * options.speed_scale * self.limits.velocity)
        waypoints = stretched(waypoints, start, slower, self.names, options.steepest, options.max_gap_rad)
        draft = Command("chunk", anchor.path, now_ns, handoff_ns, handoff_ns, number=chunk.number,
                        delay_steps=waypoints.dropped, splice_offset_rad=offset, truncated=cut)
        return self._paths.complete(draft, start, waypoints, anchor, now_ns), single

    def _refuse_wrong_time(self, chunk: Chunk, now_ns: int) -> None:
        age_s = (now_ns - chunk.stamp_ns) * 1e-9
        limit_s = self._contract.limits.max_chunk_age_s
        if age_s > limit_s:
            raise RefusedError(Reason.STALE, f"the chunk's observation is {age_s:.2f} s old, at most {limit_s:.2f} s "
                                             "are allowed")
        if age_s < -0.1:
            raise RefusedError(Reason.FROM_THE_FUTURE, f"the chunk's observation is {-age_s:.2f} s ahead of the "
                                                       "clock; do all nodes have the same use_sim_time?")
        newest = self._history.newest_stamp_ns
        if newest is not None and chunk.stamp_ns <= newest:
            raise RefusedError(Reason.STALE, f"the chunk's observation is {(newest - chunk.stamp_ns) * 1e-9:.2f} s "
                                             "before the last chunk's, or before the arm was started anew")
        running = self._running
        if running is None or now_ns >= running.end_ns:
            return
        if running.kind == "move":
            raise RefusedError(Reason.BUSY, "a planned motion runs; chunks are taken again when it has ended")
        if running.kind == "hold":
            raise RefusedError(Reason.BUSY, "the arm is braking; chunks are taken again when it stands")
        step_s = chunk.dt_s / self.options.speed_scale
        until_ns = running.content_end_ns - round((self.options.handoff_s + step_s) * 1e9)
        if self.options.mode == "receding_horizon":
            until_ns = min(until_ns, running.handoff_ns + round((self.options.execute_steps - 1) * step_s * 1e9))
        if self.options.mode in ("open_loop", "receding_horizon") and now_ns < until_ns:
            raise RefusedError(Reason.BUSY, f"mode {self.options.mode}: the running chunk has "
                                            f"{(until_ns - now_ns) * 1e-9:.2f} s to go")

    def _anchor(self, now_ns: int, measured: Measured) -> Command:
        """The command in force; from the first chunk after a reset, standing where the controller holds the arm, or
        at the measured position where that is not known."""
        if self._running is not None:
            return self._running
        if self.follower.moved(now_ns):
            raise RefusedError(Reason.NOT_AT_REST, "the controller moves the arm without our command; the first chunk "
                                                   "needs a resting arm")
        fastest = int(np.argmax(np.abs(measured.velocity)))
        if abs(measured.velocity[fastest]) > REST_RAD_S:
            raise RefusedError(Reason.NOT_AT_REST, f"{self.names[fastest]} moves at {measured.velocity[fastest]:.3f} "
                                                   "rad/s without our command; the first chunk needs a resting arm")
        outside = np.maximum(self.limits.low - measured.position, measured.position - self.limits.high)
        joint = int(np.argmax(outside))
        if outside[joint] > 0:
            raise RefusedError(Reason.POSITION_LIMIT, f"{self.names[joint]} stands {outside[joint]:.3f} rad outside "
                                                      "its limits; move the arm back with ~/recover")
        return standing(self.names, self.rest(now_ns, measured), now_ns)
