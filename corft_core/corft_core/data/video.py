"""mp4 files of many episodes: one encoder thread a camera, and decoding by frame index. PyAV only."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from corft_core.data.feature_stats import ImageHistogram
from corft_core.errors import CorftError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

# Every frame is a key frame. With LeRobot's default (SVT-AV1, preset 12, GOP 2) slow motion is skipped in every second
# frame: those pictures are copies of the one before, 0.1 s late for a policy. Intra-only H.264 costs a fifth of
# intra-only AV1's time at the same fidelity and size; LeRobot reads both. A test holds the fidelity for both.
CODECS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "14", "g": "1", "bf": "0"},
    "libsvtav1": {"preset": "12", "crf": "18", "g": "1"},
}
CODEC_NAMES = {"libsvtav1": "av1", "libx264": "h264"}


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
class VideoSlice:
    """Where an episode's frames lie: file number and the first frame in it."""

    file: int
    first_frame: int
    frames: int


class VideoWriter:
    """Encodes episodes one after the other in its own thread.

    ``submit`` blocks while two episodes wait, which bounds memory. Files roll over between episodes once they reach
    ``file_bytes``. Errors of the thread are raised by the next ``submit`` or by ``close``.
    """

    def __init__(self, path_of: PathOf, size: tuple[int, int], fps: int, codec: str, file_bytes: int) -> None:
        self.slices: list[VideoSlice] = []
        self.histograms: list[ImageHistogram] = []
        self._path_of, self._size, self._fps, self._codec, self._file_bytes = path_of, size, fps, codec, file_bytes
        self._queue: queue.Queue[Frames | None] = queue.Queue(maxsize=2)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="video-encoder", daemon=True)
        self._thread.start()

    def submit(self, frames: Frames) -> None:
        """Queue one episode's frames uint8 (T, H, W, 3)."""
        self._raise()
        self._queue.put(frames)

    def close(self) -> None:
        """Finish all files and stop the thread."""
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def abort(self) -> None:
        """Stop the thread without raising; the files are worthless."""
        self._error = self._error or VideoError("writing was given up")
        self._queue.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        file: _Mp4File | None = None
        number = 0
        while (frames := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that submit never blocks on a failed thread
            try:
                if file is not None and file.size_bytes >= self._file_bytes:
                    file.close()
                    file, number = None, number + 1
                if file is None:
                    file = _Mp4File(self._path_of(number), self._size, self._fps, self._codec)
                self.slices.append(VideoSlice(number, file.frames, len(frames)))
                file.write(frames)
                histogram = ImageHistogram()
                histogram.add(frames)
                self.histograms.append(histogram)
            except BaseException as error:  # handed to the caller's thread
                self._error = error
        try:
            if file is not None:
                file.close()
        except BaseException as error:
            self._error = self._error or error


class PathOf:
    """File number → path, by a format of chunk and file index with 1000 files a chunk folder."""

    def __init__(self, root: Path, template: str, **names: str) -> None:
        self._root, self._template, self._names = root, template, names

    def __call__(self, number: int) -> Path:
        chunk, file = divmod(number, 1000)
        return self._root / self._template.format(chunk_index=chunk, file_index=file, **self._names)


class _Mp4File:
    def __init__(self, path: Path, size: tuple[int, int], fps: int, codec: str) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 has no other way to keep its banner off stderr
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self.size_bytes = 0
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = cast("VideoStream", self._container.add_stream(codec, rate=fps, options=CODECS[codec]))
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            self._stream.codec_context.thread_count = 1

    def write(self, frames: Frames) -> None:
        import av

        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = self.frames
            self._mux(picture)
            self.frames += 1

    def _mux(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self.size_bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        try:
            self._mux(None)
        finally:
            self._container.close()


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
