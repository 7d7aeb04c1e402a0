"""Damaged recordings: what can be read is read, nothing is invented, nothing hangs, and messages say what to type."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from bag_files import MAGIC, Recorded, Style, write_bag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import SECOND, Messages, square, typestore

from corft_core.data.bag import Bag, BagError
from corft_core.data.messages import MessageError

# A hang fails here, not after the suite's long limit.
pytestmark = pytest.mark.timeout(120)
LIMITS = settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.too_slow])

CHUNKED = [Style(chunks=chunks, chunk_bytes=400, index=index, summary=summary)
           for chunks in ("zstd", "lz4", "") for index, summary in ((True, True), (False, True), (True, False))]
CUTTABLE = [*CHUNKED, Style(chunks=None), Style(chunks=None, summary=False), Style(chunks="", checksums=False)]
SQLITE = [Style("sqlite3"), Style("sqlite3", version=5)]
PACKED = [Style(compression="file", chunk_bytes=400), Style("sqlite3", compression="file")]


@cache
def truth() -> tuple[Recorded, ...]:
    """36 messages on three topics, of 30 to 700 bytes."""
    store, build = typestore(), Messages()
    out = []
    for k in range(12):
        time = 1000 * SECOND + k * SECOND // 10
        for offset, topic, message in ((0, "/joints", build.joint_state(time, ["a", "b"], [k, -k])),
                                       (1, "/camera", build.image(time, square((12, 16), background=k), "png")),
                                       (2, "/gripper", build.gripper(k))):
            data = bytes(store.serialize_cdr(message, message.__msgtype__))
            out.append(Recorded(time + offset, topic, message.__msgtype__, data))
    return tuple(out)


@cache
def original(style: Style) -> bytes:
    """The storage file of the truth in ``style``."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_bag(Path(folder) / "bag", truth(), typestore(), style)
        (file,) = [file for file in path.iterdir() if file.name != "metadata.yaml"]
        return file.read_bytes()


def label(style: Style) -> str:
    """What is special about a style."""
    return "-".join(f"{key}={value}" for key, value in vars(style).items() if value != getattr(Style(), key)) or "plain"


def name_of(style: Style) -> str:
    """The file's name in ``style``."""
    return ("bag.mcap" if style.storage == "mcap" else "bag.db3") + (".zstd" if style.compression == "file" else "")


