"""Every layout of a recording gives the same messages, in the same order."""

from __future__ import annotations

import shutil
import sqlite3
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from bag_files import Recorded, Style, write_bag
from recordings import CONTRACT_FILE, SECOND, Messages, Recording, Take, square, typestore
from rosbags.rosbag2 import Reader

from corft_core.contract import Contract
from corft_core.data.bag import Bag, BagError
from corft_core.data.messages import MessageError

COMPRESSIONS = ("", "file", "message")
STYLES = [
    *(Style(storage, version) for storage, version in product(("mcap", "sqlite3"), range(4, 10))),
    *(Style(storage, version, compression) for storage, version, compression in
      product(("mcap", "sqlite3"), (5, 9, None), COMPRESSIONS)),
    *(Style(chunks=chunks, index=index, summary=summary, footer=footer) for chunks, (index, summary, footer) in
      product(("", "lz4", "zstd", None), ((True, True, True), (False, True, True), (True, False, True),
                                          (False, False, True), (True, False, False), (False, False, False)))),
    *(Style(storage, version, compression, split=70) for storage, version, compression in
      product(("mcap", "sqlite3"), (9, None), COMPRESSIONS)),
    *(Style(storage, version, definitions=False) for storage, version in product(("mcap", "sqlite3"), (5, 9))),
]


def name(style: Style) -> str:
    """What is special about a style."""
    return "-".join(f"{key}={value}" for key, value in vars(style).items() if value != getattr(Style(), key)) or "plain"


@cache
def truth() -> tuple[Recorded, ...]:
    """Messages of a short recording."""
    take = Recording(Contract.load(CONTRACT_FILE), [Take(duration_s=0.5)], encoding="jpeg", image_size=(32, 32))
    return tuple(take.messages())


def read(path: Path) -> list[Recorded]:
    """All that a bag gives; every message must decode."""
    with Bag(path) as bag:
        out = []
        for item in bag.messages(bag.topics):
            assert item.message is not None
            out.append(Recorded(item.receive_ns, item.topic, item.type, bytes(item.data)))
    return out


@pytest.mark.parametrize("style", STYLES, ids=name)
def test_every_layout_gives_the_same_messages(tmp_path: Path, style: Style) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), style)
    with Bag(path) as bag:
        assert (bag.start_ns, bag.end_ns) == (truth()[0].receive_ns, truth()[-1].receive_ns)
        assert bag.topics["/joint_states"] == ("sensor_msgs/msg/JointState", 75)
        assert sum(count for _, count in bag.topics.values()) == len(truth())
        assert bool(bag.notes) == (style.storage == "mcap" and not style.footer)
    assert read(path) == list(truth())
    unpacked = [file for file in path.iterdir() if file.suffix in (".mcap", ".db3", ".zstd")]
    if len(unpacked) == 1:
        assert read(unpacked[0]) == list(truth()), "a bare storage file"
    before = sorted(file.name for file in path.iterdir())
    assert read(path) == list(truth()) and sorted(file.name for file in path.iterdir()) == before


@pytest.mark.parametrize("style", [style for style in STYLES if style.version and style.index and style.footer],
                         ids=name)
def test_the_test_files_are_what_rosbags_expects(tmp_path: Path, style: Style) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), style)
    with Reader(path) as reader:
        assert [(time, c.topic, bytes(data)) for c, time, data in reader.messages()] == \
            [(m.receive_ns, m.topic, m.data) for m in truth()]


def test_split_files_without_metadata_are_ordered_by_number(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), Style(version=None, split=10))
    assert (path / "bag_10.mcap").exists()
    assert read(path) == list(truth())


def test_files_of_unlike_compression_make_one_bag(tmp_path: Path) -> None:
    # The recorder was killed before it had compressed the last file, and before it removed an original.
    packed = write_bag(tmp_path / "packed" / "bag", truth(), typestore(), Style(split=70, compression="file"))
    plain = write_bag(tmp_path / "plain" / "bag", truth(), typestore(), Style(split=70))
    (packed / "bag_2.mcap.zstd").unlink()
    shutil.copy(plain / "bag_2.mcap", packed)
    shutil.copy(plain / "bag_0.mcap", packed)
    assert read(packed) == list(truth())
    (packed / "metadata.yaml").unlink()
    assert read(packed) == list(truth())


