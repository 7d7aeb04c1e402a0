"""An action chunk as it comes from a policy, and the checks that need nothing but the chunk (steps 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.reasons import Reason, RefusedError

Array = NDArray[np.float64]
MAX_ACTIONS = 1000


@dataclass(frozen=True)
class Chunk:
    """H actions predicted from the observation at ``stamp_ns``; action j is due at ``stamp_ns + (j + 1) * dt_s``.

    ``positions`` (H, J) in rad, columns named by ``names``; ``gripper`` (H,) opening, 0 closed … 1 open.
    Holds whatever a policy sent; :func:`checked` says whether it can be used.
    """

    stamp_ns: int
    names: tuple[str, ...]
    positions: Array
    gripper: Array
    dt_s: float
    number: int = 0

    @property
    def due_ns(self) -> NDArray[np.int64]:
        """(H,) absolute times at which the actions are to be reached."""
        return self.stamp_ns + np.round(np.arange(1, len(self.positions) + 1) * self.dt_s * 1e9).astype(np.int64)


def checked(chunk: Chunk, names: Sequence[str], position_limits: Array, clip_rad: float) -> Chunk:
    """The chunk with its columns in the order of ``names``, within limits. Raises RefusedError.

    ``position_limits`` (2, J), rad. Positions up to ``clip_rad`` outside are clipped (the limits are drawn in by a
    margin, and a policy that regresses to them lands on both sides), openings are clipped to 0 … 1.
    """
    positions = np.asarray(chunk.positions, dtype=np.float64)
    gripper = np.asarray(chunk.gripper, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != len(chunk.names) or not 1 <= len(positions) <= MAX_ACTIONS:
        raise RefusedError(Reason.MALFORMED, f"positions must be (H, {len(chunk.names)}) with H of 1 to {MAX_ACTIONS}, "
                                             f"one column a joint, got {positions.shape}")
    if gripper.shape != (len(positions),):
        raise RefusedError(Reason.MALFORMED, f"gripper must hold {len(positions)} values, one an action, "
                                             f"got shape {gripper.shape}")
    if not (np.isfinite(chunk.dt_s) and 1e-3 <= chunk.dt_s <= 10.0):
        raise RefusedError(Reason.MALFORMED, f"the time between actions must be 0.001 to 10 s, got {chunk.dt_s}")
    missing = [name for name in names if name not in chunk.names]
    extra = [name for name in chunk.names if name not in names]
    if missing or extra or len(set(chunk.names)) != len(chunk.names):
        raise RefusedError(Reason.WRONG_JOINTS, f"expected the joints {', '.join(names)}; missing "
                                                f"{', '.join(missing) or 'none'}, unknown {', '.join(extra) or 'none'}"
                                                f"{'' if missing or extra else ', some twice'}")
    order = [chunk.names.index(name) for name in names]
    positions = positions[:, order]
    _refuse_not_finite(positions, gripper, names)
    _refuse_out_of_limits(positions, names, position_limits, clip_rad)
    low, high = position_limits
    return Chunk(chunk.stamp_ns, tuple(names), np.clip(positions, low, high), np.clip(gripper, 0.0, 1.0),
                 float(chunk.dt_s), chunk.number)


def _refuse_not_finite(positions: Array, gripper: Array, names: Sequence[str]) -> None:
    bad = np.argwhere(~np.isfinite(positions))
    if len(bad):
        step, joint = bad[0]
        raise RefusedError(Reason.NOT_FINITE, f"action {step} of {names[joint]} is {positions[step, joint]}")
    bad = np.argwhere(~np.isfinite(gripper))
    if len(bad):
        raise RefusedError(Reason.NOT_FINITE, f"action {bad[0, 0]} of the gripper is {gripper[bad[0, 0]]}")


def _refuse_out_of_limits(positions: Array, names: Sequence[str], limits: Array, clip_rad: float) -> None:
    low, high = limits
    excess = np.maximum(low - positions, positions - high)
    step, joint = divmod(int(np.argmax(excess)), len(names))
    if excess[step, joint] > clip_rad:
        raise RefusedError(Reason.POSITION_LIMIT,
                           f"action {step} of {names[joint]} is {positions[step, joint]:.3f} rad, allowed "
                           f"{low[joint]:.3f} to {high[joint]:.3f}")
