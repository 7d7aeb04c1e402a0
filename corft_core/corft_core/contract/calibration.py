"""Between the numbers in messages and the contract's SI values, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract.schema import JointSource

Array = NDArray[Any]


@dataclass(frozen=True)
class Calibration:
    """A stream's joints (n,): value [rad or m] = ``factor`` · value in the message + ``offset``.

    All methods take arrays whose last axis runs over the n joints.
    """

    joints: tuple[str, ...]
    names: tuple[str, ...]
    """As they stand in the messages."""
    factor: Array
    offset: Array

    @classmethod
    def of(cls, joints: tuple[str, ...], sources: Mapping[str, JointSource]) -> Calibration:
        """For the contract's ``joints``; those without an entry in ``sources`` are taken as they are."""
        found = [sources.get(joint, JointSource()) for joint in joints]
        return cls(joints, tuple(source.name or joint for joint, source in zip(joints, found, strict=True)),
                   np.array([source.factor for source in found]), np.array([source.offset for source in found]))

    def from_source(self, values: Any) -> Array:
        """Positions of a message → positions in SI."""
        return self.factor * np.asarray(values, np.float64) + self.offset

    def to_source(self, values: Any) -> Array:
        """Positions in SI → positions to publish."""
        return (np.asarray(values, np.float64) - self.offset) / self.factor

    def rate_from_source(self, values: Any) -> Array:
        """Velocities, accelerations or differences of a message → SI."""
        return self.factor * np.asarray(values, np.float64)

    def rate_to_source(self, values: Any) -> Array:
        """Velocities, accelerations or differences in SI → to publish."""
        return np.asarray(values, np.float64) / self.factor
