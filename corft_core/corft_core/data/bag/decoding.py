"""From serialised messages to Python objects: message types of a recording, and messages decoded on first use."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from corft_core.data.bag.joint_states import JOINT_STATE, JointStateDecoder
from corft_core.data.bag.mcap_records import zstd
from corft_core.data.bag.storage import BagError, Connection
from corft_core.data.messages import EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE, MessageError

_IDL_RULE = "=" * 80 + "\n"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins so: its first byte is 0
_MAX_MESSAGE = 1 << 30
_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}  # by the second byte of CDR
_ENOUGH = 100  # bad messages after which a topic of mostly bad ones is given up


class BagMessage:
    """A message as it was recorded, decoded when it is asked for.

    ``receive_ns`` is when the recorder received it, on the recorder's clock. ``data``, ``header_ns`` and ``message``
    raise MessageError for a damaged message, with the same text for all such messages of a topic. Arrays inside
    ``message`` are views into the block of the file that the message came with: copy what is kept for long.
    """

    __slots__ = ("_data", "_message", "_reader", "receive_ns")

    def __init__(self, reader: TopicReader, receive_ns: int, data: bytes | memoryview) -> None:
        self._reader = reader
        self.receive_ns = receive_ns
        self._data = data
        self._message: Any = None

    @property
    def topic(self) -> str:
        """The topic's full name."""
        return self._reader.topic

    @property
    def type(self) -> str:
        """The message type, such as sensor_msgs/msg/Image."""
        return self._reader.type

    @property
    def data(self) -> memoryview:
        """The serialised message (CDR), decompressed, not copied."""
        data = self._data
        if data and data[0] == _ZSTD_MAGIC[0] and data[:4] == _ZSTD_MAGIC:
            data = self._data = self._reader.decompressed(data)
        return memoryview(data)

    @property
    def header_ns(self) -> int | None:
        """The header's stamp [ns], without decoding the message; None when there is no header or it is not set."""
        return self._reader.header_ns(self.data) if self._reader.has_header else None

    @property
    def message(self) -> Any:
        """The decoded message, an object of rosbags."""
        if self._message is None:
            self._message = self._reader.decode(self.data)
        return self._message


@dataclass
class TopicReader:
    """Decodes one topic's messages and counts those that cannot be decoded."""

    topic: str
    type: str
    decoder: Callable[[memoryview], Any]
    has_header: bool
    good: int = 0
    bad: int = 0

    def decode(self, data: memoryview) -> Any:
        """Decode a message. Raises MessageError, or BagError once most messages turned out to be damaged."""
        try:
            message = self.decoder(data)
        except MemoryError:
            raise
        except Exception as error:  # the decoder raises nearly anything for damaged input
            raise self._bad() from error
        self.good += 1
        return message

    def header_ns(self, data: memoryview) -> int | None:
        """The stamp of the header that the message begins with."""
        if len(data) < 12 or data[0] or data[1] > 1:
            raise self._bad()
        seconds, nanoseconds = _STAMP[data[1]].unpack_from(data, 4)
        return seconds * 1_000_000_000 + nanoseconds or None

    def decompressed(self, data: bytes | memoryview) -> bytes:
        """A message that was compressed by itself."""
        try:
            decompressor = zstd.ZstdDecompressor()
            plain = decompressor.decompress(data, max_length=_MAX_MESSAGE)
        except zstd.ZstdError as error:
            raise self._bad() from error
        if not decompressor.eof:
            raise self._bad()
        return plain

    def check(self, bag: object) -> None:
        """Raise BagError when more than half of what was decoded is damaged."""
        if self.bad > self.good:
            raise BagError(f"{bag}: {self.bad} of {self.good + self.bad} messages on {self.topic} are no valid "
                           f"{self.type}. Were they recorded with another version of that type? Convert without the "
                           "topic, or record it again")

    def _bad(self) -> MessageError | BagError:
        self.bad += 1
        if self.bad >= _ENOUGH:
            self.check(self.topic)
        return MessageError(f"a message on {self.topic} is no valid {self.type}")


class Types:
    """Message types of a recording: from its definitions, else from the ROS 2 release that it was made with."""

    def __init__(self, path: object, version: int, distro: str) -> None:
        self._path = path
        name = f"ROS2_{distro.upper()}"
        self._release = Stores[name] if name in Stores.__members__ else (
            Stores.ROS2_HUMBLE if 0 < version < 7 else Stores.ROS2_JAZZY)

    def reader(self, connection: Connection) -> TopicReader:
        """A reader for the topic. Raises BagError when its type is not known."""
        if connection.serialization != "cdr":
            raise BagError(f"{self._path}: {connection.topic} was recorded in the format "
                           f"{connection.serialization!r}; only ROS 2's cdr can be read")
        store = self._store(connection)
        fields = store.fielddefs[connection.type][1]
        has_header = bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"
        decoder: Callable[[memoryview], Any] = partial(store.deserialize_cdr, typename=connection.type)
        if connection.type == JOINT_STATE and _as_released(store):
            decoder = JointStateDecoder(decoder)
        return TopicReader(connection.topic, connection.type, decoder, has_header)

    def _store(self, connection: Connection) -> Typestore:
        reason = "the recording holds no definition of it"
        if connection.definition:
            try:
                return _defined(connection.type, connection.definition, connection.idl)
            except Exception as error:  # parser and code generator raise nearly anything for damaged definitions
                reason = f"its definition in the recording cannot be used ({type(error).__name__})"
        store = _common(self._release)
        if connection.type not in store.fielddefs:
            raise BagError(f"{self._path}: the type {connection.type} of {connection.topic} is not known: {reason}, "
                           "and it is none of ROS 2's common interfaces. Record it with --storage mcap, which stores "
                           "definitions")
        return store


@cache
def _common(release: Stores) -> Typestore:
    """ROS 2's common interfaces and corft's episode event."""
    store = get_typestore(release)
    store.register(get_types_from_msg(EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE))
    return store


def _as_released(store: Typestore) -> bool:
    """Whether a joint state in ``store`` is laid out as in all releases, which its definition could deny."""
    released = _common(Stores.ROS2_JAZZY)
    return all(store.fielddefs[kind][1] == released.fielddefs[kind][1]
               for kind in (JOINT_STATE, "std_msgs/msg/Header", "builtin_interfaces/msg/Time"))


@lru_cache(maxsize=256)  # its code generator takes 0.1 s for a type
def _defined(kind: str, text: str, idl: bool) -> Typestore:
    """The type ``kind`` by its definition, alone: two files of a bag may define it differently."""
    types: dict[str, Any] = {}
    if not idl:
        types = get_types_from_msg(text, kind)
    for part in (text.split(_IDL_RULE)[1:] if text.startswith(_IDL_RULE) else [text]) if idl else ():
        types.update(get_types_from_idl(part.split("\n", 1)[1] if part.startswith("IDL: ") else part))
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    store.get_msgdef(kind)
    return store
