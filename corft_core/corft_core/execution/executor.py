"""From action chunks to motions that keep every limit: the eight steps, without ROS.

Whatever goes into :class:`ChunkExecutor`, what comes out is finite, keeps position, velocity and acceleration limits,
continues the running motion in position, velocity and acceleration, was checked for collision with its braking tail,
and ends at rest. A refusal leaves the running motion as it is, and that ends in its own braking tail: so a missing,
late or refused chunk is a soft stop. ``tests/unit/test_execution_invariants.py`` holds this.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution import splice
from corft_core.execution.brake import brake
from corft_core.execution.chunk import Chunk, checked
from corft_core.execution.clearance import Clearance
from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import Waypoints, remaining, stretched
from corft_core.execution.spline import Fit, State, fit
from corft_core.execution.watchdog import Measured
from corft_core.planning.interface import MotionPlanner, PlanningError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
# Part of the limits that planning uses; the rest absorbs rounding and what lies between the knots.
RESERVE = 0.95
REST_RAD_S = 0.05


@dataclass(frozen=True)
class ExecutorOptions:
    """How chunks are executed. Times in s, lengths in rad."""

    mode: splice.ChunkMode = "splice"
    speed_scale: float = 1.0  # 1: as predicted; 0.5: at half the speed
    handoff_s: float = 0.06  # from receiving a chunk to following it: covers computing and the way to the controller
    blend_s: float = 0.2  # over how long the running motion fades out
    max_splice_rad: float = 0.3  # larger differences within the blend are refused
    press_rad: float = 0.05  # an action this little beyond contact is held back, a farther one ends the chunk
    max_deviation_rad: float = 0.08  # of the spline from an action, else the chunk is slowed down
    max_gap_rad: float = 0.5  # from the commanded position to a chunk's first action
    steepest: float = 2.0  # an action that needs more than so many times the velocity limit is a jump
    slowest: float = 6.0  # than at speed_scale; a chunk that needs even more time is refused
    min_actions: int = 2  # fewer left: refused
    execute_steps: int = 5  # receding_horizon
    ensemble_decay: float = 0.01  # temporal_ensemble
    horizon_s: float = 3.0  # of a chunk, more is cut off
    knot_s: float = 0.05  # of the spline
    smoothing_s: float = 0.04  # details of a chunk shorter than this are smoothed

    def __post_init__(self) -> None:
        if self.mode not in splice.CHUNK_MODES:
            raise ValueError(f"mode must be one of {', '.join(splice.CHUNK_MODES)}, got {self.mode!r}")
        if not 0.0 < self.speed_scale <= 1.0:
            raise ValueError(f"speed_scale must be in (0, 1], got {self.speed_scale}")


@dataclass(frozen=True)
class Command:
    """A motion to send at once: ``path`` starts at ``start_ns`` and replaces what runs.

    Up to ``handoff_ns`` it repeats the running motion, so the controller may take it over at any moment until then.
    ``gripper`` holds ``(due_ns, opening)``, replacing what is scheduled from ``handoff_ns`` on.
    """

    kind: Literal["chunk", "hold", "move"]
    path: JointPath
    start_ns: int
    handoff_ns: int
    content_end_ns: int
    gripper: tuple[tuple[int, float], ...] = ()
    number: int = 0
    dropped: int = 0
    used: int = 0
    stretch: float = 1.0
    splice_offset_rad: float = 0.0
    deviation_rad: float = 0.0
    truncated: Refusal | None = None

    @property
    def end_ns(self) -> int:
        """When the motion is at rest."""
        return self.start_ns + round(self.path.duration_s * 1e9)

    def state(self, time_ns: int) -> State:
        """Commanded state at an absolute time, at rest after the end."""
        return State(*self.path.sample((time_ns - self.start_ns) * 1e-9))


@dataclass
class _History:
    """Chunks that were accepted, for out-of-order checks and ensembling."""

    newest_stamp_ns: int | None = None
    chunks: list[Chunk] = field(default_factory=list)

    def add(self, chunk: Chunk, keep_from_ns: int) -> None:
        self.newest_stamp_ns = chunk.stamp_ns
        self.chunks = [old for old in self.chunks if old.due_ns[-1] >= keep_from_ns] + [chunk]


class ChunkExecutor:
    """Turns chunks into commands. Knows what it commanded; never looks at a clock itself."""

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions | None = None) -> None:
        self.options = options or ExecutorOptions()
        self.names = contract.robot.joints
        self.limits = MotionLimits.of(contract, planner.position_limits)
        self._contract = contract
        self._clearance = Clearance(contract, planner)
        self._running: Command | None = None
        self._history = _History()

    @property
    def running(self) -> Command | None:
        """The last command, also after its end; None before the first and after a reset."""
        return self._running

    def commanded_state(self, time_ns: int) -> State | None:
        """What the controller was told for ``time_ns``; None when nothing was commanded yet."""
        return None if self._running is None else self._running.state(time_ns)

    def at_rest(self, now_ns: int) -> bool:
        """Whether the running motion has ended."""
        return self._running is None or now_ns >= self._running.end_ns

    def reset(self, after_ns: int | None = None) -> None:
        """Forget what was commanded: the next motion starts from the measured state.

        Chunks from observations at or before ``after_ns`` are refused from now on.
        """
        self._running = None
        self._history = _History(after_ns)

    def accept(self, chunk: Chunk, now_ns: int, measured: Measured) -> Command | Refusal:
        """The command that executes ``chunk`` from now on, which becomes the running one; or why not."""
        try:
            command = self._plan(chunk, now_ns, measured)
        except RefusedError as refused:
            return refused.refusal
        except PlanningError as error:
            return Refusal(Reason.PLANNING_FAILED, f"the path can't be checked for collision: {error}")
        self._running = command
        return command

    def hold(self, now_ns: int) -> Command | None:
        """Brake and stay, which becomes the running command; None when nothing was commanded yet.

        As with a chunk the running motion goes on until the hand-off, so that the controller sees no step.
        """
        anchor = self._running
        if anchor is None:
            return None
        handoff_ns = now_ns + round(self.options.handoff_s * 1e9)
        path = _with_prefix(anchor, now_ns, handoff_ns, brake(self.names, anchor.state(handoff_ns), self.limits))
        self._running = Command("hold", path, now_ns, handoff_ns, now_ns)
        return self._running

    def move(self, path: JointPath, now_ns: int) -> Command | Refusal:
        """Follow a planned ``path`` (cubic or quintic, ending at rest) from where the arm rests, for example home."""
        excess = worst_excess(path, self.limits, tolerance=0.02)
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
        end_ns = now_ns + round(path.duration_s * 1e9)
        self._running = Command("move", path, now_ns, now_ns, end_ns)
        return self._running

    def _plan(self, raw: Chunk, now_ns: int, measured: Measured) -> Command:
        options = self.options
        chunk = checked(raw, self.names, np.stack([self.limits.low, self.limits.high]),
                        self._contract.limits.position_margin_rad)
        self._refuse_wrong_time(chunk, now_ns)
        anchor = self._anchor(now_ns, measured)
        handoff_ns = now_ns + round(options.handoff_s * 1e9)
        start = anchor.state(handoff_ns)
        single = chunk
        if options.mode == "temporal_ensemble":
            chunk = splice.ensembled(chunk, self._history.chunks, options.ensemble_decay)
        waypoints = remaining(chunk, handoff_ns, options.min_actions, options.horizon_s)
        offset = 0.0
        overlap_s = (anchor.content_end_ns - handoff_ns) * 1e-9
        if overlap_s > 0:
            overlap = splice.Overlap(lambda time_s: anchor.state(handoff_ns + round(time_s * 1e9)).position, overlap_s)
            blend_s = options.blend_s if options.mode in ("splice", "temporal_ensemble") else 0.0
            offset, joint = splice.offset(waypoints, overlap, blend_s)
            splice.refuse_far(offset, joint, options.max_splice_rad, self.names)
            waypoints = splice.blended(waypoints, overlap, blend_s)
        waypoints = stretched(waypoints, start, self.limits.scaled(RESERVE), self.names, options.steepest,
                              options.max_gap_rad, 1.0 / options.speed_scale)
        path, solution, waypoints, truncated = self._clear_path(start, waypoints, anchor, now_ns, handoff_ns)
        self._history.add(single, now_ns)
        due_ns = [handoff_ns + round(due_s * 1e9) for due_s in waypoints.due_s]
        return Command("chunk", path, now_ns, handoff_ns, due_ns[-1],
                       tuple(zip(due_ns, (float(opening) for opening in waypoints.gripper), strict=True)),
                       chunk.number, waypoints.dropped, len(due_ns), waypoints.stretch, offset, solution.residual_rad,
                       truncated)

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
        until_ns = running.content_end_ns - round((self.options.handoff_s + chunk.dt_s) * 1e9)
        if self.options.mode == "receding_horizon":
            until_ns = min(until_ns, running.handoff_ns + round((self.options.execute_steps - 1) * chunk.dt_s * 1e9))
        if self.options.mode in ("open_loop", "receding_horizon") and now_ns < until_ns:
            raise RefusedError(Reason.BUSY, f"mode {self.options.mode}: the running chunk has "
                                            f"{(until_ns - now_ns) * 1e-9:.2f} s to go")

    def _anchor(self, now_ns: int, measured: Measured) -> Command:
        """The command in force; from the first chunk after a reset, standing at the measured position."""
        if self._running is not None:
            return self._running
        fastest = int(np.argmax(np.abs(measured.velocity)))
        if abs(measured.velocity[fastest]) > REST_RAD_S:
            raise RefusedError(Reason.NOT_AT_REST, f"{self.names[fastest]} moves at {measured.velocity[fastest]:.3f} "
                                                   "rad/s without our command; the first chunk needs a resting arm")
        outside = np.maximum(self.limits.low - measured.position, measured.position - self.limits.high)
        joint = int(np.argmax(outside))
        if outside[joint] > 0:
            raise RefusedError(Reason.POSITION_LIMIT, f"{self.names[joint]} stands {outside[joint]:.3f} rad outside "
                                                      "its limits; move the arm back by hand or in its own interface")
        position = np.stack([measured.position] * 2)
        zeros = np.zeros_like(position)
        path = JointPath(self.names, np.array([0.0, 0.01]), position, zeros, zeros)
        return Command("hold", path, now_ns, now_ns, now_ns)

    def _clear_path(self, start: State, waypoints: Waypoints, anchor: Command, now_ns: int,
                    handoff_ns: int) -> tuple[JointPath, Fit, Waypoints, Refusal | None]:
        """Path within limits and free of collision, through all waypoints or as far as they are free (step 6)."""
        truncated: Refusal | None = None
        kept = waypoints
        for back in (0, 1, 2, 4, 8):  # how many actions earlier to stop when stopping at the last free one is too late
            solution, fitted = self._fit(start, kept)
            path = _with_prefix(anchor, now_ns, handoff_ns, solution.path)
            hit = self._clearance.first_hit(path)
            if hit is None:
                return path, solution, fitted, truncated
            truncated = truncated or hit.refusal
            kept = self._clearance.held(start.position, waypoints, self.options.press_rad, back, truncated)
        assert truncated is not None
        raise RefusedError(truncated.reason, truncated.message)

    def _fit(self, start: State, waypoints: Waypoints) -> tuple[Fit, Waypoints]:
        """Spline through the waypoints, slowed down until it meets them. Raises RefusedError."""
        options, limits = self.options, self.limits.scaled(RESERVE)
        kept = waypoints
        problem = "the motion can't be continued within the limits"
        slowest = options.slowest / options.speed_scale
        while kept.stretch <= slowest:
            solution = fit(self.names, start, kept.due_s, kept.positions, self._tail_s(kept, start), limits,
                           options.knot_s, options.smoothing_s)
            if solution is not None:
                excess = worst_excess(solution.path, self.limits)
                if excess is not None:
                    problem = str(excess)
                elif solution.residual_rad <= options.max_deviation_rad:
                    return solution, kept
                else:
                    problem = (f"{self.names[solution.residual_joint]} would miss action "
                               f"{kept.dropped + solution.residual_waypoint} by {solution.residual_rad:.3f} rad")
            kept = replace(kept, due_s=kept.due_s * 1.4, stretch=kept.stretch * 1.4)
        raise RefusedError(Reason.DYNAMIC_LIMIT, f"{problem}, even {slowest:.1f} times slower")

    def _tail_s(self, waypoints: Waypoints, start: State) -> float:
        """Length of the braking tail: from the last actions' speed, or the start's, at half the deceleration limit."""
        if len(waypoints.due_s) > 1:
            (before, last), (before_s, last_s) = waypoints.positions[-2:], waypoints.due_s[-2:]
            speed = np.abs(last - before) / (last_s - before_s)
        else:
            speed = np.abs(start.velocity)
        return 0.2 + float(np.max(np.minimum(speed, self.limits.velocity) / (0.5 * self.limits.acceleration)))


def _with_prefix(anchor: Command, now_ns: int, handoff_ns: int, path: JointPath) -> JointPath:
    """``path`` from the hand-off on, preceded by what the anchor does from now until then."""
    lead_s = (handoff_ns - now_ns) * 1e-9
    if lead_s <= 0:
        return path
    begin_s = (now_ns - anchor.start_ns) * 1e-9
    inner = anchor.path.times_s - begin_s
    times = [0.0, *(float(t) for t in inner if 1e-3 < t < lead_s - 1e-3)]
    states = [anchor.path.sample(begin_s + t) for t in times]
    return JointPath(path.names, np.concatenate([times, path.times_s + lead_s]),
                     np.concatenate([np.stack([s[0] for s in states]), path.positions]),
                     np.concatenate([np.stack([s[1] for s in states]), path.velocities]),  # type: ignore[list-item]
                     np.concatenate([np.stack([s[2] for s in states]), path.accelerations]))  # type: ignore[list-item]
