"""Exact statistics of states and of the action representation, and the transforms they define.

Actions are turned into the contract's representation first ("relative": arm command minus measured joints at the
observation) and only then measured, per step of the chunk, because later steps reach further. Arm values are
standardised by mean and deviation; gripper openings map 0…1 to −1…1 and are never measured: a gripper that
mostly rests would otherwise be squeezed or blown up. `encode_*` and `decode_*` are inverse to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError

Array = NDArray[Any]
MIN_SCALE_RAD = 1e-3
"""Smallest deviation used as a divisor: joints that hardly move are not amplified into noise."""


@dataclass(frozen=True)
class Statistics:
    """H chunk steps; states and actions carry the gripper as last entry, which is left out here.

    A robot's quantities are its J arm joints in rad; a benchmark's state has J = S − 1 values, its actions A − 1, in
    their own units.
    """

    representation: str
    state_mean: Array
    """(J,)"""
    state_scale: Array
    """(J,)"""
    action_mean: Array
    """(H, A − 1) of the representation."""
    action_scale: Array
    """(H, A − 1)"""
    action_low: Array
    """(H, A − 1) smallest value seen, of the representation; decoded actions stay within the seen range ± 10 %."""
    action_high: Array
    """(H, A − 1)"""
    samples: int
    """Steps the statistics were computed from."""

    @property
    def horizon(self) -> int:
        return len(self.action_mean)

    @classmethod
    def measure(cls, state: Array, action: Array, valid: Array, representation: str) -> Statistics:
        """Exact statistics of states (N, S) and absolute chunks (N, H, A); padded steps (valid (N, H)) are left out."""
        if len(state) == 0:
            raise CorftError("statistics need at least one step; the training part of the data set is empty.")
        arm = action[..., :-1].astype(np.float64)
        if representation == "relative":
            if state.shape[-1] != action.shape[-1]:
                raise CorftError(f"relative actions need as many state as action values; got {state.shape[-1]} and "
                                 f"{action.shape[-1]}.")
            arm = arm - state[:, None, :-1]
        elif representation != "absolute":
            raise CorftError(f"action representation {representation!r}: expected relative or absolute.")
        weight = valid.astype(np.float64)[..., None]
        count = np.maximum(weight.sum(0), 1.0)
        mean = (arm * weight).sum(0) / count
        deviation = np.sqrt(((arm - mean) ** 2 * weight).sum(0) / count)
        joints = state[:, :-1].astype(np.float64)
        return cls(
            representation=representation,
            state_mean=joints.mean(0),
            state_scale=np.maximum(joints.std(0), MIN_SCALE_RAD),
            action_mean=mean,
            action_scale=np.maximum(deviation, MIN_SCALE_RAD),
            action_low=np.where(valid[..., None], arm, mean).min(0),  # a padded step counts as average
            action_high=np.where(valid[..., None], arm, mean).max(0),
            samples=len(state),
        )

    def encode_state(self, state: Array) -> Array:
        """(…, S) → normalised (…, S)."""
        arm = (state[..., :-1] - self.state_mean) / self.state_scale
        return np.concatenate([arm, 2.0 * state[..., -1:] - 1.0], -1).astype(np.float32)

    def decode_state(self, encoded: Array) -> Array:
        """Inverse of `encode_state`."""
        arm = encoded[..., :-1] * self.state_scale + self.state_mean
        return np.concatenate([arm, (encoded[..., -1:] + 1.0) / 2.0], -1)

    def encode_actions(self, action: Array, state: Array) -> Array:
        """Absolute chunks (…, H, A) observed at state (…, S) → normalised (…, H, A)."""
        arm = action[..., :-1].astype(np.float64)
        if self.representation == "relative":
            arm = arm - state[..., None, :-1]
        arm = (arm - self.action_mean) / self.action_scale
        return np.concatenate([arm, 2.0 * action[..., -1:] - 1.0], -1).astype(np.float32)

    def decode_actions(self, encoded: Array, state: Array) -> Array:
        """Inverse of `encode_actions`, float64; limits arm values to the seen range ± 10 % and openings to 0…1."""
        margin = 0.1 * (self.action_high - self.action_low) + MIN_SCALE_RAD
        arm = encoded[..., :-1].astype(np.float64) * self.action_scale + self.action_mean
        arm = np.clip(arm, self.action_low - margin, self.action_high + margin)
        if self.representation == "relative":
            arm = arm + state[..., None, :-1]
        opening = np.clip((encoded[..., -1:].astype(np.float64) + 1.0) / 2.0, 0.0, 1.0)
        return np.concatenate([arm, opening], -1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Statistics:
        """Inverse of `to_dict`; raises CorftError on missing or unknown keys."""
        names = set(cls.__dataclass_fields__)
        if set(data) != names:
            raise CorftError(f"statistics hold the keys {sorted(data)}, expected {sorted(names)}.")
        plain: dict[str, Any] = {k: np.asarray(v, np.float64) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**plain)
