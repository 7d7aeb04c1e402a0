"""Image messages read from their serialised form, without copying the pixels. No ROS in here.

A 640x480 rgb8 image costs rclpy a millisecond to deserialise; a camera_node would spend a third of its time on that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from corft_core.contract import IMAGE_TYPES
from corft_core.data.images import ImageDecodeError

_UINT = {0: struct.Struct(">I"), 1: struct.Struct("<I")}


@dataclass(frozen=True)
class ImageView:
    """sensor_msgs/Image; ``data`` is a view into the message."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedImageView:
    """sensor_msgs/CompressedImage; ``data`` is a view into the message."""

    stamp_ns: int
    frame_id: str
    format: str
    data: memoryview


class _Reader:
    """Fields of a CDR message in order."""

    def __init__(self, message: bytes) -> None:
        if len(message) < 4 or message[0] != 0 or message[1] > 1:
            raise ImageDecodeError("image message is not plain CDR")
        self._uint = _UINT[message[1]]
        self._view = memoryview(message)[4:]
        self._at = 0

    def uint(self) -> int:
        start = -(-self._at // 4) * 4
        self._at = start + 4
        value: int = self._uint.unpack_from(self._view, start)[0]
        return value

    def byte(self) -> int:
        self._at += 1
        return self._view[self._at - 1]

    def data(self) -> memoryview:
        size = self.uint()
        if size > len(self._view) - self._at:
            raise ImageDecodeError(f"image message is cut off: {size} bytes announced, "
                                   f"{len(self._view) - self._at} there")
        self._at += size
        return self._view[self._at - size : self._at]

    def text(self) -> str:
        return bytes(self.data()).rstrip(b"\0").decode("utf-8", "replace")


def read_image(message: bytes, type_name: str) -> ImageView | CompressedImageView:
    """A view of a serialised message of one of the contract's image types.

    Raises ImageDecodeError when the message is damaged.
    """
    assert type_name in IMAGE_TYPES
    try:
        reader = _Reader(message)
        seconds = reader.uint()
        # The seconds are signed.
        stamp_ns = (seconds - (seconds >> 31 << 32)) * 1_000_000_000 + reader.uint()
        frame_id = reader.text()
        if type_name.endswith("CompressedImage"):
            return CompressedImageView(stamp_ns, frame_id, reader.text(), reader.data())
        return ImageView(stamp_ns, frame_id, reader.uint(), reader.uint(), reader.text(), reader.byte(), reader.uint(),
                         reader.data())
    except (struct.error, IndexError) as error:
        raise ImageDecodeError(f"image message of {len(message)} bytes is cut off") from error
