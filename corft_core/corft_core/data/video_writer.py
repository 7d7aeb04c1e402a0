"""Writing mp4 files: one encoder thread a camera, one file an episode, joined later without encoding again.

An encoder starts anew with every episode, so its bytes depend on the episode alone: not on what was converted before,
nor on how many processes shared the work.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from corft_core.data.feature_stats import ImageHistogram
from corft_core.data.video import CODECS, Frames, VideoError, VideoPiece
from corft_core.data.yuv import Yuv420

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_WAITING_FRAMES = 8  # a frame of 640x480 is 0.9 MB


class EpisodeEncoder:
    """Encodes one camera, episode after episode, in its own thread: ``start``, ``put`` …, then ``finish`` or ``drop``.

    ``put`` blocks while a few frames wait, which bounds memory. Errors of the thread are raised by the next call.
    """

    def __init__(self, size: tuple[int, int], fps: int, codec: str) -> None:
        self._size, self._fps, self._codec = size, fps, codec
        self._orders: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=_WAITING_FRAMES)
        self._file: _EpisodeFile | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="video-encoder", daemon=True)
        self._thread.start()

    def start(self, path: Path) -> None:
        """Begin an episode in a new file."""
        def order() -> None:
            self._file = _EpisodeFile(path, self._size, self._fps, self._codec)
        self._give(order)

    def put(self, frame: Frames) -> None:
        """Append a frame uint8 (H, W, 3). It must not be changed afterwards."""
        self._give(lambda: self._open().write(frame))

    def finish(self) -> tuple[int, ImageHistogram]:
        """End the episode; waits for its file. Returns its number of frames and their histogram."""
        file: list[_EpisodeFile] = []

        def order() -> None:
            file.append(self._open())
            self._file = None
            file[0].close()
        self._give(order)
        self._wait()
        return file[0].frames, file[0].histogram

    def drop(self) -> None:
        """Forget the episode and remove its file."""
        self._give(self._drop)
        self._wait()

    def close(self) -> None:
        """Stop the thread; an episode that was not finished is dropped. Never raises."""
        self._orders.put(None)
        self._thread.join()

    def _give(self, order: Callable[[], None]) -> None:
        self._raise()
        self._orders.put(order)

    def _wait(self) -> None:
        done = threading.Event()
        self._orders.put(done.set)
        done.wait()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _open(self) -> _EpisodeFile:
        assert self._file is not None, "start an episode first"
        return self._file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            finally:
                file.path.unlink(missing_ok=True)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                if self._error is None or isinstance(getattr(order, "__self__", None), threading.Event):
                    order()
            except BaseException as error:  # handed to the caller's thread
                self._error = error
        try:
            self._drop()
        except Exception as error:
            self._error = self._error or error


class _EpisodeFile:
    def __init__(self, path: Path, size: tuple[int, int], fps: int, codec: str) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 has no other way to keep its banner off stderr
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self.histogram = path, 0, ImageHistogram()
        self._container = av.open(str(path), "w")
        self._stream = cast("VideoStream", self._container.add_stream(codec, rate=fps, options=CODECS[codec]))
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._yuv = Yuv420(*size)
        if codec == "libx264":
            self._stream.codec_context.thread_count = 1  # more would change the bytes with the number of cores

    def write(self, frame: Frames) -> None:
        picture = self._yuv(frame)
        picture.pts = self.frames
        self._mux(picture)
        self.histogram.add(frame[None])
        self.frames += 1

    def _mux(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def close(self) -> None:
        try:
            self._mux(None)
        finally:
            self._container.close()


@dataclass(frozen=True)
class VideoSlice:
    """Where an episode's frames lie: file number and the first frame in it."""

    file: int
    first_frame: int
    frames: int


class VideoFiles:
    """One camera's files of many episodes. Packets are copied; a file rolls over between episodes at ``file_bytes``.

    A piece with other codec parameters (extradata) starts a new file as well.
    """

    def __init__(self, path_of: Callable[[int], Path], fps: int, file_bytes: int) -> None:
        self.slices: list[VideoSlice] = []
        self.codec = ""
        self._path_of, self._fps, self._file_bytes = path_of, fps, file_bytes
        self._number = -1
        self._file: _JoinedFile | None = None

    def append(self, piece: VideoPiece) -> None:
        """Copy an episode's packets.

        Raises VideoError when frames are missing, when it begins between key frames, and for another codec.
        """
        import av

        try:
            container = av.open(str(piece.path))
        except av.error.FFmpegError as error:
            raise VideoError(f"video {piece.path} cannot be read: {error}. Convert the bag again.") from error
        with container:
            if not container.streams.video:
                raise VideoError(f"{piece.path} holds no video")
            stream = container.streams.video[0]
            codec = stream.codec_context.codec.canonical_name
            if self.codec not in ("", codec):
                raise VideoError(f"video {piece.path} is {codec}, the episodes before it are {self.codec}; "
                                 "they cannot be joined without encoding again")
            self.codec = codec
            if self._file is not None and (self._file.size_bytes >= self._file_bytes
                                           or self._file.parameters != stream.codec_context.extradata):
                self.close()
            if self._file is None:
                self._number += 1
                self._file = _JoinedFile(self._path_of(self._number), stream, self._fps)
            first = self._file.frames
            self._file.copy(piece, container, stream)
        self.slices.append(VideoSlice(self._number, first, piece.frames))

    def close(self) -> None:
        """Finish the file that is being written."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class _JoinedFile:
    def __init__(self, path: Path, template: VideoStream, fps: int) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self.size_bytes = 0
        self.parameters = template.codec_context.extradata
        self._step = Fraction(1, fps)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream_from_template(template, opaque=True)
        self._stream.time_base = self._step

    def copy(self, piece: VideoPiece, container: InputContainer, stream: VideoStream) -> None:
        """Append the piece's packets with stamps that follow on."""
        assert stream.time_base is not None
        if piece.first_frame:
            container.seek(round(piece.first_frame * self._step / stream.time_base), stream=stream, backward=True)
        copied, tick = 0, stream.time_base / self._step
        for packet in container.demux(stream):
            if packet.pts is None or not packet.size or copied == piece.frames:
                break
            shown, decoded = (round((packet.pts if stamp is None else stamp) * tick.numerator / tick.denominator)
                              - piece.first_frame for stamp in (packet.pts, packet.dts))
            if not 0 <= shown < piece.frames:
                continue
            if copied == 0 and not packet.is_keyframe:
                raise VideoError(f"video {piece.path}: frame {piece.first_frame} is not a key frame, the episode "
                                 "cannot be copied without encoding again")
            packet.stream, packet.time_base = self._stream, self._step
            packet.pts, packet.dts, packet.duration = self.frames + shown, self.frames + decoded, 1
            self.size_bytes += packet.size
            self._container.mux(packet)
            copied += 1
        if copied != piece.frames:
            raise VideoError(f"video {piece.path} holds {copied} of the {piece.frames} frames from "
                             f"{piece.first_frame} on; the file is incomplete")
        self.frames += copied

    def close(self) -> None:
        self._container.close()
