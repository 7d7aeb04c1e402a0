"""Reads rosbag2 recordings (MCAP or sqlite3, split or compressed, or a bare .mcap/.db3 file) as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from corft_core.data.messages import EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE
from corft_core.errors import CorftError

_IDL_RULE = "=" * 80 + "\n"


class BagError(CorftError):
    """A recording that cannot be used."""


@dataclass(frozen=True)
class BagMessage:
    """A deserialised message; ``receive_ns`` is when the recorder received it, on the recorder's clock."""

    topic: str
    receive_ns: int
    message: Any


class Bag:
    """One recording. Open with ``with``; then ``topics`` maps topic → (type, message count).

    Message types come from the definitions inside the recording; for recordings without them, from ROS 2's common
    interfaces and corft_msgs. Raises BagError telling what is wrong and how to repair it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.topics: dict[str, tuple[str, int]] = {}
        self._readers: list[Reader] = []
        self._store = get_typestore(Stores.EMPTY)

    def __enter__(self) -> Bag:
        try:
            for path in _storages(self.path):
                reader = self._guarded(Reader, path)
                self._guarded(reader.open)
                self._readers.append(reader)
            self._guarded(self._index)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._close()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        files = [self.path] if self.path.is_file() else [p for p in self.path.iterdir() if p.is_file()]
        return sum(file.stat().st_size for file in files)

    def messages(self, topics: set[str]) -> Iterator[BagMessage]:
        """Messages of ``topics`` in the order of reception, one at a time."""
        self._guarded(self._register, [c for reader in self._readers for c in reader.connections if c.topic in topics])
        for reader in self._readers:
            connections = [c for c in reader.connections if c.topic in topics]
            stream = reader.messages(connections=connections) if connections else iter(())
            while (item := self._guarded(next, stream, None)) is not None:
                connection, receive_ns, data = item
                message = self._guarded(self._store.deserialize_cdr, data, connection.msgtype)
                yield BagMessage(connection.topic, receive_ns, message)

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    def _index(self) -> None:
        connections: list[Connection] = [c for reader in self._readers for c in reader.connections]
        for c in connections:
            self.topics[c.topic] = (c.msgtype, self.topics.get(c.topic, ("", 0))[1] + c.msgcount)

    def _register(self, connections: list[Connection]) -> None:
        """Make the types of ``connections`` known. Only these: registering all of ROS 2 takes a second."""
        types: dict[str, Any] = {}
        if any(c.msgdef.format == MessageDefinitionFormat.NONE for c in connections):
            types.update(get_typestore(Stores.ROS2_JAZZY).fielddefs)
            types.update(get_types_from_msg(EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE))
        for c in connections:
            text = c.msgdef.data
            if c.msgdef.format == MessageDefinitionFormat.MSG:
                types.update(get_types_from_msg(text, c.msgtype))
            elif c.msgdef.format == MessageDefinitionFormat.IDL:
                parts = text.split(_IDL_RULE)[1:] if text.startswith(_IDL_RULE) else [text]
                for part in parts:
                    types.update(get_types_from_idl(part.split("\n", 1)[1] if part.startswith("IDL: ") else part))
        self._store = get_typestore(Stores.EMPTY)
        self._store.register(types)

    def _guarded(self, function: Any, *arguments: Any) -> Any:
        """Call into the bag library. Damaged files make it raise nearly anything, all of which means one thing."""
        try:
            return function(*arguments)
        except MemoryError:
            raise
        except Exception as error:
            raise BagError(f"{self.path} cannot be read: {str(error).rstrip('.') or type(error).__name__}. "
                           "A recording that was cut off can be repaired with: "
                           "mcap recover IN.mcap -o OUT.mcap (sqlite3: ros2 bag reindex BAG)") from error


def _storages(path: Path) -> list[Path]:
    """What to open: the folder itself, or its storage files when metadata.yaml is missing."""
    if not path.exists():
        raise BagError(f"there is no bag at {path}. Record one with: ros2 bag record --storage mcap -o BAG --topics …")
    if path.is_file():
        if path.suffix not in (".mcap", ".db3"):
            raise BagError(f"{path} is not a bag: expected a folder, a .mcap or a .db3 file")
        return [path]
    if (path / "metadata.yaml").exists():
        return [path]
    files = sorted((*path.glob("*.mcap"), *path.glob("*.db3")))
    if not files:
        raise BagError(f"{path} is not a bag: it holds no metadata.yaml, .mcap or .db3 file")
    return files
