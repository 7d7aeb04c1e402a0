"""An action chunk as it comes from a policy, and the checks that need nothing but the chunk (steps 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.reasons import Reason, RefusedError

Array = NDArray[np.float64]
MAX_ACTIONS = 1000


@dataclass(frozen=True)
class Chunk:
    """H actions predicted from the observation at ``stamp_ns``; action j is due at ``stamp_ns + (j + 1) * dt_s``.

    ``positions`` (H, J) in rad, columns named by ``names``; ``gripper`` (H,) opening, 0 closed … 1 open, None where
    the robot has none. A Cartesian chunk has no names and (H, 0) positions, and either ``tool_poses`` (H, 4, 4) or
    ``tool_twists`` (H, 6), linear [m/s] and angular velocity [rad/s] from the action before, both of the tool frame
    in the base frame. Holds whatever a policy sent; :func:`checked` says whether it can be used.
    """

    stamp_ns: int
    names: tuple[str, ...]
    positions: Array
    gripper: Array | None
    dt_s: float
    number: int = 0
    tool_poses: Array | None = None
    tool_twists: Array | None = None

    @cached_property
    def due_ns(self) -> NDArray[np.int64]:
        """(H,) absolute times at which the actions are to be reached."""
        return self.stamp_ns + np.round(np.arange(1, len(self.positions) + 1) * self.dt_s * 1e9).astype(np.int64)

    @property
    def cartesian(self) -> bool:
        """Whether the actions are tool poses or twists."""
        return self.tool_poses is not None or self.tool_twists is not None


def checked(chunk: Chunk, names: Sequence[str], position_limits: Array, clip_rad: float, gripper: bool) -> Chunk:
    """The chunk as float64, joint columns in the order of ``names`` and within limits. Raises RefusedError.

    ``position_limits`` (2, J), rad. Positions up to ``clip_rad`` outside are clipped (the limits are drawn in by a
    margin, and a policy that regresses to them lands on both sides), openings are clipped to 0 … 1. ``gripper``:
    whether the robot has one.
    """
    if not (np.isfinite(chunk.dt_s) and 1e-3 <= chunk.dt_s <= 10.0):
        raise RefusedError(Reason.MALFORMED, f"the time between actions must be 0.001 to 10 s, got {chunk.dt_s}")
    chunk = replace(chunk, positions=_array(chunk.positions, "positions"), dt_s=float(chunk.dt_s))
    if chunk.positions.ndim != 2 or not 1 <= len(chunk.positions) <= MAX_ACTIONS:
        raise RefusedError(Reason.MALFORMED, f"positions must be (H, {len(chunk.names)}) with H of 1 to {MAX_ACTIONS}, "
                                             f"one column a joint, got {chunk.positions.shape}")
    chunk = replace(chunk, gripper=_gripper(chunk, gripper))
    return _checked_tool(chunk) if chunk.cartesian else _checked_joints(chunk, names, position_limits, clip_rad)


def _array(values: object, what: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RefusedError(Reason.MALFORMED, f"{what} must be a table of numbers: {error}") from error


def _gripper(chunk: Chunk, expected: bool) -> Array | None:
    if chunk.gripper is None or not expected:
        if expected or (chunk.gripper is not None and len(chunk.gripper) > 0):
            raise RefusedError(Reason.MALFORMED, "the chunk has no gripper openings, the contract names a gripper"
                               if expected else "the chunk has gripper openings, the contract names no gripper")
        return None
    gripper = _array(chunk.gripper, "gripper")
    if gripper.shape != (len(chunk.positions),):
        raise RefusedError(Reason.MALFORMED, f"gripper must hold {len(chunk.positions)} values, one an action, "
                                             f"got shape {gripper.shape}")
    bad = np.flatnonzero(~np.isfinite(gripper))
    if len(bad):
        raise RefusedError(Reason.NOT_FINITE, f"action {bad[0]} of the gripper is {gripper[bad[0]]}")
    return np.clip(gripper, 0.0, 1.0)


def _checked_joints(chunk: Chunk, names: Sequence[str], limits: Array, clip_rad: float) -> Chunk:
    positions = chunk.positions
    if positions.shape[1] != len(chunk.names):
        raise RefusedError(Reason.MALFORMED, f"positions must be (H, {len(chunk.names)}), one column a joint, "
                                             f"got {positions.shape}")
    missing = [name for name in names if name not in chunk.names]
    extra = [name for name in chunk.names if name not in names]
    if missing or extra or len(set(chunk.names)) != len(chunk.names):
        raise RefusedError(Reason.WRONG_JOINTS, f"expected the joints {', '.join(names)}; missing "
                                                f"{', '.join(missing) or 'none'}, unknown {', '.join(extra) or 'none'}"
                                                f"{'' if missing or extra else ', some twice'}")
    positions = positions[:, [chunk.names.index(name) for name in names]]
    bad = np.argwhere(~np.isfinite(positions))
    if len(bad):
        step, joint = bad[0]
        raise RefusedError(Reason.NOT_FINITE, f"action {step} of {names[joint]} is {positions[step, joint]}")
    low, high = limits
    excess = np.maximum(low - positions, positions - high)
    step, joint = divmod(int(np.argmax(excess)), len(names))
    if excess[step, joint] > clip_rad:
        raise RefusedError(Reason.POSITION_LIMIT,
                           f"action {step} of {names[joint]} is {positions[step, joint]:.3f} rad, allowed "
                           f"{low[joint]:.3f} to {high[joint]:.3f}")
    return replace(chunk, names=tuple(names), positions=np.clip(positions, low, high))


def _checked_tool(chunk: Chunk) -> Chunk:
    if chunk.tool_poses is not None and chunk.tool_twists is not None:
        raise RefusedError(Reason.MALFORMED, "a chunk carries tool poses or tool twists, not both")
    what, values, shape = (("tool_poses", chunk.tool_poses, (4, 4)) if chunk.tool_twists is None
                           else ("tool_twists", chunk.tool_twists, (6,)))
    table = _array(values, what)
    expected = (len(chunk.positions), *shape)
    if chunk.names or table.shape != expected:
        raise RefusedError(Reason.MALFORMED, f"{what} must have the shape {expected} and no joint names, got "
                                             f"{table.shape} and the names {', '.join(chunk.names) or 'none'}")
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        raise RefusedError(Reason.NOT_FINITE, f"action {bad[0, 0]} of {what} is not finite")
    if what == "tool_twists":
        return replace(chunk, tool_twists=table)
    rotation = table[:, :3, :3]
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = np.flatnonzero((skew > 1e-4) | (np.linalg.det(rotation) < 0) | np.any(table[:, 3] != (0, 0, 0, 1), axis=1))
    if len(wrong):
        raise RefusedError(Reason.MALFORMED, f"action {wrong[0]} of tool_poses is no rotation and translation")
    return replace(chunk, tool_poses=table)