def test_a_missing_split_file_is_noted_and_the_rest_read(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), Style(split=70))
    (path / "bag_1.mcap").unlink()
    assert read(path) == [*truth()[:70], *truth()[140:]]
    with Bag(path) as bag:
        assert any("of the recording's 3 files bag_1.mcap is missing" in note for note in bag.notes)
        assert any(note.startswith("/joint_states: 75 messages were recorded, ") for note in bag.notes)


def test_files_that_metadata_does_not_list_are_named(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore())
    shutil.copy(path / "bag_0.mcap", path / "bag_0_recovered.mcap")
    assert read(path) == list(truth())
    with Bag(path) as bag:
        assert any("bag_0_recovered.mcap was not read" in note and "ros2 bag reindex" in note for note in bag.notes)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_one_topic_of_two_types_gives_the_frequent_one(tmp_path: Path, storage: str) -> None:
    store = typestore()
    text = bytes(store.serialize_cdr(store.types["std_msgs/msg/String"](data="x"), "std_msgs/msg/String"))
    odd = [Recorded(2000 * SECOND + k, "/joint_states", "std_msgs/msg/String", text) for k in range(5)]
    path = write_bag(tmp_path / "bag", [*truth(), *odd], store, Style(storage, split=len(truth())))
    with Bag(path) as bag:
        assert bag.topics["/joint_states"] == ("sensor_msgs/msg/JointState", 75)
        assert any("recorded as two types: the 5 messages of type std_msgs/msg/String" in note for note in bag.notes)
    assert read(path) == list(truth())


def test_the_same_type_may_change_between_split_files(tmp_path: Path) -> None:
    store = typestore()
    path = write_bag(tmp_path / "bag", truth(), store, Style(chunks=None, split=100))
    first = path / "bag_0.mcap"
    changed = first.read_bytes().replace(b"float64[] effort", b"float64[] torque")
    first.write_bytes(changed)
    with Bag(path) as bag:
        names = [hasattr(item.message, "torque") for item in bag.messages({"/joint_states"})]
    assert any(names) and not all(names)


def test_types_from_idl(tmp_path: Path) -> None:
    idl = ("=" * 80 + "\nIDL: corft_test/msg/Force\n"
           "module corft_test { module msg { struct Force { std_msgs::msg::Header header; double newton; }; }; };\n"
           + "=" * 80 + "\nIDL: std_msgs/msg/Header\nmodule std_msgs { module msg { struct Header { "
           "builtin_interfaces::msg::Time stamp; string frame_id; }; }; };\n"
           + "=" * 80 + "\nIDL: builtin_interfaces/msg/Time\nmodule builtin_interfaces { module msg { struct Time { "
           "int32 sec; uint32 nanosec; }; }; };\n")
    store, build = typestore(), Messages()
    message = store.types["sensor_msgs/msg/Temperature"](header=build.header(7 * SECOND + 5), temperature=1.5,
                                                              variance=0.0)
    data = bytes(store.serialize_cdr(message, "sensor_msgs/msg/Temperature"))[:-8]  # Force is its beginning
    path = write_bag(tmp_path / "bag", [Recorded(9 * SECOND, "/force", "sensor_msgs/msg/Temperature", data)], store,
                     Style("sqlite3"))
    with sqlite3.connect(path / "bag_0.db3") as database:
        database.execute("UPDATE topics SET type = 'corft_test/msg/Force'")
        database.execute("UPDATE message_definitions SET topic_type = 'corft_test/msg/Force', encoding = 'ros2idl', "
                         "encoded_message_definition = ?", (idl,))
    with Bag(path) as bag:
        (item,) = bag.messages({"/force"})
        assert item.type == "corft_test/msg/Force" and item.message.newton == 1.5 and item.header_ns == 7 * SECOND + 5


def test_an_unknown_type_without_definition_is_refused_only_when_asked_for(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore(), Style("sqlite3", version=5))
    with sqlite3.connect(path / "bag_0.db3") as database:
        database.execute("UPDATE topics SET type = 'my_msgs/msg/Foo' WHERE name = '/gripper_controller/commands'")
    with Bag(path) as bag:
        assert len(list(bag.messages({"/joint_states"}))) == 75
        (topic,) = [topic for topic, (kind, _) in bag.topics.items() if kind == "my_msgs/msg/Foo"]
        with pytest.raises(BagError, match=r"my_msgs/msg/Foo .* is not known.*--storage mcap"):
            list(bag.messages({topic}))


