"""Reads rosbag2's SQLite3 files, all versions of its tables; rows that a damaged file still gives are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corft_core.data.bag.storage import BagError, Block, Connection, Damage, Note, Row, in_order

MAGIC = b"SQLite format 3\0"
REPAIR = "Repair a copy with: sqlite3 IN.db3 .recover | sqlite3 OUT.db3"
# Freeing a block of 1 MiB gives its memory back to the system, and taking it anew costs as much as reading it.
_BLOCK_BYTES = 1 << 19
_CACHE_KIB = 256  # pages are read once; SQLite's 2 MiB only push the messages out of the processor's cache
_MAX_ID = 1 << 62


@dataclass
class SqliteBlock(Block):
    """The rows from id ``place`` to ``last``."""

    last: int = 0


class SqliteStorage:
    """One SQLite3 file, opened read-only and without touching its journal. Raises BagError when nothing is readable."""

    announced: dict[int, int] = {}  # noqa: RUF012 (a SQLite3 file announces nothing)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.distro = ""
        self._damage = Damage(path)
        self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        self._db.text_factory = lambda text: text.decode(errors="replace")
        self._size = path.stat().st_size
        try:
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(1 << 20, min(self._size, (1 << 31) - 1)))
            self._db.execute("PRAGMA writable_schema = ON")  # else a file that was cut off is refused altogether
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self.connections = self._read_connections()
            self.blocks = self._read_blocks()
        except (sqlite3.Error, UnicodeError, LookupError, OverflowError) as error:
            self._db.close()
            raise BagError(f"{path} cannot be read: {error}. {REPAIR}") from error
        except BaseException:
            self._db.close()
            raise
        self._damage.whole = len(self.blocks) + len(self._damage.places)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def notes(self) -> list[Note]:
        """What is damaged."""
        return self._damage.notes("stretches of rows", REPAIR)

    def load(self, block: SqliteBlock, wanted: Collection[int]) -> list[Row]:
        """Rows of ``block`` of the ``wanted`` topics, by time."""
        query = ("SELECT timestamp, topic_id, data FROM messages WHERE id BETWEEN ? AND ? "
                 f"AND topic_id IN ({','.join(str(key) for key in wanted)}) "
                 "AND typeof(timestamp) = 'integer' AND timestamp >= 0 AND typeof(data) = 'blob'")
        try:
            rows = self._db.execute(query, (block.place, block.last)).fetchall()
        except (sqlite3.Error, OverflowError):
            rows = []
            for key in range(block.place, block.last + 1):  # one by one around the damaged place
                try:
                    rows += self._db.execute(query, (key, key)).fetchall()
                except (sqlite3.Error, OverflowError) as error:
                    self._damage.add(key, str(error), 1)
        else:
            lost = sum(count for key, count in block.counts.items() if key in wanted) - len(rows)
            if lost:
                self._damage.add(block.place, "rows without time or content", lost)
        return in_order(rows)

    def _read_connections(self) -> dict[int, Connection]:
        definitions: dict[str, tuple[str, bool]] = {}
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise BagError(f"{self.path} is no recording: a rosbag2 SQLite3 file has the tables topics and messages, "
                           f"this one has {', '.join(sorted(map(str, tables))) or 'none'}")
        if "message_definitions" in tables:
            for row in self._table("message_definitions"):
                if row["encoding"] in ("ros2msg", "ros2idl"):
                    definitions[row["topic_type"]] = row["encoded_message_definition"], row["encoding"] == "ros2idl"
        if "schema" in tables:
            self.distro = next((str(row.get("ros_distro", "")) for row in self._table("schema")), "")
        return {row["id"]: Connection(str(row["name"]), str(row["type"]), str(row.get("serialization_format", "cdr")),
                                      *definitions.get(row["type"], ("", False)))
                for row in self._table("topics")}

    def _table(self, name: str) -> Iterator[dict[str, Any]]:
        cursor = self._db.execute(f"SELECT * FROM {name}")
        names = [column[0] for column in cursor.description]
        return (dict(zip(names, row, strict=True)) for row in cursor)

    def _read_blocks(self) -> list[SqliteBlock]:
        """Blocks of about half a MiB, from one pass over the table that doesn't touch the messages' content."""
        try:
            newest = self._db.execute("SELECT max(id) FROM messages").fetchone()[0] or 0
            rows = max(1, _BLOCK_BYTES * newest // self._size)
            query = ("SELECT id / ?, topic_id, count(*), min(timestamp), max(timestamp), min(id), max(id) "
                     "FROM messages GROUP BY 1, 2 ORDER BY 1")
            entries: Any = self._db.execute(query, (rows,)).fetchall()
        except sqlite3.Error as error:
            self._damage.add(0, str(error), None)
            entries = ((key // 16, topic, 1, time, time, key, key) for key, topic, time in self._salvaged())
        blocks: dict[int, SqliteBlock] = {}
        for number, topic, count, first, last, low, high in entries:
            if topic in self.connections and isinstance(first, int) and isinstance(last, int):
                block = blocks.setdefault(number, SqliteBlock(low))
                block.place, block.last = min(block.place, low), max(block.last, high)
                block.add(topic, count, first, last)
        if self._damage.places and not blocks:
            raise BagError(f"{self.path} holds no readable message: {self._damage.places[0][0]}. {REPAIR}")
        return list(blocks.values())

    def _salvaged(self) -> Iterator[tuple[int, int, int]]:
        """(id, topic, time) of the rows that can still be reached."""
        key = self._first_readable(0)
        while key is not None:
            before = key
            try:
                for row in self._db.execute("SELECT id, topic_id, timestamp FROM messages WHERE id >= ? ORDER BY id",
                                            (key,)):
                    key = row[0] + 1
                    yield row
                return
            except sqlite3.Error:
                key = self._first_readable(max(key, before + 1))

    def _first_readable(self, key: int) -> int | None:
        """An id at or after ``key`` from which a row can be read, close behind the damaged place; None at the end."""
        bad, step = key, 1
        while not self._readable(key):
            bad, key, step = key, key + step, step * 2
            if key > _MAX_ID:
                return None
        while key - bad > 1:
            middle = (bad + key) // 2
            bad, key = (bad, middle) if self._readable(middle) else (middle, key)
        return key

    def _readable(self, key: int) -> bool:
        try:
            self._db.execute("SELECT id, topic_id, timestamp FROM messages WHERE id >= ? ORDER BY id LIMIT 1",
                             (key,)).fetchone()
        except sqlite3.Error:
            return False
        return True


def apply_journal(path: Path) -> None:
    """Let SQLite bring the file at ``path``, a copy, up to date with the journal beside it."""
    database = sqlite3.connect(path)
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        pass  # what is damaged shows when the file is read
    finally:
        database.close()
