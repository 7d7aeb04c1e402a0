"""From a predicted chunk to its message."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration as DurationMsg
from builtin_interfaces.msg import Time as TimeMsg
from corft_msgs.msg import ActionChunk
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectoryPoint

from corft_core.contract import Contract
from corft_core.errors import CorftError


def time_message(stamp_ns: int) -> TimeMsg:
    """builtin_interfaces/Time of absolute nanoseconds."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return TimeMsg(sec=sec, nanosec=nanosec)


def duration_message(duration_ns: int) -> DurationMsg:
    """builtin_interfaces/Duration of nanoseconds."""
    sec, nanosec = divmod(duration_ns, 1_000_000_000)
    return DurationMsg(sec=sec, nanosec=nanosec)


def chunk_message(contract: Contract, stamp_ns: int, actions: NDArray[np.float64], *, chunk_number: int,
                  policy_id: str, value: float, inference_s: float) -> ActionChunk:
    """ActionChunk of `actions` (H, A): absolute arm positions [rad], then the gripper opening 0 … 1.

    Point j is due at `stamp_ns` + (j + 1) steps. Raises CorftError when the shape is wrong or a value is not
    finite.
    """
    joints = contract.robot.joints
    if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != len(joints) + 1:
        raise CorftError(f"the policy gave a chunk of shape {actions.shape}, expected (steps, {len(joints) + 1})")
    if not np.isfinite(actions).all():
        raise CorftError("the policy gave actions that are not finite")
    chunk = ActionChunk(chunk_number=chunk_number, policy_id=policy_id, value=float(value),
                        inference_time=duration_message(round(inference_s * 1e9)))
    chunk.header.stamp = time_message(stamp_ns)
    chunk.header.frame_id = contract.robot.base_frame
    chunk.trajectory.header = chunk.header
    chunk.trajectory.joint_names = list(joints)
    chunk.trajectory.points = [
        JointTrajectoryPoint(positions=row[:-1].tolist(), time_from_start=duration_message((j + 1) * contract.step_ns))
        for j, row in enumerate(actions)]
    chunk.gripper = actions[:, -1].tolist()
    return chunk
