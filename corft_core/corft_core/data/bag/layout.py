"""Which storage files make up a recording: metadata.yaml of any version, or none; compressed files unpacked."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from corft_core.data.bag import sqlite
from corft_core.data.bag.mcap import McapStorage
from corft_core.data.bag.mcap_records import MAGIC, zstd
from corft_core.data.bag.sqlite import SqliteStorage
from corft_core.data.bag.storage import BagError, Note, Storage

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_MAX_METADATA = 16 << 20
_STEP = 1 << 20
_REINDEX = "Write it again with: ros2 bag reindex BAG"


@dataclass
class Layout:
    """A recording's storage files in order, and what metadata.yaml says of it (version 0: there is none)."""

    files: list[Path]
    version: int = 0
    distro: str = ""
    topics: dict[str, tuple[str, int]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def find(path: Path) -> Layout:
    """The layout of the folder or storage file at ``path``. Raises BagError when there is no recording."""
    try:
        return _found(path, path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise BagError(f"there is no bag at {path}. Record one with: ros2 bag record --storage mcap -o BAG --topics "
                       "…") from None
    except OSError as error:
        raise BagError(f"{path} cannot be opened: {error.strerror or error}. Check who may read it with: "
                       f"ls -l {path}") from error


def _found(path: Path, kind: int) -> Layout:
    if stat.S_ISREG(kind):
        if path.name.endswith(_SUFFIXES):
            return Layout([path])
        if path.name == "metadata.yaml":
            return find(path.parent)
    if not stat.S_ISDIR(kind):
        raise BagError(f"{path} is not a bag: expected a folder or a file that ends in {', '.join(_SUFFIXES)}")
    inside = _inside(path)
    metadata = path / "metadata.yaml"
    notes = []
    if metadata.is_file():
        try:
            return _from_metadata(path, inside, metadata)
        except _Unusable as error:
            notes = [Note(f"{metadata.name} was not used: {error}. {_REINDEX}")]
    if not inside:
        bags = any(_inside(folder) for folder in path.iterdir() if folder.is_dir())
        hint = f". It holds bags, give them instead: {path}/*" if bags else ""
        raise BagError(f"{path} is not a bag: it holds no file that ends in {', '.join(_SUFFIXES)}{hint}")
    return Layout(inside, notes=notes)


class _Unusable(Exception):
    """metadata.yaml cannot be used."""


def _inside(folder: Path) -> list[Path]:
    """Storage files of a folder; a file that was compressed and not yet removed counts once."""
    found = {file.name: file for file in folder.iterdir() if file.name.endswith(_SUFFIXES) and file.is_file()}
    return sorted((file for name, file in found.items() if name.removesuffix(".zstd") == name
                   or name.removesuffix(".zstd") not in found), key=_by_number)


def _by_number(file: Path) -> list[Any]:
    """bag_2 comes before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def _from_metadata(folder: Path, inside: list[Path], metadata: Path) -> Layout:
    try:
        if metadata.stat().st_size > _MAX_METADATA:
            raise _Unusable("it is larger than any that ros2 bag writes")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(metadata.read_text(), loader)["rosbag2_bagfile_information"]
        listed = [folder / PurePath(name).name for name in content["relative_file_paths"]]
        topics = {entry["topic_metadata"]["name"]: (str(entry["topic_metadata"]["type"]), int(entry["message_count"]))
                  for entry in content["topics_with_message_count"]}
        layout = Layout(listed, int(content["version"]), str(content.get("ros_distro") or ""), topics)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise _Unusable(f"it cannot be read ({type(error).__name__})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Unusable(f"it lacks {error}" if isinstance(error, KeyError) else f"{error}") from error
    by_name = {file.name.removesuffix(".zstd"): file for file in inside}
    layout.files = [file if file.is_file() else by_name.get(file.name.removesuffix(".zstd"), file) for file in listed]
    missing = [file.name for file in layout.files if not file.is_file()]
    layout.files = [file for file in layout.files if file.is_file()]
    if not layout.files:
        raise _Unusable(f"none of the files that it lists is there ({', '.join(missing) or 'it lists none'})")
    if missing:
        layout.notes.append(Note(f"of the recording's {len(listed)} files {', '.join(missing)} is missing", True))
    others = [file.name for file in inside if file not in layout.files]
    if others:
        layout.notes.append(Note(f"{', '.join(others)} was not read: metadata.yaml does not list it. {_REINDEX}"))
    return layout


def open_storage(path: Path, scratch: Callable[[], Path], notes: list[Note]) -> Storage:
    """Open a storage file by its content. ``scratch()`` is a folder for what must be unpacked first.

    Raises BagError telling what was expected and what is there.
    """
    plain = path
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(_ZSTD_MAGIC):
            plain = scratch() / path.name.removesuffix(".zstd")
            head = _unpack(path, plain, notes)
            if not head:
                why = f" ({notes.pop().text.split(': ', 1)[1].split(';')[0]})" if notes else ""
                raise BagError(f"{path} cannot be read: not even its first bytes could be unpacked{why}. Give a file "
                               "that ros2 bag record wrote")
        if head.startswith(MAGIC):
            return McapStorage(plain)
        if head == sqlite.MAGIC:
            plain = _private_copy(plain, scratch, notes)
            return SqliteStorage(plain)
    except OSError as error:
        raise BagError(f"{path} cannot be opened: {error.strerror or error}") from error
    except BagError as error:
        raise BagError(str(error).replace(str(plain), str(path))) from error
    if not head:
        raise BagError(f"{path} is empty (0 bytes): nothing was written before the recorder ended. Record it again")
    raise BagError(f"{path} cannot be read: expected the first bytes of an MCAP, SQLite3 or zstd file, found "
                   f"{head[:8].hex(' ')}. Give a file that ros2 bag record wrote")


def _unpack(path: Path, out: Path, notes: list[Note]) -> bytes:
    """Decompress what is undamaged of ``path`` to ``out``, step by step. Returns the first 16 bytes."""
    decompressor = zstd.ZstdDecompressor()
    head, written, barren = b"", 0, 0
    with path.open("rb") as file, out.open("wb") as target:
        stored = file.read(_STEP)
        while stored or not (decompressor.needs_input or decompressor.eof):
            if decompressor.eof:
                decompressor = zstd.ZstdDecompressor()
            try:
                data = decompressor.decompress(stored, max_length=4 * _STEP)
            except zstd.ZstdError as error:
                notes.append(Note(f"{path.name}: its compression is damaged ({error}); the part before was read", True))
                break
            barren = 0 if data else barren + 1
            if barren > 8:  # 8 MiB of input without any output are no zstd
                notes.append(Note(f"{path.name}: its compression is damaged; the part before was read", True))
                break
            if written < 16:
                head = (head + data)[:16]
                if len(head) == 16 and not (head.startswith(MAGIC) or head == sqlite.MAGIC):
                    break
            _write(target, data, path)
            written += len(data)
            stored = decompressor.unused_data if decompressor.eof else b""
            if not stored and (decompressor.needs_input or decompressor.eof):
                stored = file.read(_STEP)
        else:
            if not decompressor.eof:
                notes.append(Note(f"{path.name}: the compressed file was cut off; the part before was read", True))
    return head


def _write(target: Any, data: bytes, path: Path) -> None:
    try:
        target.write(data)
    except OSError as error:
        raise BagError(f"{path} must be unpacked before it is read, and {Path(target.name).parent} has no room: "
                       f"{error.strerror}. Name a larger disk with TMPDIR=FOLDER") from error


def _private_copy(path: Path, scratch: Callable[[], Path], notes: list[Note]) -> Path:
    """``path``, or a copy where SQLite would have to write: a journal to be applied, a page that was cut off."""
    size = path.stat().st_size
    with path.open("rb") as source:
        page = int.from_bytes(source.read(18)[16:], "big")
    page = 65536 if page == 1 else page
    journals = [file for end in ("-wal", "-journal")
                if (file := path.with_name(path.name + end)).is_file() and file.stat().st_size]
    surplus = size % page if page >= 512 else 0
    if not journals and not surplus:
        return path
    copy = scratch() / path.name
    if path != copy:
        with path.open("rb") as source, copy.open("wb") as out:
            while data := source.read(_STEP):
                _write(out, data, path)
    for file in journals:
        shutil.copyfile(file, copy.with_name(file.name))
    if surplus:
        with copy.open("r+b") as target:
            target.truncate(size - surplus)
        notes.append(Note(f"{path.name}: cut off within a page; the rows before were read. {sqlite.REPAIR}", True))
    if journals:
        notes.append(Note(f"{path.name}: the recorder was killed; its journal {journals[0].name} was applied to a "
                          "copy"))
        sqlite.apply_journal(copy)
    return copy
