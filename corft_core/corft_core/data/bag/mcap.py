"""Reads MCAP files record by record, so that a file without an index, or a damaged one, is read like any other.

Opening walks over the records of the data section without decompressing chunks: what a chunk holds is told by the
message indexes behind it. The summary at the file's end serves for topics without messages, for the announced counts
and for finding the next chunk after a damaged place.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corft_core.data.bag.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    DATA_END,
    FOOTER,
    INDEX_HEAD,
    MAGIC,
    MAX_RECORD,
    MESSAGE,
    MESSAGE_HEAD,
    MESSAGE_INDEX,
    PRIVATE,
    RECORD,
    SCHEMA,
    U64,
    Broken,
    Names,
    decompressed,
    read_summary,
    rows_of,
)
from corft_core.data.bag.storage import BagError, Block, Damage, Note, Row, in_order

REPAIR = "Repair a copy with: mcap recover IN.mcap -o OUT.mcap"
_WINDOW = 73  # the longest head: a record's, a chunk's, and 24 letters of compression
_MAX_CHUNK = 256 << 20  # is read at once; recorders make chunks of about 1 MiB
_MAX_IDLE = 200_000  # records in a row that belong to no message: more are junk
_RUN_BYTES = 1 << 20


@dataclass
class McapBlock(Block):
    """A chunk, or a run of records outside of chunks. ``size`` is in bytes, as stored; ``cut``: the file ends in it."""

    size: int = 0
    compression: str = ""
    chunk: bool = False
    uncompressed: int = 0
    checksum: int = 0
    cut: bool = False


class McapStorage:
    """One MCAP file. Raises BagError when nothing of it can be read."""

    distro = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[McapBlock] = []
        self._names = Names()
        self._damage = Damage(path)
        self._ending = ""
        self._complete = False
        self._unnamed = 0
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, 2)
            self._summary, self._closed, self._odd = read_summary(self._file, self._size)
            self._walk()
        except BaseException:
            self._file.close()
            raise
        self.announced = self._summary.counts
        self.connections = self._summary.names.channels | self._names.channels
        self._damage.whole = len(self.blocks) + len(self._damage.places)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def notes(self) -> list[Note]:
        """How the file ends when not as it should, and what is damaged."""
        notes = [Note(f"{self.path.name}: {self._ending}. {REPAIR}", not self._complete)] if self._ending else []
        if self._odd:
            notes.append(Note(f"{self.path.name}: {self._odd}"))
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
                if len(head) < RECORD.size:
                    self._ending = f"cut off at byte {place}: it has no end mark, all before that was read"
                    break
                op, length = RECORD.unpack_from(head)
                end = place + RECORD.size + length
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
        known = self._summary.names.channels.keys() | self._names.channels.keys()
        for block in self.blocks:
            for key in block.counts.keys() - known:
                self._unnamed += block.counts.pop(key)
                del block.times_ns[key]
        self.blocks = [block for block in self.blocks if block.counts]
        if self._ending and not self.blocks:
            raise BagError(f"{self.path} holds no complete message: {self._ending}. {REPAIR}")

    def _after(self, place: int, head: bytes) -> int | None:
        """Where to go on behind the damaged record at ``place``: at the next chunk of the index, else behind it."""
        if self._summary.chunks:
            return next((known for known in self._summary.chunks if known > place), None)
        end = place + RECORD.size + RECORD.unpack_from(head)[1]
        following = self._read(end, RECORD.size) if end < self._size else b""
        if len(following) < RECORD.size:
            return None
        op, length = RECORD.unpack(following)
        return end if 0 < op <= DATA_END and end + length < self._size else None

    def _record(self, place: int, length: int) -> memoryview:
        """The content of the record at ``place``."""
        if length > MAX_RECORD:
            raise Broken(f"a record of {length} bytes")
        return memoryview(self._read(place + RECORD.size, length))

    def _add_message(self, run: McapBlock | None, place: int, head: bytes, end: int) -> McapBlock:
        """Add a message outside of chunks to the run of records that it belongs to."""
        if end - place < MESSAGE_HEAD.size:
            raise Broken("a message record without a head")
        _, _, channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(head)
        if run is None or end - run.place > _RUN_BYTES:
            run = McapBlock(place)
            self.blocks.append(run)
        run.add(channel, 1, time_ns, time_ns)
        run.size = end - run.place
        return run

    def _open_chunk(self, place: int, length: int, head: bytes) -> McapBlock:
        if len(head) < _WINDOW and place + RECORD.size + length <= self._size:
            raise Broken("a chunk without content")
        block = McapBlock(place, chunk=True)
        try:
            _, _, block.uncompressed, block.checksum, letters = CHUNK_HEAD.unpack_from(head, RECORD.size)
            at = RECORD.size + CHUNK_HEAD.size
            block.compression = head[at : at + letters].decode()
            block.size = U64.unpack_from(head, at + letters)[0]
        except (struct.error, UnicodeDecodeError):
            if place + _WINDOW < self._size:
                raise Broken("the head of a chunk is damaged") from None
            block.cut = True
            return block
        if length != CHUNK_HEAD.size + letters + U64.size + block.size:
            raise Broken("a chunk whose sizes contradict each other")
        if max(block.size, block.uncompressed) > _MAX_CHUNK:
            raise Broken(f"a chunk of {max(block.size, block.uncompressed)} bytes")
        if block.compression not in ("", "lz4", "zstd"):
            raise Broken(f"unknown chunk compression {block.compression!r}")
        block.cut = place + RECORD.size + length > self._size
        return block

    def _add_index(self, chunk: McapBlock | None, place: int, length: int) -> None:
        """Take the message index of one channel for the chunk before it."""
        record = self._record(place, length)
        size = length - INDEX_HEAD.size
        if size < 0 or size % 16 or size != INDEX_HEAD.unpack_from(record)[1]:
            raise Broken("a message index is damaged")
        if chunk is not None and size:
            times = np.frombuffer(record, np.dtype("<u8"), offset=INDEX_HEAD.size)[::2]
            chunk.add(INDEX_HEAD.unpack_from(record)[0], len(times), int(times.min()), int(times.max()))

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

    def _rows(self, block: McapBlock, names: Names | None = None) -> tuple[list[Row], str]:
        """All messages of a block in the file's order, and why some or all are missing, or ""."""
        try:
            rows, whole = rows_of(memoryview(self._data(block)), block.chunk, names)
        except Broken as error:
            return [], str(error)
        return rows, "" if whole else "a record in it is damaged"

    def _data(self, block: McapBlock) -> bytes:
        """The records of a block."""
        if not block.chunk:
            return self._read(block.place, block.size)
        place = block.place + RECORD.size + CHUNK_HEAD.size + len(block.compression) + U64.size
        stored = self._read(place, min(block.size, self._size - place)) if place < self._size else b""
        return decompressed(stored, block.compression, block.uncompressed, block.checksum, block.cut)
