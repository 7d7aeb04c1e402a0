"""Tool poses and twists to joint positions, near the motion that runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.chunk import Chunk
from corft_core.execution.limits import MotionLimits
from corft_core.execution.reasons import Reason, Refusal, RefusedError
from corft_core.execution.schedule import first_left
from corft_core.planning.interface import MotionPlanner

Array = NDArray[np.float64]


def to_joints(chunk: Chunk, start: Array, handoff_ns: int, planner: MotionPlanner, limits: MotionLimits,
              steepest: float, min_actions: int) -> tuple[Chunk, Refusal | None]:
    """The Cartesian chunk with joint positions, and why it was cut where an action could not be followed.

    Inverse kinematics runs action by action from ``start`` (J,), the commanded joints at the hand-off, each seeded
    with the one before; actions whose time has passed stand at ``start``. Twists are integrated from the tool's
    commanded pose at the hand-off. Raises RefusedError when fewer than ``min_actions`` can be followed: UNREACHABLE,
    or IK_JUMP for a joint that would need more than ``steepest`` times its velocity limit.
    """
    first = first_left(chunk, handoff_ns)
    intervals = np.diff((chunk.due_ns[first:] - handoff_ns) * 1e-9, prepend=0.0)
    positions = np.repeat(start[None], len(chunk.positions), axis=0)
    pose = planner.forward_kinematics(start)
    problem: Refusal | None = None
    count = len(positions)
    for row, interval_s in enumerate(intervals, first):
        pose = _pose(chunk, row, pose, float(interval_s))
        solution = planner.inverse_kinematics(pose, positions[row - 1] if row > first else start, near=True)
        problem = _problem(row, pose, solution, positions[row - 1] if row > first else start, float(interval_s),
                           limits, planner.joint_names, steepest)
        if problem is not None:
            count = row
            break
        positions[row] = solution
    if problem is not None and count - first < min_actions:
        raise RefusedError(problem.reason, problem.message)
    gripper = None if chunk.gripper is None else chunk.gripper[:count]
    return replace(chunk, names=planner.joint_names, positions=positions[:count], gripper=gripper, tool_poses=None,
                   tool_twists=None), problem


def _pose(chunk: Chunk, row: int, before: Array, interval_s: float) -> Array:
    """Pose (4, 4) that action ``row`` asks for."""
    if chunk.tool_poses is not None:
        return chunk.tool_poses[row]
    assert chunk.tool_twists is not None
    linear, angular = chunk.tool_twists[row, :3], chunk.tool_twists[row, 3:]
    pose = before.copy()
    pose[:3, 3] += linear * interval_s
    pose[:3, :3] = rotation(angular * interval_s) @ before[:3, :3]
    return pose


def _problem(row: int, pose: Array, solution: Array | None, before: Array, interval_s: float, limits: MotionLimits,
             names: tuple[str, ...], steepest: float) -> Refusal | None:
    if solution is None:
        place = ", ".join(f"{value:.3f}" for value in pose[:3, 3])
        return Refusal(Reason.UNREACHABLE, f"action {row} puts the tool at ({place}) m, which no joint position near "
                                           "the motion reaches")
    ratio = np.abs(solution - before) / (limits.velocity * interval_s)
    joint = int(np.argmax(ratio))
    if ratio[joint] > steepest:
        return Refusal(Reason.IK_JUMP, f"action {row} turns {names[joint]} by "
                                       f"{abs(solution[joint] - before[joint]):.3f} rad within {interval_s:.2f} s, "
                                       f"{ratio[joint]:.1f} times its velocity limit: a singularity is near")
    return None


def rotation(vector: Array) -> Array:
    """Rotation matrix (3, 3) of a rotation vector (3,), rad (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
