"""Reading mp4 files by frame index, and which encoders write them. PyAV only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError

Frames = NDArray[np.uint8]

# Every frame is a key frame. With LeRobot's default (SVT-AV1, preset 12, GOP 2) slow motion is skipped in every second
# frame: those pictures are copies of the one before, 0.1 s late for a policy. Slower presets of x264 reach the same
# PSNR at this crf, 20 % smaller and three times as slow to write and twice as slow to read. Intra-only AV1 costs ten
# times as much. LeRobot reads both. A test holds the fidelity for both.
CODECS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "crf": "14", "g": "1", "bf": "0"},
    "libsvtav1": {"preset": "12", "crf": "18", "g": "1", "svtav1-params": "lp=1"},
}


class VideoError(CorftError):
    """A video that cannot be written or read."""


@cache
def default_codec() -> str:
    """The first codec that this PyAV was built with: H.264, else AV1."""
    import av

    for name in CODECS:
        try:
            av.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        return name
    raise VideoError(f"this PyAV has none of the encoders {', '.join(CODECS)}; pip install a PyAV wheel")


@dataclass(frozen=True)
class VideoPiece:
    """An episode's frames inside a video file."""

    path: Path
    first_frame: int
    frames: int


def decode_video(path: Path) -> Iterator[Frames]:
    """All frames of a file in order, uint8 (H, W, 3) rgb. Raises VideoError when it cannot be read."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # callers decode cameras in parallel
            for picture in container.decode(stream):
                yield np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"video {path} cannot be read: {error}. Convert the bag again.") from error


def decode_frame(path: Path, frame_index: int, fps: int) -> Frames:
    """One frame by index, by seeking to its key frame. Raises VideoError when it is not there."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            target = round(frame_index / fps / stream.time_base)
            container.seek(target, stream=stream, backward=True)
            for picture in container.decode(stream):
                if picture.pts is not None and picture.pts >= target - 0.5 / fps / stream.time_base:
                    if abs(float(picture.pts * stream.time_base) - frame_index / fps) > 1e-4:
                        break
                    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"video {path} cannot be read: {error}") from error
    raise VideoError(f"video {path} has no frame at {frame_index / fps:.4f} s")


def count_frames(path: Path) -> int:
    """Number of packets in the file's video stream, without decoding."""
    import av

    try:
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"video {path} cannot be read: {error}") from error


def codec_name(path: Path) -> str:
    """Codec of the file's video stream as LeRobot calls it: h264, av1, …"""
    import av

    try:
        with av.open(str(path)) as container:
            return str(container.streams.video[0].codec_context.codec.canonical_name)
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"video {path} cannot be read: {error}") from error
