"""Writes rosbag2 folders in every layout that recorders have produced, for tests: see ``Style``.

The MCAP and SQLite3 bytes are laid out here by hand, after their specifications, because rosbags' writer makes only
today's layout. tests/unit/test_bag_formats.py checks them against rosbags' reader.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import yaml
from rosbags.typesys.store import Typestore

from corft_core.data.bag.mcap_records import MAGIC, zstd

QOS = {"history": 1, "depth": 10, "reliability": 1, "durability": 2, "deadline": {"sec": 9223372036, "nsec": 854775807},
       "lifespan": {"sec": 9223372036, "nsec": 854775807}, "liveliness": 1,
       "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807}, "avoid_ros_namespace_conventions": False}
COMPRESS = {"": bytes, "lz4": lz4.frame.compress, "zstd": zstd.compress}


class Recorded(NamedTuple):
    """A message as a recorder gets it."""

    receive_ns: int
    topic: str
    type: str
    data: bytes


@dataclass(frozen=True)
class Style:
    """How a bag is stored.

    ``version``: of metadata.yaml, 4 … 9, or None for a folder without one. ``compression``: "", "file" or "message".
    ``chunks``: MCAP's chunk compression, or None for no chunks; ``index``, ``summary``, ``footer``, ``checksums``:
    whether MCAP has them. ``split``: messages per file, 0 for one file. ``definitions``: stored with the bag.
    """

    storage: str = "mcap"
    version: int | None = 9
    compression: str = ""
    chunks: str | None = "zstd"
    chunk_bytes: int = 2000
    index: bool = True
    summary: bool = True
    footer: bool = True
    checksums: bool = True
    definitions: bool = True
    split: int = 0
    distro: str = "jazzy"


def write_bag(path: Path, messages: Sequence[Recorded], store: Typestore, style: Style | None = None) -> Path:
    """Write the bag folder ``path``."""
    style = style or Style()
    path.mkdir(parents=True)
    suffix, write = {"mcap": (".mcap", write_mcap), "sqlite3": (".db3", write_sqlite)}[style.storage]
    step = style.split or max(1, len(messages))
    files: list[tuple[str, Sequence[Recorded]]] = []
    for k, start in enumerate(range(0, max(1, len(messages)), step)):
        part = messages[start : start + step]
        file = path / f"{path.name}_{k}{suffix}"
        stored = [m._replace(data=zstd.compress(m.data)) for m in part] if style.compression == "message" else part
        write(file, stored, store, style)
        if style.compression == "file":
            file.with_name(file.name + ".zstd").write_bytes(zstd.compress(file.read_bytes()))
            file.unlink()
        files.append((file.name + (".zstd" if style.compression == "file" else ""), part))
    if style.version is not None:
        (path / "metadata.yaml").write_text(metadata(files, store, style))
    return path


def metadata(files: Sequence[tuple[str, Sequence[Recorded]]], store: Typestore, style: Style) -> str:
    """The text of metadata.yaml in ``style.version``."""
    version = style.version or 9
    messages = [message for _, part in files for message in part]

    def span(part: Sequence[Recorded]) -> dict:
        times = [message.receive_ns for message in part] or [0]
        return {"duration": {"nanoseconds": max(times) - min(times)},
                "starting_time": {"nanoseconds_since_epoch": min(times)}, "message_count": len(part)}

    topics = []
    for (topic, kind), group in groupby(sorted(messages, key=_kind), _kind):
        about = {"name": topic, "type": kind, "serialization_format": "cdr",
                 "offered_qos_profiles": [QOS] if version >= 9 else yaml.safe_dump([QOS])}
        if version >= 7:
            about["type_description_hash"] = store.hash_rihs01(kind)
        topics.append({"topic_metadata": about, "message_count": len(list(group))})
    content = {"version": version, "storage_identifier": style.storage, **span(messages),
               "topics_with_message_count": topics, "compression_format": "zstd" if style.compression else "",
               "compression_mode": style.compression.upper(), "relative_file_paths": [name for name, _ in files]}
    if version >= 5:
        content["files"] = [{"path": name, **span(part)} for name, part in files]
    if version >= 6:
        content["custom_data"] = {"operator": "test"}
    if version >= 8:
        content["ros_distro"] = style.distro
    return yaml.safe_dump({"rosbag2_bagfile_information": content})


def write_sqlite(file: Path, messages: Sequence[Recorded], store: Typestore, style: Style) -> None:
    """Write one SQLite3 file, with the tables of the time of ``style.version``."""
    version = style.version or 9
    database = sqlite3.connect(file)
    columns = ["name", "type", "serialization_format", "offered_qos_profiles"]
    columns += ["type_description_hash"] * (version >= 7)
    texts = ",".join(f"{column} TEXT NOT NULL" for column in columns)
    database.execute(f"CREATE TABLE topics(id INTEGER PRIMARY KEY,{texts})")
    database.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
                     "timestamp INTEGER NOT NULL, data BLOB NOT NULL)")
    if version >= 5:
        database.execute("CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)")
        database.execute("CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER, metadata TEXT)")
        database.execute("INSERT INTO schema VALUES (?, ?)", (4 if version >= 7 else 3, style.distro))
    kinds = list(dict.fromkeys(map(_kind, messages)))
    for k, (topic, kind) in enumerate(kinds, start=1):
        row = (k, topic, kind, "cdr", yaml.safe_dump([QOS]), store.hash_rihs01(kind))[: 1 + len(columns)]
        database.execute(f"INSERT INTO topics VALUES ({','.join('?' * len(row))})", row)
    if version >= 7:
        database.execute("CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT, encoding TEXT, "
                         "encoded_message_definition TEXT, type_description_hash TEXT)")
        for kind in dict.fromkeys(kind for _, kind in kinds) if style.definitions else ():
            database.execute("INSERT INTO message_definitions VALUES (NULL, ?, 'ros2msg', ?, ?)",
                             (kind, definition(store, kind), store.hash_rihs01(kind)))
    database.executemany("INSERT INTO messages (timestamp, topic_id, data) VALUES (?, ?, ?)",
                         ((m.receive_ns, kinds.index(_kind(m)) + 1, m.data) for m in messages))
    database.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
    database.commit()
    database.close()


def definition(store: Typestore, kind: str) -> str:
    """The ros2msg text of a type with all that it contains."""
    return store.generate_msgdef(kind, ros_version=2)[0]


def write_mcap(file: Path, messages: Sequence[Recorded], store: Typestore, style: Style) -> None:
    """Write one MCAP file."""
    out = bytearray(MAGIC + _record(1, _text("ros2") + _text("corft tests")))
    kinds = list(dict.fromkeys(map(_kind, messages)))
    definitions = {key: _definition_records(key, kinds, store, style) for key in range(1, len(kinds) + 1)}
    chunk_indexes, seen, chunk, index = [], set(), bytearray(), {}

    def close_chunk() -> None:
        times = [time for entries in index.values() for time, _ in entries]
        stored = COMPRESS[style.chunks or ""](bytes(chunk))
        start = len(out)
        out.extend(_record(6, struct.pack("<QQQI", min(times), max(times), len(chunk),
                                          zlib.crc32(chunk) if style.checksums else 0)
                           + _text(style.chunks or "") + struct.pack("<Q", len(stored)) + stored))
        length, offsets = len(out) - start, {}
        for key, entries in index.items() if style.index else ():
            offsets[key] = len(out)
            out.extend(_record(7, struct.pack("<HI", key, 16 * len(entries))
                               + b"".join(struct.pack("<QQ", *entry) for entry in entries)))
        chunk_indexes.append(struct.pack("<QQQQI", min(times), max(times), start, length, 10 * len(offsets))
                             + b"".join(struct.pack("<HQ", *item) for item in offsets.items())
                             + struct.pack("<Q", len(out) - start - length) + _text(style.chunks or "")
                             + struct.pack("<QQ", len(stored), len(chunk)))
        chunk.clear()
        index.clear()

    for k, message in enumerate(messages):
        key = kinds.index(_kind(message)) + 1
        target = out if style.chunks is None else chunk
        if key not in seen:
            seen.add(key)
            target.extend(definitions[key])
        if style.chunks is not None:
            index.setdefault(key, []).append((message.receive_ns, len(chunk)))
        target.extend(_record(5, struct.pack("<HIQQ", key, k, message.receive_ns, message.receive_ns) + message.data))
        if len(chunk) > style.chunk_bytes:
            close_chunk()
    if chunk:
        close_chunk()
    if style.footer:
        out.extend(_record(0x0F, bytes(4)))
        start = len(out) if style.summary else 0
        if style.summary:
            counts = {key: sum(_kind(m) == kind for m in messages) for key, kind in enumerate(kinds, start=1)}
            times = [message.receive_ns for message in messages] or [0]
            out.extend(b"".join(definitions.values()))
            out.extend(b"".join(_record(8, entry) for entry in chunk_indexes))
            out.extend(_record(11, struct.pack("<QHIIIIQQI", len(messages), len(kinds), len(kinds), 0, 0,
                                               len(chunk_indexes), min(times), max(times), 10 * len(counts))
                               + b"".join(struct.pack("<HQ", *item) for item in counts.items())))
        footer = struct.pack("<BQQQ", 2, 20, start, 0)
        crc = zlib.crc32(bytes(out[start:]) + footer) if style.checksums and style.summary else 0
        out.extend(footer + struct.pack("<I", crc) + MAGIC)
    file.write_bytes(out)


def _definition_records(key: int, kinds: list[tuple[str, str]], store: Typestore, style: Style) -> bytes:
    topic, kind = kinds[key - 1]
    text = definition(store, kind) if style.definitions else ""
    qos = _text("offered_qos_profiles") + _text(yaml.safe_dump([QOS]))
    schema = struct.pack("<H", key) + _text(kind) + _text("ros2msg" if text else "") + _text(text)
    channel = struct.pack("<HH", key, key) + _text(topic) + _text("cdr") + struct.pack("<I", len(qos)) + qos
    return _record(3, schema) + _record(4, channel)


def _kind(message: Recorded) -> tuple[str, str]:
    return message.topic, message.type


def _record(op: int, content: bytes) -> bytes:
    return struct.pack("<BQ", op, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()
