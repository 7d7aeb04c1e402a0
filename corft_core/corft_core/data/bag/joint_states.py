"""Decodes joint states several times faster where one follows another of the same publisher, as nearly all do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

JOINT_STATE = "sensor_msgs/msg/JointState"
_AFTER_STAMP = 12  # 4 bytes say how the message is serialised, 8 are the stamp
_COUNT = struct.Struct("<I")
_STAMP = struct.Struct("<iI")


class JointStateDecoder:
    """Wraps the decoder of any message: what it made of the last message serves as the mould of the next.

    Two messages whose bytes from the frame to the last joint's name, whose three counts and whose size are equal
    differ in their stamp and numbers only. Whatever differs otherwise, and what is damaged, goes to the wrapped
    decoder, which raises what it raises.
    """

    def __init__(self, decode: Callable[[memoryview], Any]) -> None:
        self._decode = decode
        self._mould: Any = None
        self._size = -1
        self._fixed: list[tuple[int, int, bytes]] = []
        self._arrays: list[tuple[int, int]] = []

    def __call__(self, data: memoryview) -> Any:
        """A message of its own; its arrays are views into ``data``."""
        if len(data) == self._size and all(data[first:end] == same for first, end, same in self._fixed):
            seconds, nanoseconds = _STAMP.unpack_from(data, 4)
            mould, header = self._mould, self._mould.header
            position, velocity, effort = (np.frombuffer(data, "<f8", count, place) for place, count in self._arrays)
            return type(mould)(type(header)(type(header.stamp)(seconds, nanoseconds), header.frame_id), mould.name,
                               position, velocity, effort)
        message = self._decode(data)
        self._learn(data, message)
        return message

    def _learn(self, data: memoryview, message: Any) -> None:
        """Take the layout of a message that was decoded well."""
        self._size = -1
        if bytes(data[:2]) != b"\x00\x01":
            return  # big-endian
        at = _text_end(data, _AFTER_STAMP)
        at = _aligned(at, 4) + _COUNT.size
        for _ in message.name:
            at = _text_end(data, at)
        first, self._fixed, self._arrays = _AFTER_STAMP, [(0, 4, bytes(data[:4]))], []
        for values in (message.position, message.velocity, message.effort):
            at = _aligned(at, 4) + _COUNT.size
            self._fixed.append((first, at, bytes(data[first:at])))
            start = _aligned(at, 8) if len(values) else at
            self._arrays.append((start, len(values)))
            first = at = start + 8 * len(values)
        self._mould, self._size = message, len(data)


def _aligned(place: int, size: int) -> int:
    """The next multiple of ``size``, counted from behind the first 4 bytes."""
    return -(-(place - 4) // size) * size + 4


def _text_end(data: memoryview, place: int) -> int:
    """The place behind the string at ``place``, which is aligned first."""
    place = _aligned(place, 4)
    return place + _COUNT.size + int(_COUNT.unpack_from(data, place)[0])
