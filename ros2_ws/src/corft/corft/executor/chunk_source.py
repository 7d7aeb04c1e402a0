"""Whose chunks are executed: one policy's at a time. No ROS in here."""

from __future__ import annotations

from corft_core.execution import Reason, Refusal


class ChunkSource:
    """Lets the first source in and refuses the others until it has been silent for ``silent_s`` of steady time."""

    def __init__(self, silent_s: float) -> None:
        self.name = ""
        self.key = b""
        self._silent_s = silent_s
        self._heard_s = 0.0

    def admit(self, key: bytes, name: str, now_s: float) -> Refusal | None:
        """None when the chunk of the source ``key`` may pass; ``name`` is for people."""
        if self.key and key != self.key and now_s - self._heard_s < self._silent_s:
            return Refusal(Reason.OTHER_SOURCE, f"{name} sends chunks while {self.name} drives the arm; stop one of "
                                                f"them ({self.name} counts as stopped after {self._silent_s:g} s of "
                                                "silence)")
        self.key, self.name, self._heard_s = key, name, now_s
        return None

    def release(self) -> None:
        """Take the next source, whoever it is."""
        self.key, self.name = b"", ""
