"""How a new chunk takes over from the running one (step 3), and the four ways of executing chunks.

``splice``: the newest chunk, blended over the first ``blend_s`` with what runs. ``receding_horizon``: the newest
chunk after ``execute_steps`` actions of the last, no blend. ``open_loop``: every chunk to its end.
``temporal_ensemble``: mean of all chunks that predict an action's time, weights exp(-decay·i) with i = 0 the oldest
(ACT), then as ``splice``. Gripper openings are the newest chunk's in every mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.chunk import Chunk
from corft_core.execution.reasons import Reason, RefusedError
from corft_core.execution.schedule import Waypoints

Array = NDArray[np.float64]
ChunkMode = Literal["splice", "receding_horizon", "open_loop", "temporal_ensemble"]
CHUNK_MODES: tuple[ChunkMode, ...] = get_args(ChunkMode)


@dataclass(frozen=True)
class Overlap:
    """What the running chunk still wants: its motion ``at(time_s)`` -> (J,), until ``end_s`` after the hand-off."""

    at: Callable[[float], Array]
    end_s: float


def offset(waypoints: Waypoints, overlap: Overlap, blend_s: float) -> tuple[float, int]:
    """Largest difference [rad] between new and running motion within the blend, and its joint."""
    near = np.flatnonzero(waypoints.due_s <= min(overlap.end_s, max(blend_s, waypoints.due_s[0] + 1e-9)))
    if len(near) == 0:
        return 0.0, 0
    difference = np.abs(waypoints.positions[near] - np.stack([overlap.at(float(waypoints.due_s[i])) for i in near]))
    _, joint = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return float(difference.max()), int(joint)


def refuse_far(amount: float, joint: int, limit: float, names: Sequence[str]) -> None:
    """Raises RefusedError when the new chunk is farther than ``limit`` from the running motion."""
    if amount > limit:
        raise RefusedError(Reason.SPLICE_TOO_LARGE, f"the new chunk is {amount:.3f} rad from the running motion at "
                                                    f"{names[joint]}, at most {limit:.3f} rad are blended; the running "
                                                    "motion ends in its own stop")


def blended(waypoints: Waypoints, overlap: Overlap, blend_s: float) -> Waypoints:
    """Waypoints within ``blend_s`` of the hand-off moved towards the running motion (smoothstep weights)."""
    positions = waypoints.positions.copy()
    for i, due_s in enumerate(waypoints.due_s):
        if due_s >= blend_s or due_s > overlap.end_s:
            break
        x = due_s / blend_s
        weight = x * x * (3 - 2 * x)
        positions[i] = weight * positions[i] + (1 - weight) * overlap.at(float(due_s))
    return Waypoints(waypoints.due_s, positions, waypoints.gripper, waypoints.dropped, waypoints.stretch)


def ensembled(chunk: Chunk, earlier: Sequence[Chunk], decay: float) -> Chunk:
    """``chunk`` with its positions averaged over the ``earlier`` chunks (oldest first) that cover the same times."""
    due = chunk.due_ns
    members = [*earlier, chunk]
    total = np.zeros_like(chunk.positions)
    weights = np.zeros(len(due))
    rank = np.zeros(len(due))
    for member in members:
        times = member.due_ns
        covered = (due >= times[0]) & (due <= times[-1])
        weight = np.where(covered, np.exp(-decay * rank), 0.0)
        origin = times[0]
        values = np.stack([np.interp((due - origin) * 1e-9, (times - origin) * 1e-9, member.positions[:, joint])
                           for joint in range(chunk.positions.shape[1])], axis=1)
        total += weight[:, None] * values
        weights += weight
        rank += covered
    return Chunk(chunk.stamp_ns, chunk.names, total / weights[:, None], chunk.gripper, chunk.dt_s, chunk.number)
