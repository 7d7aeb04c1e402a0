"""Cameras that show the same picture while the arm moves: a driver that sends its last frame anew. No ROS in here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.align import AlignedObservation


class _Picture:
    """What a camera has shown since its image of ``first_ns``, and the range of the arm's joints [rad] meanwhile."""

    def __init__(self, pixels: NDArray[np.uint8], first_ns: int, joints: int) -> None:
        self.pixels, self.first_ns = pixels, first_ns
        self._low, self._high = np.full(joints, np.inf), np.full(joints, -np.inf)
        self._later: list[tuple[int, NDArray[np.float64]]] = []

    def motion_rad(self, joints_ns: int, joints: NDArray[np.float64], shown_ns: int) -> float:
        """Motion of the joint that moved most until the camera's last image, of ``shown_ns``."""
        if joints_ns >= self.first_ns:
            self._later.append((joints_ns, joints))
        for _, known in (sample for sample in self._later if sample[0] <= shown_ns):
            np.minimum(self._low, known, out=self._low)
            np.maximum(self._high, known, out=self._high)
        self._later = [sample for sample in self._later if sample[0] > shown_ns]
        return max(0.0, float((self._high - self._low).max()))


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
            picture = self._shown[name] = _Picture(pixels, stamp_ns, self._arm)
        moved_rad = picture.motion_rad(observation.stamps_ns["joint_state"],
                                       observation.values["joint_state"][:self._arm], stamp_ns)
        if moved_rad <= self._limit_rad or _one_colour(pixels):
            return ""
        shown_s = (stamp_ns - picture.first_ns) * 1e-9
        return (f"{name} has shown the same picture for {shown_s:.1f} s while a joint moved {moved_rad:.2f} rad: "
                "its driver repeats one frame (or it can't see the arm: frozen_image_rad:=0)")


def _one_colour(pixels: NDArray[Any]) -> bool:
    return bool((pixels == pixels[:1, :1]).all())
