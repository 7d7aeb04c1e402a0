"""Finds a contract's streams among the topics of a recording."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from corft_core.contract import CameraStream, Contract
from corft_core.data.bag import BagError

CLOCK_TOPIC = "/clock"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"


def resolve_topics(contract: Contract, topics: Mapping[str, tuple[str, int]], path: Path,
                   namespace: str = "", optional: Set[str] = frozenset()) -> dict[str, tuple[str, ...]]:
    """Topic → names of the streams that it carries, for a recording with ``topics`` (topic → (type, count)).

    The contract's relative names are looked up under ``namespace``; where none is given, in the one namespace that
    has them. A camera's ``<topic>/compressed`` (``/compressedDepth`` with depth_range_m) stands in for a raw topic that
    was not recorded. Streams in ``optional`` may be absent, and episode events where every bag is one episode.
    Raises BagError listing what is missing, of another type, or empty, and what was recorded.
    """
    if sum(count for _, count in topics.values()) == 0:
        raise BagError(f"{path} is empty: it holds no messages. Check with `ros2 bag info {path}`; a QoS mismatch "
                       "records nothing, see the bag record line in the documentation.")
    problems: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    optional = optional | ({"episode_event"} if contract.episodes == "bag" else set())
    for name, stream in contract.streams.items():
        wanted = [(stream.topic, stream.type)]
        if isinstance(stream, CameraStream) and stream.type != _COMPRESSED:
            transport = "compressed" if stream.depth_range_m is None else "compressedDepth"
            wanted.append((f"{stream.topic}/{transport}", _COMPRESSED))
        for relative, kind in wanted:
            topic = _find(relative, topics, namespace, path)
            if topic is not None and topics[topic][0] == kind:
                break
        else:
            topic = _find(stream.topic, topics, namespace, path)
            if topic is None and name in optional:
                continue
            problems.append(f"{name}: no topic {stream.topic} [{stream.type}]" if topic is None else
                            f"{name}: {topic} has type {topics[topic][0]}, the contract says {stream.type}")
            continue
        assert topic is not None
        if topics[topic][1] == 0 and name not in optional | {"gripper_command"}:
            problems.append(f"{name}: {topic} was recorded but holds no messages (a QoS mismatch?)")
        found[topic] = (*found.get(topic, ()), name)
    if problems:
        seen = "\n  ".join(f"{topic} [{kind}] {count} messages" for topic, (kind, count) in sorted(topics.items()))
        raise BagError(f"{path} lacks what the contract asks for:\n  " + "\n  ".join(problems)
                       + f"\nIt holds:\n  {seen}\nRecord the missing topics, or give the right --contract or "
                         "--namespace.")
    return found


def _find(relative: str, topics: Mapping[str, tuple[str, int]], namespace: str, path: Path) -> str | None:
    if relative.startswith("/"):
        return relative if relative in topics else None
    exact = "/" + "/".join(part for part in (namespace.strip("/"), relative) if part)
    if exact in topics or namespace:
        return exact if exact in topics else None
    inside = sorted(topic for topic in topics if topic.endswith(f"/{relative}"))
    if len(inside) > 1:
        raise BagError(f"{path} holds {relative} in several namespaces: {', '.join(inside)}. "
                       "Choose one with --namespace.")
    return inside[0] if inside else None
