"""The records of MCAP, as far as a recording needs them. Layout: https://mcap.dev/spec."""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

import lz4.frame

from corft_core.data.bag.storage import Connection, Row

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, DATA_END, PRIVATE = 0x0B, 0x0F, 0x80

RECORD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # a message record with its head; the message itself follows
CHUNK_HEAD = struct.Struct("<QQQII")  # times, uncompressed size, checksum, length of the compression's name
INDEX_HEAD = struct.Struct("<HI")
U16, U64 = struct.Struct("<H"), struct.Struct("<Q")
MAX_RECORD = 64 << 20  # schemas, channels and indexes are far smaller
_LATEST_NS = 1 << 63


class Broken(Exception):
    """A record that cannot be what it says."""


@dataclass
class Names:
    """Schemas and channels met in one part of a file; the first of an id counts."""

    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    channels: dict[int, Connection] = field(default_factory=dict)

    def learn(self, op: int, record: memoryview) -> None:
        """Take a SCHEMA or CHANNEL record. Raises Broken."""
        try:
            key = U16.unpack_from(record)[0]
            if op == SCHEMA:
                name, at = _text(record, 2)
                encoding, at = _text(record, at)
                self.schemas.setdefault(key, (name, encoding, _text(record, at)[0]))
            elif key not in self.channels:
                topic, at = _text(record, 4)
                schema = self.schemas.get(U16.unpack_from(record, 2)[0], ("", "", ""))
                self.channels[key] = Connection(topic, schema[0], _text(record, at)[0], schema[2],
                                                schema[1] in ("ros2idl", "omgidl"))
        except (struct.error, UnicodeDecodeError) as error:
            raise Broken("a schema or channel record is damaged") from error


@dataclass
class Summary:
    """What the end of a file says: names, places of chunks, and messages per channel."""

    names: Names = field(default_factory=Names)
    chunks: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Summary:
        """Read the records of a summary section. Raises Broken."""
        out, at = cls(), 0
        try:
            while at < len(data):
                op, length = RECORD.unpack_from(data, at)
                record = memoryview(data)[at + RECORD.size : at + RECORD.size + length]
                at += RECORD.size + length
                if op in (SCHEMA, CHANNEL):
                    out.names.learn(op, record)
                elif op == CHUNK_INDEX:
                    out.chunks.append(U64.unpack_from(record, 16)[0])
                elif op == STATISTICS:
                    size = struct.unpack_from("<I", record, 42)[0]
                    out.counts = dict(struct.iter_unpack("<HQ", record[46 : 46 + size]))
        except struct.error as error:
            raise Broken("a record of the summary is damaged") from error
        out.chunks.sort()
        return out


def read_summary(file: BinaryIO, size: int) -> tuple[Summary, bool, str]:
    """The summary of a file of ``size`` bytes, empty where there is no undamaged one; whether the file was closed; and
    why a summary that is there was not used, or ""."""
    footer_size = RECORD.size + 20
    file.seek(max(0, size - footer_size - len(MAGIC)))
    tail = file.read(footer_size + len(MAGIC))
    if len(tail) < footer_size or tail[-len(MAGIC) :] != MAGIC or RECORD.unpack_from(tail) != (FOOTER, 20):
        return Summary(), False, ""
    start, _, checksum = struct.unpack_from("<QQI", tail, RECORD.size)
    end = size - len(tail)
    if not 0 < start < end or end - start > 4 * MAX_RECORD:
        return Summary(), True, ""
    file.seek(start)
    data = file.read(end - start)
    try:
        if checksum and zlib.crc32(data + tail[: footer_size - 4]) != checksum:
            raise Broken("its checksum does not match")
        return Summary.parse(data), True, ""
    except Broken as error:
        return Summary(), True, f"the summary was not used: {error}"


def rows_of(data: memoryview, in_chunk: bool, names: Names | None = None) -> tuple[list[Row], bool]:
    """Messages among the records ``data``, in their order, up to a damaged record; False when there is one.

    ``names`` takes in the schemas and channels on the way. The messages are views into ``data``.
    """
    rows: list[Row] = []
    at, size = 0, len(data)
    while at + RECORD.size <= size:
        op, length = RECORD.unpack_from(data, at)
        end = at + RECORD.size + length
        if end > size:
            break
        if op == MESSAGE:
            if length < MESSAGE_HEAD.size - RECORD.size:
                break
            _, _, channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(data, at)
            if time_ns >= _LATEST_NS:
                break
            rows.append((time_ns, channel, data[at + MESSAGE_HEAD.size : end]))
        elif op in (SCHEMA, CHANNEL):
            if names is not None:
                try:
                    names.learn(op, data[at + RECORD.size : end])
                except Broken:
                    break
        elif in_chunk and op < PRIVATE:
            break
        at = end
    return rows, at == size


def decompressed(stored: bytes, compression: str, size: int, checksum: int, cut: bool) -> bytes:
    """The records of a chunk of ``size`` bytes, or their beginning where its end was ``cut`` off. Raises Broken."""
    try:
        if compression == "zstd":
            data = zstd.ZstdDecompressor().decompress(stored, max_length=size + 1)
        elif compression == "lz4":
            data = lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=size + 1)
        else:
            data = stored
    except (zstd.ZstdError, RuntimeError, EOFError) as error:
        raise Broken("it cannot be decompressed") from error
    if len(data) == size:
        if checksum and zlib.crc32(data) != checksum:
            raise Broken("its checksum does not match")
    elif not cut or len(data) > size:
        raise Broken("its size is not the announced one")
    return data


def _text(record: memoryview, at: int) -> tuple[str, int]:
    """The string at ``at`` and the place behind it."""
    size = struct.unpack_from("<I", record, at)[0]
    text = bytes(record[at + 4 : at + 4 + size])
    if len(text) != size:
        raise struct.error("a string longer than its record")
    return text.decode(), at + 4 + size
