"""How a new chunk takes over from the running one (step 3), and the five ways of executing chunks.

``splice``: the newest chunk, blended over the first ``blend_s`` with what runs. ``rtc`` (real-time chunking, Black et
al. 2025): the policy predicts while the last chunk runs; of a chunk of h actions the d that the running chunk really
took meanwhile are frozen, the next ones up to h - s are blended with it, less and less, and the last s are new.
``receding_horizon``: the newest chunk after ``execute_steps`` actions of the last, no blend. ``open_loop``: every
chunk to its end. ``temporal_ensemble``: mean of all chunks that predict an action's time, weights exp(-decay·i) with
i = 0 the oldest (ACT), then as ``splice``. Gripper openings are the newest chunk's in every mode, never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.execution.chunk import Chunk
from corft_core.execution.limits import MotionLimits
from corft_core.execution.options import ExecutorOptions
from corft_core.execution.reasons import Reason, RefusedError
from corft_core.execution.schedule import Waypoints

Array = NDArray[np.float64]
BLEND, LONGEST_BLEND_S = 0.6, 0.5


def delay_steps(latency_s: float, handoff_s: float, dt_s: float) -> int:
    """Actions d of a chunk that pass between its observation and the hand-off, for a latency of the policy."""
    return max(0, math.ceil((latency_s + handoff_s) / dt_s - 1e-9))


def check_rtc(horizon: int, execute_steps: int, delay: int) -> None:
    """Raise CorftError unless d <= s <= h - d, without which real-time chunking runs out of actions."""
    if delay <= execute_steps <= horizon - delay:
        return
    advice = (f"set execute_steps to {delay} to {horizon - delay}" if 2 * delay <= horizon else
              f"no execute_steps fits: the policy must answer within {horizon // 2} steps, use a longer horizon, or "
              "chunk_mode splice")
    raise CorftError(f"real-time chunking needs delay <= execute_steps <= horizon - delay, got a delay of {delay}, "
                     f"execute_steps {execute_steps} and a horizon of {horizon} steps; {advice}")


def blend_time(waypoints: Waypoints, running: Array, limits: MotionLimits, options: ExecutorOptions) -> float:
    """Over how long the running motion (M, J) fades out: ``blend_s``, or as long as its distance from the waypoints
    needs at part of the acceleration limits, so that a change of mind bends the motion and does not slow it down."""
    soon = waypoints.due_s <= max(options.blend_s, float(waypoints.due_s[0]))
    away = np.abs(waypoints.positions - running)[soon].max(axis=0)
    # 1 - 3x² + 2x³ over T has an acceleration of at most 6 / T².
    return float(max(options.blend_s, min(np.max(np.sqrt(6 * away / (BLEND * limits.acceleration))), LONGEST_BLEND_S)))


def running_weight(waypoints: Waypoints, horizon: int, options: ExecutorOptions, blend_s: float) -> Array:
    """(M,) share of the running motion in each waypoint, falling from the hand-off on, to nothing after ``blend_s``."""
    if options.mode == "rtc":
        index = waypoints.dropped + np.arange(len(waypoints.due_s))
        fresh = horizon - options.execute_steps
        c = np.clip((fresh - index) / max(fresh - waypoints.dropped + 1, 1), 0.0, 1.0)
        return (c * np.expm1(c) / (math.e - 1)).astype(np.float64)
    if options.mode in ("splice", "temporal_ensemble") and options.blend_s > 0:
        x = np.clip(waypoints.due_s / blend_s, 0.0, 1.0)
        return np.asarray(1.0 - x * x * (3 - 2 * x), dtype=np.float64)
    return np.zeros(len(waypoints.due_s))


def blended(waypoints: Waypoints, running: Array, until_s: float, weight: Array, max_rad: float,
            names: Sequence[str]) -> tuple[Waypoints, float]:
    """Waypoints moved towards the running motion, and how far the two differ [rad] where they overlap.

    ``running`` (M, J): the running motion at the waypoints' times, which has content up to ``until_s``; ``weight``
    (M,): its share. Raises RefusedError when the two differ by more than ``max_rad``.
    """
    weight = np.where(waypoints.due_s <= until_s, weight, 0.0)
    compared = (weight > 0) | ((waypoints.due_s <= until_s) & (np.arange(len(weight)) == 0))
    if not np.any(compared):
        return waypoints, 0.0
    difference = np.where(compared[:, None], np.abs(waypoints.positions - running), 0.0)
    joint = int(np.argmax(difference)) % len(names)
    amount = float(difference.max())
    if amount > max_rad:
        raise RefusedError(Reason.SPLICE_TOO_LARGE, f"the new chunk is {amount:.3f} rad from the running motion at "
                                                    f"{names[joint]}, at most {max_rad:.3f} rad are blended; the "
                                                    "running motion ends in its own stop")
    share = weight[:, None]
    return waypoints.at(share * running + (1 - share) * waypoints.positions), amount


def ensembled(chunk: Chunk, earlier: Sequence[Chunk], decay: float) -> Chunk:
    """``chunk`` with its positions averaged over the ``earlier`` chunks (oldest first) that cover the same times."""
    due = chunk.due_ns
    total = np.zeros_like(chunk.positions)
    weights, rank = np.zeros(len(due)), np.zeros(len(due))
    for member in [*earlier, chunk]:
        times = member.due_ns
        covered = (due >= times[0]) & (due <= times[-1])
        weight = np.where(covered, np.exp(-decay * rank), 0.0)
        total += weight[:, None] * _interpolated(times, member.positions, due)
        weights += weight
        rank += covered
    return Chunk(chunk.stamp_ns, chunk.names, total / weights[:, None], chunk.gripper, chunk.dt_s, chunk.number)


def _interpolated(times_ns: NDArray[np.int64], positions: Array, at_ns: NDArray[np.int64]) -> Array:
    """(N, J): ``positions`` (M, J) at ``times_ns`` (M,), linear in between, at ``at_ns`` (N,)."""
    below = np.clip(np.searchsorted(times_ns, at_ns, side="right") - 1, 0, max(len(times_ns) - 2, 0))
    above = np.minimum(below + 1, len(times_ns) - 1)
    part = np.clip((at_ns - times_ns[below]) / np.maximum(times_ns[above] - times_ns[below], 1), 0.0, 1.0)
    return np.asarray(positions[below] + part[:, None] * (positions[above] - positions[below]))