def read(content: bytes, name: str = "bag.mcap") -> tuple[list[Recorded], list[str]]:
    """What a file of ``content`` gives, and the notes. Raises BagError only."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        return read_path(file)


def read_path(path: Path) -> tuple[list[Recorded], list[str]]:
    out = []
    with Bag(path) as bag:
        for item in bag.messages(bag.topics):
            try:
                assert item.message is not None
                assert item.header_ns is None or isinstance(item.header_ns, int)
            except MessageError:
                continue
            out.append(Recorded(item.receive_ns, item.topic, item.type, bytes(item.data)))
        return out, bag.notes


def in_truth(seen: list[Recorded]) -> bool:
    """True when ``seen`` is the truth with messages left out."""
    rest = iter(truth())
    return all(message in rest for message in seen)


@pytest.mark.parametrize("style", CUTTABLE, ids=label)
@given(share=st.floats(0, 1, exclude_max=True))
@LIMITS
def test_an_mcap_cut_anywhere_gives_a_prefix(style: Style, share: float) -> None:
    content = original(style)
    cut = int(share * len(content))
    try:
        seen, notes = read(content[:cut])
    except BagError as error:
        assert cut < 3000 and any(hint in str(error) for hint in ("mcap recover", "0 bytes", "first bytes"))
        return
    assert seen == list(truth()[: len(seen)])
    assert any("cut off" in note and "mcap recover" in note for note in notes)
    if cut > len(content) - 40:
        assert len(seen) == len(truth()), "only the end mark is missing"


@pytest.mark.parametrize("style", CHUNKED[::3], ids=label)
def test_every_message_before_the_cut_is_saved(style: Style) -> None:
    content = original(style)
    lost = [len(truth()) - len(read(content[:cut])[0]) for cut in range(3000, len(content), 61)]
    assert lost == sorted(lost, reverse=True) and lost[-1] == 0 and len(set(lost)) > 5


@pytest.mark.parametrize("style", CHUNKED, ids=label)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
@LIMITS
def test_flipped_bytes_never_make_a_wrong_message(style: Style,
                                                  flips: list[tuple[float, int]]) -> None:
    content = bytearray(original(style))
    for share, change in flips:
        content[int(share * len(content))] ^= change
    try:
        seen, notes = read(bytes(content))
    except BagError:
        return
    assert in_truth(sorted(seen)), "another message than was recorded"
    assert len(seen) == len(truth()) or notes, "a loss without a note"


@pytest.mark.parametrize("style", [Style(chunks=None), Style(checksums=False), *SQLITE, *PACKED], ids=label)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
@LIMITS
def test_flipped_bytes_without_checksums_raise_nothing_else(style: Style, flips: list[tuple[float, int]]) -> None:
    content = bytearray(original(style))
    for share, change in flips:
        content[int(share * len(content))] ^= change
    try:
        seen, _ = read(bytes(content), name_of(style))
    except BagError:
        return
    assert len(seen) <= len(truth())


@pytest.mark.parametrize("style", [*SQLITE, *PACKED], ids=label)
@given(share=st.floats(0, 1, exclude_max=True))
@LIMITS
def test_a_cut_sqlite_or_compressed_file_gives_true_messages(style: Style, share: float) -> None:
    content = original(style)
    try:
        seen, notes = read(content[: int(share * len(content))], name_of(style))
    except BagError as error:
        assert str(error)
        return
    assert in_truth(seen)
    assert len(seen) == len(truth()) or notes


@given(share=st.floats(0, 1), change=st.integers(0, 255))
@LIMITS
def test_a_damaged_metadata_file_costs_nothing(share: float, change: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_bag(Path(folder) / "bag", truth(), typestore(), Style(split=20))
        text = bytearray((path / "metadata.yaml").read_bytes())
        place = min(int(share * len(text)), len(text) - 1)
        if change:
            text[place] ^= change
        else:
            del text[place:]
        (path / "metadata.yaml").write_bytes(text)
        seen, notes = read_path(path)
    assert in_truth(seen) and (len(seen) == len(truth()) or notes)


def test_a_damaged_chunk_is_skipped_counted_and_named() -> None:
    content = bytearray(original(Style(chunk_bytes=400)))
    starts = [place for place in range(len(content)) if content[place] == 6 and _is_chunk(content, place)]
    content[starts[3] + 70] ^= 1
    seen, notes = read(bytes(content))
    assert 0 < len(truth()) - len(seen) < 8 and in_truth(seen)
    lost = len(truth()) - len(seen)
    assert any(f"first at {starts[3]}:" in note and f"lost {lost} messages" in note and "mcap recover" in note
               for note in notes)


def _is_chunk(content: bytes, place: int) -> bool:
    length = int.from_bytes(content[place + 1 : place + 9], "little")
    return 100 < length < 2000 and content[place + 41 : place + 45] == b"zstd"


def test_a_damaged_chunk_head_loses_that_chunk_only() -> None:
    for style in (Style(chunk_bytes=400), Style(chunk_bytes=400, summary=False)):
        content = bytearray(original(style))
        starts = [place for place in range(len(content)) if content[place] == 6 and _is_chunk(content, place)]
        content[starts[3] + 46] ^= 1  # the stored size
        seen, notes = read(bytes(content))
        assert 0 < len(truth()) - len(seen) < 8 and in_truth(seen) and notes


def test_a_wholly_unreadable_topic_is_an_error(tmp_path: Path) -> None:
    content = bytearray(original(Style(chunk_bytes=1 << 20)))
    content[200] ^= 1  # inside the only chunk
    with pytest.raises(BagError, match="can be read"):
        read(bytes(content))


@pytest.mark.parametrize("damage", ["wal", "journal"])
def test_the_journal_of_a_killed_recorder_is_applied_to_a_copy(tmp_path: Path, damage: str) -> None:
    path = write_bag(tmp_path / "bag", truth()[:18], typestore(), Style("sqlite3", version=None))
    file = path / "bag_0.db3"
    recorder = sqlite3.connect(file)
    recorder.execute("PRAGMA journal_mode = " + ("WAL" if damage == "wal" else "DELETE"))
    recorder.execute("PRAGMA wal_autocheckpoint = 0")
    recorder.execute("PRAGMA cache_size = 1")
    recorder.execute("BEGIN")
    kinds = {topic: key for key, topic in recorder.execute("SELECT id, name FROM topics")}
    recorder.executemany("INSERT INTO messages (timestamp, topic_id, data) VALUES (?, ?, ?)",
                         [(m.receive_ns, kinds[m.topic], m.data * (20 if damage == "journal" else 1))
                          for m in truth()[18:]])
    if damage == "wal":
        recorder.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for part in path.iterdir():
        if not part.name.endswith("-shm"):
            (killed / part.name).write_bytes(part.read_bytes())
    recorder.close()
    before = {part.name: part.read_bytes() for part in killed.iterdir()}
    assert len(before) == 2 and all(before.values())
    seen, notes = read_path(killed)
    assert seen == list(truth()[: 36 if damage == "wal" else 18])
    assert any("was applied to a copy" in note for note in notes)
    assert {part.name: part.read_bytes() for part in killed.iterdir()} == before, "the bag is never touched"


def junk() -> dict[str, bytes]:
    """How a gigabyte of junk may begin; zeros follow."""
    begin = MAGIC + struct.pack("<BQ", 1, 8) + bytes(8)
    return {
        "zeros": bytes(64), "ones": b"\xff" * 4096, "text": b"no recording " * 400, "mcap then zeros": begin,
        "mcap of empty records": begin + struct.pack("<BQ", 0x90, 0) * 1_000_000,
        "mcap with a huge schema": begin + struct.pack("<BQ", 3, 900 << 20),
        "mcap with a huge message": begin + struct.pack("<BQHIQQ", 5, 900 << 20, 1, 0, 5, 5),
        "mcap with a huge chunk": begin + struct.pack("<BQQQQIIQ", 6, (900 << 20) + 40, 1, 2, 900 << 20, 0, 0,
                                                      900 << 20),
        "sqlite then zeros": b"SQLite format 3\0" + b"\x10\0\1\1\0\x40\x20\x20" + bytes(76),
        "zstd of zeros": original(Style(compression="file"))[:4] + bytes(60),
    }


def test_a_gigabyte_of_junk_is_refused_fast_and_in_little_memory(tmp_path: Path) -> None:
    for name, content in junk().items():
        with (tmp_path / f"{name}.mcap").open("wb") as out:
            out.write(content)
            out.truncate(1 << 30)  # sparse
    code = """if True:
        import sys, time
        from corft_core.data.bag import Bag, BagError

        def peak_kib():  # of this program; getrusage would count its parent's too
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

        for name in sys.argv[1:]:
            before, start = peak_kib(), time.process_time()
            try:
                with Bag(name) as bag:
                    list(bag.messages(bag.topics))
                print("read", bag.notes, file=sys.stderr)
            except BagError as error:
                print(time.process_time() - start, peak_kib() - before, error)"""
    files = sorted(tmp_path.iterdir())
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=100,
                         env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
    assert not run.stderr
    told = run.stdout.splitlines()
    assert len(told) == len(files), told
    for line in told:
        seconds, kib, message = line.split(" ", 2)
        assert float(seconds) < 5 and int(kib) < 100 * 1024, line
        assert any(hint in message for hint in ("Repair a copy with: ", "Give a file that")), line
    assert sorted(tmp_path.iterdir()) == files, "nothing is left behind"


@pytest.mark.parametrize(("make", "expected"), [
    (lambda folder: folder / "nothing", "there is no bag at .*ros2 bag record"),
    (lambda folder: folder, "holds no file that ends in"),
    (lambda folder: _file(folder / "a.txt", b"x"), "expected a folder or a file that ends in .mcap"),
    (lambda folder: _file(folder / "a.mcap", b""), r"is empty \(0 bytes\).*Record it again"),
    (lambda folder: _file(folder / "a.db3", b"hello there, friend"), "expected the first bytes of .*Give a file"),
    (lambda folder: _file(folder / "b.mcap", MAGIC), "no complete message.*mcap recover"),
    (lambda folder: _pipe(folder / "a.mcap"), "expected a folder or a file"),
    (lambda folder: _database(folder / "a.db3"), "has the tables topics and messages, this one has other"),
])
def test_what_is_no_recording_is_refused_with_what_to_do(tmp_path: Path, make: object, expected: str) -> None:
    with pytest.raises(BagError, match=expected), Bag(make(tmp_path)):  # type: ignore[operator]
        pass


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _pipe(path: Path) -> Path:
    os.mkfifo(path)  # opening it would wait for a writer for ever
    return path


def _database(path: Path) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other(id INTEGER)")
    return path


def test_an_empty_file_of_a_split_bag_is_noted(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), Style(split=18))
    (path / "bag_1.mcap").write_bytes(b"")
    seen, notes = read_path(path)
    assert seen == list(truth()[:18])
    assert any("bag_1.mcap is empty (0 bytes)" in note for note in notes)


def test_no_room_to_unpack_names_the_way_out(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), Style(compression="file"))
    code = """if True:
        import resource, signal, sys
        from corft_core.data.bag import Bag, BagError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with Bag(sys.argv[1]):
                pass
        except BagError as error:
            print(error)"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=100, check=True)
    assert "has no room: " in run.stdout and "Name a larger disk with TMPDIR=FOLDER" in run.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore())
    path.chmod(0)
    try:
        with pytest.raises(BagError, match="cannot be opened: Permission denied"), Bag(path):
            pass
    finally:
        path.chmod(0o755)
