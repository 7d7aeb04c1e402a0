"""What learning needs to know of a robot or a benchmark: names, rate, cameras.

A robot's :class:`corft_core.contract.Contract` offers it, and so does :class:`StateFeatures` for tasks seen through
a state vector alone. Where there is a gripper, one entry of a state and of an action is its opening, 0 closed … 1 open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from corft_core.errors import ContractError

STATE_FEATURES_KEY = "state_features_version"
"""Tells the file of a StateFeatures from a robot's contract."""
_VERSION = 1

Representation = Literal["relative", "absolute"]


class CameraFeatures(Protocol):
    """One camera's name and the (height, width) [pixels] of the policy's picture."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...


class Features(Protocol):
    """Meaning of images, states (S,) and actions (A,) at `rate_hz` steps a second.

    `state_gripper` and `action_gripper` are the places of the gripper opening, None without gripper.
    """

    @property
    def cameras(self) -> Sequence[CameraFeatures]: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def state_gripper(self) -> int | None: ...
    @property
    def action_gripper(self) -> int | None: ...
    @property
    def rate_hz(self) -> int: ...
    @property
    def action_representation(self) -> Representation: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class StateFeatures:
    """A task without cameras. Actions are absolute, the gripper opening comes last; S may differ from A."""

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    rate_hz: int

    def __post_init__(self) -> None:
        for key in ("state_names", "action_names"):
            names = getattr(self, key)
            if len(names) < 2 or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
                raise ContractError(f"{key} must be distinct names, the gripper opening last; got {names}")
        if isinstance(self.rate_hz, bool) or not isinstance(self.rate_hz, int) or self.rate_hz <= 0:
            raise ContractError(f"rate_hz must be a positive whole number; got {self.rate_hz!r}")

    @property
    def cameras(self) -> tuple[CameraFeatures, ...]:
        return ()

    @property
    def state_gripper(self) -> int:
        return len(self.state_names) - 1

    @property
    def action_gripper(self) -> int:
        return len(self.action_names) - 1

    @property
    def action_representation(self) -> Representation:
        return "absolute"

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` reads back to equal features."""
        return {STATE_FEATURES_KEY: _VERSION, "state_names": list(self.state_names),
                "action_names": list(self.action_names), "rate_hz": self.rate_hz}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StateFeatures:
        """Inverse of :meth:`to_dict`. Raises ContractError naming the key."""
        expected = {STATE_FEATURES_KEY, "state_names", "action_names", "rate_hz"}
        if set(data) != expected:
            raise ContractError(f"state features hold the keys {sorted(data)}, expected {sorted(expected)}")
        if data[STATE_FEATURES_KEY] != _VERSION:
            raise ContractError(f"{STATE_FEATURES_KEY} is {data[STATE_FEATURES_KEY]!r}, this corft reads {_VERSION}")
        return cls(tuple(data["state_names"]), tuple(data["action_names"]), data["rate_hz"])


def image_size(features: Features) -> tuple[int, int]:
    """(height, width) [pixels] of the first camera, which sets the networks' size; (0, 0) without cameras."""
    return features.cameras[0].size if features.cameras else (0, 0)


def differences(mine: Features, theirs: Features) -> list[str]:
    """Lines ``key: mine != theirs``, empty when the two are equal."""
    left, right = _flatten(mine.to_dict()), _flatten(theirs.to_dict())
    return [f"{key}: {left.get(key, 'absent')} != {right.get(key, 'absent')}"
            for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        flat = {}
        for key, value in data.items():
            flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return _flatten({item.get("name", str(i)): item for i, item in enumerate(data)}, prefix)
    return {prefix: data}
