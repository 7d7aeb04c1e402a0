"""Cameras that show the same picture while the arm moves: a driver that sends its last frame anew. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation


@dataclass
class _Picture:
    """What a camera has shown since its image of ``first_ns``, and the arm's joints [rad] meanwhile."""

    pixels: NDArray[np.uint8]
    first_ns: int
    joints: list[tuple[int, NDArray[np.float64]]] = field(default_factory=list)

    def motion_rad(self, until_ns: int) -> float:
        """Range of the joint that moved most between the first image and that of ``until_ns``."""
        shown = [joints for stamp_ns, joints in self.joints if self.first_ns <= stamp_ns <= until_ns]
        return float(np.ptp(shown, axis=0).max()) if shown else 0.0


class FrozenImages:
    """Compares each camera's image with the one before, observation by observation.

    A sensor's noise makes every frame differ, a renderer's frames differ while the arm moves in sight; frames that are
    the same to the last bit although it did are one frame. Images of a single colour pass: they stand in for a camera.
    """

    def __init__(self, contract: Contract, limit_rad: float) -> None:
        self._cameras = [camera.name for camera in contract.cameras]
        self._arm = len(contract.robot.joints)
        self._limit_rad = limit_rad
        self._shown: dict[str, _Picture] = {}

    def reset(self) -> None:
        """Begin anew, with a new goal."""
        self._shown.clear()

    def check(self, observation: AlignedObservation) -> str:
        """What is wrong, for a person; empty when nothing is. Needs an observation with nothing missing."""
        if self._limit_rad <= 0.0:
            return ""
        found = (self._check(name, observation) for name in self._cameras)
        return "; ".join(filter(None, found))

    def _check(self, name: str, observation: AlignedObservation) -> str:
        pixels, stamp_ns = observation.values[name], observation.stamps_ns[name]
        picture = self._shown.get(name)
        if picture is None or stamp_ns < picture.first_ns or not np.array_equal(pixels, picture.pixels):
            picture = self._shown[name] = _Picture(pixels, stamp_ns)
        picture.joints.append((observation.stamps_ns["joint_state"], observation.values["joint_state"][:self._arm]))
        moved_rad = picture.motion_rad(stamp_ns)
        if moved_rad <= self._limit_rad or _one_colour(pixels):
            return ""
        shown_s = (stamp_ns - picture.first_ns) * 1e-9
        return (f"{name} has shown the same picture for {shown_s:.1f} s while a joint moved {moved_rad:.2f} rad: "
                "its driver repeats one frame (or it can't see the arm: frozen_image_rad:=0)")


def _one_colour(pixels: NDArray[Any]) -> bool:
    return bool((pixels == pixels[:1, :1]).all())
