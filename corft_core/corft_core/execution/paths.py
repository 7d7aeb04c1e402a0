"""From waypoints to a path that keeps the limits and stays clear (steps 4 to 7)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution.clearance import Clearance, held
from corft_core.execution.command import Command, joined
from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.options import ExecutorOptions
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import Waypoints
from corft_core.execution.spline import Fit, State, fit
from corft_core.planning.interface import MotionPlanner
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
# Part of the limits that planning uses; the rest absorbs rounding.
RESERVE = 0.95
# Part of the velocity limit that a joint may become faster than it starts, to give the spline's knots room.
START_RESERVE = 0.02
# The way onto a chunk: so much of it, which is slowed down alone at first.
ONTO_S, ONTO_TRIES = 0.4, 4


class PathMaker:
    """Completes the draft of a command with a path from the hand-off's state through waypoints to rest."""

    def __init__(self, contract: Contract, planner: MotionPlanner, options: ExecutorOptions) -> None:
        self.options = options
        self.limits = MotionLimits.of(contract, planner.position_limits)
        self._names, self._planner = contract.robot.joints, planner
        self._clearance = Clearance(contract, planner)

    def complete(self, draft: Command, start: State, waypoints: Waypoints, anchor: Command, now_ns: int) -> Command:
        """The draft with a path within limits and free of collision, as far as the actions are clear (step 6).

        ``anchor`` is the command in force, ``start`` its state at the hand-off. Raises RefusedError.
        """
        command = self._through(draft, start, waypoints, anchor, now_ns)
        if isinstance(command, Command):
            return command
        hit = command
        count, clear = self._clearance.clear_count(start.position, waypoints.positions)
        for back in (0, 1, 2, 4, 8):  # actions earlier to stop, where stopping at the last clear one is too late
            kept = held(start.position, waypoints, clear, self.options.press_rad, back, hit)
            command = self._through(replace(draft, truncated=hit), start, kept, anchor, now_ns)
            if isinstance(command, Command):
                cut = self.options.on_collision == "replan" and len(kept.due_s) < len(waypoints.due_s)
                return replace(command, detour=self._first_free(waypoints.positions[count:])) if cut else command
        raise RefusedError(hit.reason, hit.message)

    def hit_ahead(self, command: Command, now_ns: int) -> Refusal | None:
        """What the rest of a command hits in the scene as it is now."""
        from_s = (now_ns - command.start_ns) * 1e-9
        hit = self._clearance.collision(command.path, from_s)
        return None if hit is None else Refusal(Reason.SCENE_CHANGED, "the scene has changed, or what may touch in it: "
                                                f"{hit[1]} {max(hit[0] - from_s, 0.0):.2f} s from now")

    def leaves_workspace(self, path: JointPath, to_its_end: bool) -> Refusal | None:
        """Where a path takes the tool out of the workspace; ``to_its_end``: its end may lie outside."""
        return self._clearance.leaves_workspace(path, to_its_end)

    def _first_free(self, positions: Array) -> Array | None:
        return next((position for position in positions if self._clearance.free(position)), None)

    def _through(self, draft: Command, start: State, waypoints: Waypoints, anchor: Command,
                 now_ns: int) -> Command | Refusal:
        """The draft with a path through all waypoints, or what it hits. Raises RefusedError when limits forbid it."""
        solution, fitted = self._fit(start, waypoints)
        start_ns, path = joined(anchor, now_ns, draft.handoff_ns, solution.path)
        hit = self._clearance.first_hit(path)
        if hit is not None:
            return hit
        due_ns = [draft.handoff_ns + round(due_s * 1e9) for due_s in fitted.due_s]
        openings = () if fitted.gripper is None else tuple(zip(due_ns, fitted.gripper.tolist(), strict=True))
        return replace(draft, path=path, start_ns=start_ns, content_end_ns=due_ns[-1], gripper=openings,
                       used=len(due_ns), stretch=fitted.stretch, deviation_rad=solution.residual_rad)

    def _fit(self, start: State, waypoints: Waypoints) -> tuple[Fit, Waypoints]:
        """Spline through the waypoints, slowed down until it meets them. Raises RefusedError."""
        options = self.options
        limits = replace(self.limits.scaled(RESERVE), velocity=self.fastest(start))
        problem = "the motion can't be continued within the limits"
        kept, tries = waypoints, 0
        while kept.stretch <= options.slowest:
            solution = fit(self._names, start, kept.due_s, kept.positions, self._tail_s(kept, start), limits,
                           options.knot_s, options.smoothing_s)
            if solution is not None:
                excess = worst_excess(solution.path, self.limits)
                if excess is not None:
                    problem = str(excess)
                elif solution.residual_rad <= options.max_deviation_rad:
                    return solution, kept
                else:
                    problem = (f"{self._names[solution.residual_joint]} would miss action "
                               f"{kept.dropped + solution.residual_waypoint} by {solution.residual_rad:.3f} rad")
            # Where only the way onto the chunk is too short, the rest keeps its pace.
            first = None if solution is None or tries > ONTO_TRIES else solution.residual_waypoint + 1
            kept = kept.later(1.4, first if first is not None and kept.due_s[first - 1] <= ONTO_S else None)
            tries += 1
        raise RefusedError(Reason.DYNAMIC_LIMIT, f"{problem}, even {options.slowest:.1f} times slower")

    def fastest(self, start: State) -> Array:
        """(J,) the velocity that a chunk may use: part of the limit by the speed scale, more for a joint that is faster
        at the ``start``, as after the scale was lowered, or that its acceleration there still makes faster."""
        limits = self.limits
        coming = start.velocity + start.acceleration * np.abs(start.acceleration) / (2 * RESERVE * limits.jerk)
        already = np.maximum(np.abs(start.velocity), np.abs(coming)) + START_RESERVE * limits.velocity
        return np.minimum(RESERVE * limits.velocity,
                          np.maximum(RESERVE * self.options.speed_scale * limits.velocity, already))

    def _tail_s(self, waypoints: Waypoints, start: State) -> float:
        """Length of the braking tail: from the last actions' speed, or the start's, at half the deceleration limit."""
        if len(waypoints.due_s) > 1:
            (before, last), (before_s, last_s) = waypoints.positions[-2:], waypoints.due_s[-2:]
            speed = np.abs(last - before) / (last_s - before_s)
        else:
            speed = np.abs(start.velocity)
        return 0.2 + float(np.max(np.minimum(speed, self.limits.velocity) / (0.5 * self.limits.acceleration)))