def test_stamps_are_read_without_decoding(tmp_path: Path) -> None:
    store, build = typestore(), Messages()
    image = build.image(5 * SECOND + 7, square((8, 8)))
    unset = build.image(0, square((8, 8)))
    kind = "sensor_msgs/msg/Image"
    data = [bytes(store.serialize_cdr(image, kind)), bytes(store.serialize_cdr(image, kind, little_endian=False)),
            bytes(store.serialize_cdr(unset, kind))]
    gripper = bytes(store.serialize_cdr(build.gripper(0.1), "std_msgs/msg/Float64MultiArray"))
    path = write_bag(tmp_path / "bag", [
        *(Recorded(k + 1, "/image", kind, item) for k, item in enumerate(data)),
        Recorded(9, "/gripper", "std_msgs/msg/Float64MultiArray", gripper)], store)
    with Bag(path) as bag:
        first, big_endian, without, other = bag.messages({"/image", "/gripper"})
        assert (first.header_ns, big_endian.header_ns) == (5 * SECOND + 7,) * 2
        assert without.header_ns is None and other.header_ns is None
        assert first._message is None, "not decoded"
        np.testing.assert_array_equal(big_endian.message.data, image.data)
        assert np.shares_memory(first.message.data, np.frombuffer(first.data, np.uint8)), "pixels are not copied"


def test_jitter_between_topics_is_sorted_and_a_clock_set_back_is_not(tmp_path: Path) -> None:
    store = typestore()
    shaken = sorted(truth(), key=lambda m: m.receive_ns + (40_000_000 if m.topic == "/joint_states" else 0))
    path = write_bag(tmp_path / "shaken", shaken, store, Style(chunk_bytes=500))
    assert [m.receive_ns for m in read(path)] == [m.receive_ns for m in truth()]
    back = [*truth(), *(m._replace(receive_ns=m.receive_ns - 900 * SECOND) for m in truth())]
    for style in (Style(chunk_bytes=500), Style(chunk_bytes=1 << 30), Style("sqlite3"), Style(split=len(truth()))):
        path = write_bag(tmp_path / name(style), back, store, style)
        assert read(path) == back, "as recorded"
        with Bag(path) as bag:
            list(bag.messages(bag.topics))
            assert style.chunk_bytes > 500 or any("clock was set back by 90" in note for note in bag.notes)


def test_equal_reception_times_keep_their_order(tmp_path: Path) -> None:
    same = [m._replace(receive_ns=1000) for m in truth()]
    assert read(write_bag(tmp_path / "bag", same, typestore())) == same


def test_a_topic_that_recorded_nothing_is_listed_with_zero(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", truth(), typestore())
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("topics_with_message_count:", """topics_with_message_count:
  - message_count: 0
    topic_metadata: {name: /silent, type: std_msgs/msg/String, serialization_format: cdr, offered_qos_profiles: []}"""))
    with Bag(path) as bag:
        assert bag.topics["/silent"] == ("std_msgs/msg/String", 0) and bag.notes == []
        assert list(bag.messages({"/silent"})) == []


def test_big_bad_messages_are_counted_not_fatal_until_they_prevail(tmp_path: Path) -> None:
    store = typestore()
    joints = [m for m in truth() if m.topic == "/joint_states"]
    for bad, share in (([b"", b"\0\1\0\0", b"junk" * 9], 3), (None, 40)):
        some = [m._replace(data=bad[k]) if bad and k < 3 else m._replace(data=m.data[:-9]) if not bad and k < share
                else m for k, m in enumerate(joints)]
        path = write_bag(tmp_path / str(share), some, store)
        good = failures = 0
        with Bag(path) as bag:
            stream = bag.messages({"/joint_states"})
            try:
                for item in stream:
                    try:
                        assert item.message.name
                        good += 1
                    except MessageError as error:
                        assert str(error) == "a message on /joint_states is no valid sensor_msgs/msg/JointState"
                        failures += 1
                assert share == 3
            except BagError as error:
                assert share == 40 and "40 of 75 messages on /joint_states are no valid" in str(error)
        assert (good, failures) == (75 - share, share)
