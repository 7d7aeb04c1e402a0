"""A recording as one stream of messages, over all of its storage files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from corft_core.data.bag import layout
from corft_core.data.bag.decoding import BagMessage, TopicReader, Types
from corft_core.data.bag.storage import BagError, Block, Note, Storage, merged, runs


class Bag:
    """One recording. Open with ``with``; then ``topics`` maps topic → (type, message count).

    ``path``: the folder, or a storage file (MCAP or SQLite3, also compressed). ``start_ns`` and ``end_ns`` are the
    first and last reception on the recorder's clock, 0 when there is no message. Only blocks of the file that overlap
    in time are held in memory. A damaged recording gives what can be read of it, and ``notes`` what is missing and
    how to repair it. Raises BagError when nothing can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.topics: dict[str, tuple[str, int]] = {}
        self.start_ns = self.end_ns = 0
        self._notes: list[Note] = []
        self._storages: list[Storage] = []
        self._resources = ExitStack()

    def __enter__(self) -> Bag:
        try:
            self._open()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._resources.close()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        files = [self.path] if self.path.is_file() else [p for p in self.path.iterdir() if p.is_file()]
        return sum(file.stat().st_size for file in files)

    @property
    def notes(self) -> list[str]:
        """What is odd about the recording, ``damage`` included; complete once its messages have been read."""
        return [note.text for note in self._all_notes()]

    @property
    def damage(self) -> list[str]:
        """Those of the notes that tell of messages lost."""
        return [note.text for note in self._all_notes() if note.loss]

    def _all_notes(self) -> list[Note]:
        return self._notes + [note for storage in self._storages for note in storage.notes()]

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Messages of ``topics`` in the order of reception.

        Raises BagError when nothing of them can be read, or most messages of a topic are damaged.
        """
        readers = self._readers(topics)
        blocks = [(storage, block) for storage in self._storages for block in storage.blocks
                  if not readers[storage].keys().isdisjoint(block.counts)]
        delivered = 0

        def load(item: tuple[Storage, Block]) -> list[BagMessage]:
            storage, block = item
            nonlocal delivered
            mine = readers[storage]
            rows = storage.load(block, mine)
            delivered += len(rows)
            return [BagMessage(mine[key], time_ns, data) for time_ns, key, data in rows]

        for run in self._runs(blocks):
            yield from merged(run, lambda item: item[1].start_ns, load)
        if blocks and not delivered:
            raise BagError(f"{self.path}: no message of {', '.join(sorted(topics))} can be read. "
                           + " ".join(self.notes))
        for reader in {id(reader): reader for mine in readers.values() for reader in mine.values()}.values():
            reader.check(self.path)

    def _open(self) -> None:
        found = layout.find(self.path)
        self._notes += found.notes
        refused: list[BagError] = []
        for file in found.files:
            try:
                storage = layout.open_storage(file, self._scratch_folder, self._notes)
            except BagError as error:
                refused.append(error)
                continue
            self._resources.callback(storage.close)
            self._storages.append(storage)
        if not self._storages:
            raise BagError("; ".join(str(error) for error in refused))
        self._notes += [Note(f"left out: {error}", True) for error in refused]
        distro = found.distro or next((storage.distro for storage in self._storages if storage.distro), "")
        self._types = Types(self.path, found.version, distro)
        self._index(found.topics)

    def _scratch_folder(self) -> Path:
        """A temporary folder that is removed with the bag; a new one for each file, as names may repeat."""
        return Path(self._resources.enter_context(TemporaryDirectory(prefix="corft_bag_")))

    def _index(self, listed: dict[str, tuple[str, int]]) -> None:
        """Find out what is recorded; ``listed``: what metadata.yaml says about it."""
        found: dict[str, Counter[str]] = {}
        announced: Counter[str] = Counter()
        times: list[tuple[int, int]] = []
        for storage in self._storages:
            counts: Counter[int] = Counter()
            for block in storage.blocks:
                counts.update(block.counts)
                times += block.times_ns.values()
            for key, connection in storage.connections.items():
                found.setdefault(connection.topic, Counter())[connection.type] += counts[key]
                announced[connection.topic] += storage.announced.get(key, 0)
        for topic, (kind, count) in listed.items():
            found.setdefault(topic, Counter({kind: 0}))
            announced[topic] = count
        for topic, kinds in found.items():
            (kind, count), *others = kinds.most_common()
            self.topics[topic] = kind, count
            if sum(kinds.values()) < announced[topic]:
                self._notes.append(Note(f"{topic}: {announced[topic]} messages were recorded, {sum(kinds.values())} "
                                        "found", True))
            self._notes += [Note(f"{topic} was recorded as two types: the {number} messages of type {other} are left "
                                 f"out, those of type {kind} are used") for other, number in others if number]
        if times:
            self.start_ns, self.end_ns = min(first for first, _ in times), max(last for _, last in times)

    def _readers(self, topics: Collection[str]) -> dict[Storage, dict[int, TopicReader]]:
        """Per storage file: connection id → reader of its messages; one reader a topic and definition."""
        made: dict[tuple[str, str, str], TopicReader] = {}
        out: dict[Storage, dict[int, TopicReader]] = {}
        for storage in self._storages:
            mine = out[storage] = {}
            for key, connection in storage.connections.items():
                if connection.topic in topics and connection.type == self.topics[connection.topic][0]:
                    name = connection.topic, connection.type, connection.definition
                    if name not in made:
                        made[name] = self._types.reader(connection)
                    mine[key] = made[name]
        return out

    def _runs(self, blocks: list[tuple[Storage, Block]]) -> list[list[tuple[Storage, Block]]]:
        def times(item: tuple[Storage, Block]) -> dict[str, tuple[int, int]]:
            storage, block = item
            return {storage.connections[key].topic: span for key, span in block.times_ns.items()}

        out, back_ns = runs(blocks, times)
        note = Note(f"the recorder's clock was set back by {back_ns * 1e-9:.1f} s; the messages are read in the order "
                    "in which they were recorded")
        if back_ns and note not in self._notes:
            self._notes.append(note)
        return out
