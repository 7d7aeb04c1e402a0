"""Reads MCAP files record by record, so that a file without an index, or a damaged one, is read like any other.

Opening walks over the records of the data section without decompressing chunks: what a chunk holds is told by the
message indexes behind it. The summary at the file's end serves for topics without messages, for the announced counts
and for finding the next chunk after a damaged place. Layout of the records: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np

from corft_core.data.bag.storage import BagError, Block, Connection, Damage, Note, Row, in_order

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, DATA_END, PRIVATE = 0x0B, 0x0F, 0x80
REPAIR = "Repair a copy with: mcap recover IN.mcap -o OUT.mcap"

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<BQHIQQ")  # a message record with its head; the message itself follows
_CHUNK = struct.Struct("<QQQII")  # times, uncompressed size, checksum, length of the compression's name
_INDEX = struct.Struct("<HI")
_U16, _U64 = struct.Struct("<H"), struct.Struct("<Q")
_WINDOW = 73  # the longest head: a record's, a chunk's, and 24 letters of compression
_MAX_RECORD = 64 << 20  # schemas, channels and indexes are far smaller
_MAX_CHUNK = 256 << 20  # is read at once; recorders make chunks of about 1 MiB
_MAX_IDLE = 200_000  # records in a row that belong to no message: more are junk
_RUN_BYTES = 1 << 20
_LATEST_NS = 1 << 63


class Broken(Exception):
    """A record that cannot be what it says."""


@dataclass
class McapBlock(Block):
    """A chunk, or a run of records outside of chunks. ``size`` is in bytes, as stored; ``cut``: the file ends in it."""

    size: int = 0
    compression: str = ""
    chunk: bool = False
    uncompressed: int = 0
    checksum: int = 0
    cut: bool = False


@dataclass
class _Names:
    """Schemas and channels met in one part of a file; the first of an id counts."""

    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    channels: dict[int, Connection] = field(default_factory=dict)

    def learn(self, op: int, record: memoryview) -> None:
        """Take a SCHEMA or CHANNEL record. Raises Broken."""
        try:
            key = _U16.unpack_from(record)[0]
            if op == SCHEMA:
                name, at = _text(record, 2)
                encoding, at = _text(record, at)
                self.schemas.setdefault(key, (name, encoding, _text(record, at)[0]))
            elif key not in self.channels:
                topic, at = _text(record, 4)
                schema = self.schemas.get(_U16.unpack_from(record, 2)[0], ("", "", ""))
                self.channels[key] = Connection(topic, schema[0], _text(record, at)[0], schema[2],
                                                schema[1] in ("ros2idl", "omgidl"))
        except (struct.error, UnicodeDecodeError) as error:
            raise Broken("a schema or channel record is damaged") from error


class McapStorage:
    """One MCAP file. Raises BagError when nothing of it can be read."""

    distro = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[McapBlock] = []
        self.announced: dict[int, int] = {}
        self._names, self._summary_names = _Names(), _Names()
        self._chunk_places: list[int] = []
        self._damage = Damage(path)
        self._ending = ""
        self._closed = False
        self._complete = False
        self._unnamed = 0
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, 2)
            self._read_summary()
            self._walk()
        except BaseException:
            self._file.close()
            raise
        self.connections = self._summary_names.channels | self._names.channels
        self._damage.whole = len(self.blocks) + len(self._damage.places)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def notes(self) -> list[Note]:
        """How the file ends when not as it should, and what is damaged."""
        notes = [Note(f"{self.path.name}: {self._ending}. {REPAIR}", not self._complete)] if self._ending else []
        if self._unnamed:
            notes.append(Note(f"{self.path.name}: {self._unnamed} messages belong to no known topic and are left out",
                              True))
        return notes + self._damage.notes("blocks", REPAIR)

    def load(self, block: McapBlock, wanted: Collection[int]) -> list[Row]:
        """Messages of ``block`` on the ``wanted`` channels, by time; views into the block's bytes."""
        rows, why = self._rows(block)
        if why and not block.cut:
            self._damage.add(block.place, why, max(0, sum(block.counts.values()) - len(rows)))
        return in_order([row for row in rows if row[1] in wanted])

    def _read(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)

    # the walk over the data section

    def _walk(self) -> None:
        place = len(MAGIC)
        run: McapBlock | None = None
        chunk: McapBlock | None = None
        idle = 0
        while True:
            head = self._read(place, _WINDOW)
            try:
                if len(head) < _RECORD.size:
                    self._ending = f"cut off at byte {place}: it has no end mark, all before that was read"
                    break
                op, length = _RECORD.unpack_from(head)
                end = place + _RECORD.size + length
                if op == MESSAGE and chunk is None and end <= self._size:
                    run, idle, place = self._add_message(run, place, head, end), 0, end
                    continue
                idle = 0 if op == CHUNK else idle + 1
                if idle > _MAX_IDLE:
                    self._ending = f"without messages from byte {place} on"
                    break
                if op in (DATA_END, FOOTER) and length in (4, 20):
                    self._complete = True
                    if not self._closed:
                        self._ending = "cut off in its summary: all messages were read"
                    break
                if op != MESSAGE_INDEX and chunk is not None:
                    self._close_chunk(chunk)
                    chunk = None
                    continue
                if op == CHUNK:
                    run, chunk = None, self._open_chunk(place, length, head)
                    self.blocks.append(chunk)
                elif not 0 < op < DATA_END and op < PRIVATE:
                    raise Broken(f"unknown record {op}")
                elif end > self._size:
                    if self._closed:
                        raise Broken("a record longer than the file")
                    self._ending = f"cut off at byte {place}: all before that was read"
                    break
                elif op in (SCHEMA, CHANNEL):
                    self._names.learn(op, self._record(place, length))
                elif op == MESSAGE_INDEX:
                    self._add_index(chunk, place, length)
                place = end
                if chunk is not None and chunk.cut:
                    self._ending = f"cut off in the chunk at byte {chunk.place}: its first messages were read too"
                    break
            except Broken as error:
                if chunk is not None:
                    chunk.counts.clear()  # its indexes may be incomplete
                    self._close_chunk(chunk)
                run = chunk = None
                self._damage.add(place, str(error), None)
                following = self._after(place, head)
                if following is None:
                    self._ending = f"unreadable from byte {place} on ({error}): all before that was read"
                    break
                place = following
        if chunk is not None:
            self._close_chunk(chunk)
        known = self._summary_names.channels.keys() | self._names.channels.keys()
        for block in self.blocks:
            for key in block.counts.keys() - known:
                self._unnamed += block.counts.pop(key)
                del block.times_ns[key]
        self.blocks = [block for block in self.blocks if block.counts]
        if self._ending and not self.blocks:
            raise BagError(f"{self.path} holds no complete message: {self._ending}. {REPAIR}")

    def _after(self, place: int, head: bytes) -> int | None:
        """Where to go on behind the damaged record at ``place``: at the next chunk of the index, else behind it."""
        if self._chunk_places:
            return next((known for known in self._chunk_places if known > place), None)
        end = place + _RECORD.size + _RECORD.unpack_from(head)[1]
        following = self._read(end, _RECORD.size) if end < self._size else b""
        if len(following) < _RECORD.size:
            return None
        op, length = _RECORD.unpack(following)
        return end if 0 < op <= DATA_END and end + length < self._size else None

    def _record(self, place: int, length: int) -> memoryview:
        """The content of the record at ``place``."""
        if length > _MAX_RECORD:
            raise Broken(f"a record of {length} bytes")
        return memoryview(self._read(place + _RECORD.size, length))

    def _add_message(self, run: McapBlock | None, place: int, head: bytes, end: int) -> McapBlock:
        """Add a message outside of chunks to the run of records that it belongs to."""
        if end - place < _MESSAGE.size:
            raise Broken("a message record without a head")
        _, _, channel, _, time_ns, _ = _MESSAGE.unpack_from(head)
        if run is None or end - run.place > _RUN_BYTES:
            run = McapBlock(place)
            self.blocks.append(run)
        run.add(channel, 1, time_ns, time_ns)
        run.size = end - run.place
        return run

    def _open_chunk(self, place: int, length: int, head: bytes) -> McapBlock:
        if len(head) < _WINDOW and place + _RECORD.size + length <= self._size:
            raise Broken("a chunk without content")
        block = McapBlock(place, chunk=True)
        try:
            _, _, block.uncompressed, block.checksum, letters = _CHUNK.unpack_from(head, _RECORD.size)
            at = _RECORD.size + _CHUNK.size
            block.compression = head[at : at + letters].decode()
            block.size = _U64.unpack_from(head, at + letters)[0]
        except (struct.error, UnicodeDecodeError):
            if place + _WINDOW < self._size:
                raise Broken("the head of a chunk is damaged") from None
            block.cut = True
            return block
        if length != _CHUNK.size + letters + _U64.size + block.size:
            raise Broken("a chunk whose sizes contradict each other")
        if max(block.size, block.uncompressed) > _MAX_CHUNK:
            raise Broken(f"a chunk of {max(block.size, block.uncompressed)} bytes")
        if block.compression not in ("", "lz4", "zstd"):
            raise Broken(f"unknown chunk compression {block.compression!r}")
        block.cut = place + _RECORD.size + length > self._size
        return block

    def _add_index(self, chunk: McapBlock | None, place: int, length: int) -> None:
        """Take the message index of one channel for the chunk before it."""
        record = self._record(place, length)
        if length < _INDEX.size or length != _INDEX.size + _INDEX.unpack_from(record)[1] or (length - 6) % 16:
            raise Broken("a message index is damaged")
        if chunk is not None and length > _INDEX.size:
            times = np.frombuffer(record, np.dtype("<u8"), offset=_INDEX.size)[::2]
            chunk.add(_INDEX.unpack_from(record)[0], len(times), int(times.min()), int(times.max()))

    def _close_chunk(self, chunk: McapBlock) -> None:
        """Once its indexes are read: look into the chunk where they are missing or name an unknown channel."""
        if chunk.counts and not chunk.cut and chunk.counts.keys() <= self._names.channels.keys():
            return
        rows, why = self._rows(chunk, self._names)
        if not chunk.counts:
            for time_ns, channel, _ in rows:
                chunk.add(channel, 1, time_ns, time_ns)
        if why and not chunk.cut:
            self._damage.add(chunk.place, why, max(0, sum(chunk.counts.values()) - len(rows)))

    # the content of a block

    def _rows(self, block: McapBlock, names: _Names | None = None) -> tuple[list[Row], str]:
        """All messages of a block in the file's order, and why some or all are missing, or ""."""
        try:
            data = memoryview(self._data(block))
        except Broken as error:
            return [], str(error)
        rows: list[Row] = []
        at, size = 0, len(data)
        while at + _RECORD.size <= size:
            op, length = _RECORD.unpack_from(data, at)
            end = at + _RECORD.size + length
            if end > size:
                break
            if op == MESSAGE:
                if length < _MESSAGE.size - _RECORD.size:
                    break
                _, _, channel, _, time_ns, _ = _MESSAGE.unpack_from(data, at)
                if time_ns >= _LATEST_NS:
                    break
                rows.append((time_ns, channel, data[at + _MESSAGE.size : end]))
            elif op in (SCHEMA, CHANNEL):
                if names is not None:
                    try:
                        names.learn(op, data[at + _RECORD.size : end])
                    except Broken:
                        break
            elif block.chunk and op < PRIVATE:
                break
            at = end
        return rows, "" if at == size else "a record in it is damaged"

    def _data(self, block: McapBlock) -> bytes:
        """The records of a block, decompressed and checked."""
        if not block.chunk:
            return self._read(block.place, block.size)
        place = block.place + _RECORD.size + _CHUNK.size + len(block.compression) + _U64.size
        stored = self._read(place, min(block.size, self._size - place)) if place < self._size else b""
        try:
            if block.compression == "zstd":
                data = zstd.ZstdDecompressor().decompress(stored, max_length=block.uncompressed + 1)
            elif block.compression == "lz4":
                data = lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=block.uncompressed + 1)
            else:
                data = stored
        except (zstd.ZstdError, RuntimeError, EOFError) as error:
            raise Broken("it cannot be decompressed") from error
        if len(data) == block.uncompressed:
            if block.checksum and zlib.crc32(data) != block.checksum:
                raise Broken("its checksum does not match")
        elif not block.cut or len(data) > block.uncompressed:
            raise Broken("its size is not the announced one")
        return data

    # the summary at the end

    def _read_summary(self) -> None:
        """Channels, chunk places and counts from the summary, where there is an undamaged one."""
        if self._read(0, len(MAGIC)) != MAGIC:
            raise BagError(f"{self.path} does not begin like an MCAP file")
        footer_size = _RECORD.size + 20
        tail = self._read(max(0, self._size - footer_size - len(MAGIC)), footer_size + len(MAGIC))
        if len(tail) < footer_size or tail[-len(MAGIC) :] != MAGIC or _RECORD.unpack_from(tail) != (FOOTER, 20):
            return
        self._closed = True
        start, _, checksum = struct.unpack_from("<QQI", tail, _RECORD.size)
        end = self._size - len(tail)
        if not 0 < start < end or end - start > 4 * _MAX_RECORD:
            return
        data = self._read(start, end - start)
        if checksum and zlib.crc32(data + tail[: footer_size - 4]) != checksum:
            self._damage.add(start, "the summary's checksum does not match", None)
            return
        names, places, counts = _Names(), [], {}
        try:
            at = 0
            while at < len(data):
                op, length = _RECORD.unpack_from(data, at)
                record = memoryview(data)[at + _RECORD.size : at + _RECORD.size + length]
                at += _RECORD.size + length
                if op in (SCHEMA, CHANNEL):
                    names.learn(op, record)
                elif op == CHUNK_INDEX:
                    places.append(_U64.unpack_from(record, 16)[0])
                elif op == STATISTICS:
                    size = struct.unpack_from("<I", record, 42)[0]
                    counts = dict(struct.iter_unpack("<HQ", record[46 : 46 + size]))
        except (struct.error, Broken):
            self._damage.add(start, "the summary is damaged", None)
            return
        self._summary_names, self._chunk_places, self.announced = names, sorted(places), counts


def _text(record: memoryview, at: int) -> tuple[str, int]:
    """The string at ``at`` and the place behind it."""
    size = struct.unpack_from("<I", record, at)[0]
    text = bytes(record[at + 4 : at + 4 + size])
    if len(text) != size:
        raise struct.error("a string longer than its record")
    return text.decode(), at + 4 + size


def begins_like(head: Any) -> bool:
    """True for the first bytes of an MCAP file."""
    return bytes(head[: len(MAGIC)]) == MAGIC
