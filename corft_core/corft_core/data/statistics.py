"""Exact statistics of states and of the action representation, and the transforms they define.

Actions are turned into the contract's representation first ("relative": arm command minus measured joints at the
observation) and only then measured, per step of the chunk, because later steps reach further. Values are standardised
by mean and deviation; gripper openings map 0…1 to −1…1, are never relative and never measured: a gripper that mostly
rests would otherwise be squeezed or blown up. `encode_*` and `decode_*` are inverse to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.features import Features

Array = NDArray[Any]
MIN_SCALE_RAD = 1e-3
"""Smallest deviation used as a divisor: joints that hardly move are not amplified into noise."""


@dataclass(frozen=True)
class Statistics:
    """Of H chunk steps, states (S,) and actions (A,), in their own units: rad for joints.

    ``state_gripper`` and ``action_gripper`` are the places of the gripper opening (mean and scale 0.5, range 0…1), None
    without gripper.
    """

    representation: str
    state_gripper: int | None
    action_gripper: int | None
    state_mean: Array
    """(S,)"""
    state_scale: Array
    """(S,)"""
    action_mean: Array
    """(H, A) of the representation."""
    action_scale: Array
    """(H, A)"""
    action_low: Array
    """(H, A) smallest value seen, of the representation; decoded actions stay within the seen range ± 10 %."""
    action_high: Array
    """(H, A)"""
    samples: int
    """Steps the statistics were computed from."""

    @property
    def horizon(self) -> int:
        return len(self.action_mean)

    @classmethod
    def measure(cls, state: Array, action: Array, valid: Array, features: Features) -> Statistics:
        """Exact statistics of states (N, S) and absolute chunks (N, H, A); padded steps (valid (N, H)) are left out."""
        representation, gripper = features.action_representation, features.action_gripper
        if len(state) == 0:
            raise CorftError("statistics need at least one step; the training part of the data set is empty.")
        if representation not in ("relative", "absolute"):
            raise CorftError(f"action representation {representation!r}: expected relative or absolute.")
        arm = [name for i, name in enumerate(features.action_names) if i != gripper]
        if representation == "relative" and list(features.state_names[: len(arm)]) != arm:
            raise CorftError(f"relative actions need the commanded joints {arm} first in the state, which is "
                             f"{list(features.state_names)}.")
        values = action.astype(np.float64) - _origin(state, action.shape[-1], representation, gripper)
        weight = valid.astype(np.float64)[..., None]
        count = np.maximum(weight.sum(0), 1.0)
        mean = (values * weight).sum(0) / count
        deviation = np.sqrt(((values - mean) ** 2 * weight).sum(0) / count)
        seen = np.where(valid[..., None], values, mean)  # a padded step counts as average
        wide = state.astype(np.float64)
        result = cls(
            representation=representation, state_gripper=features.state_gripper, action_gripper=gripper,
            state_mean=wide.mean(0), state_scale=np.maximum(wide.std(0), MIN_SCALE_RAD),
            action_mean=mean, action_scale=np.maximum(deviation, MIN_SCALE_RAD),
            action_low=seen.min(0), action_high=seen.max(0), samples=len(state),
        )
        if result.state_gripper is not None:
            result.state_mean[result.state_gripper] = result.state_scale[result.state_gripper] = 0.5
        if gripper is not None:
            result.action_mean[:, gripper] = result.action_scale[:, gripper] = 0.5
            result.action_low[:, gripper], result.action_high[:, gripper] = 0.0, 1.0
        return result

    def encode_state(self, state: Array) -> Array:
        """(…, S) → normalised (…, S)."""
        return ((state - self.state_mean) / self.state_scale).astype(np.float32)

    def decode_state(self, encoded: Array) -> Array:
        """Inverse of `encode_state`."""
        return encoded * self.state_scale + self.state_mean

    def encode_actions(self, action: Array, state: Array) -> Array:
        """Absolute chunks (…, H, A) observed at state (…, S) → normalised (…, H, A)."""
        values = action.astype(np.float64) - self._origin(state)
        return ((values - self.action_mean) / self.action_scale).astype(np.float32)

    def decode_actions(self, encoded: Array, state: Array) -> Array:
        """Inverse of `encode_actions`, float64; limits values to the seen range ± 10 % and openings to 0…1."""
        margin = 0.1 * (self.action_high - self.action_low) + MIN_SCALE_RAD
        if self.action_gripper is not None:
            margin[:, self.action_gripper] = 0.0
        values = encoded.astype(np.float64) * self.action_scale + self.action_mean
        return np.clip(values, self.action_low - margin, self.action_high + margin) + self._origin(state)

    def _origin(self, state: Array) -> Array:
        return _origin(state, self.action_mean.shape[-1], self.representation, self.action_gripper)

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


def _origin(state: Array, width: int, representation: str, gripper: int | None) -> Array:
    """What chunks (…, H, A) observed at ``state`` (…, S) are measured from: (…, 1, A) joints where relative, else 0."""
    origin = np.zeros((*state.shape[:-1], 1, width))
    if representation == "relative":
        arm = width if gripper is None else width - 1  # the gripper comes last
        origin[..., 0, :arm] = state[..., :arm]
    return origin
