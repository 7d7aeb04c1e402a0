"""`ros2 bag record|play|info`."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from . import bag_play, bag_record
from .packages import UsageError


def _time(stamp_ns: int) -> str:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds)
    return f"{moment:%b %d %Y %H:%M:%S}.{nanoseconds:09d} ({seconds}.{nanoseconds:09d})"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def info(args: argparse.Namespace) -> int:
    """Print what a bag holds."""
    from rosbags.rosbag2 import Reader, ReaderError

    path = Path(args.bag_path)
    try:
        with Reader(path) as reader:
            files = [f for f in sorted(path.iterdir()) if f.name != "metadata.yaml"] if path.is_dir() else [path]
            count = reader.message_count
            print(f"\nFiles:             {' '.join(f.name for f in files)}")
            print(f"Bag size:          {_size(sum(f.stat().st_size for f in files))}")
            print(f"Storage id:        {'sqlite3' if files and '.db3' in files[0].suffixes else 'mcap'}")
            print(f"Duration:          {(reader.duration if count else 0) / 1e9:.9f}s")
            if count:
                print(f"Start:             {_time(reader.start_time)}\nEnd:               {_time(reader.end_time)}")
            print(f"Messages:          {count}")
            for number, (name, topic) in enumerate(sorted(reader.topics.items())):
                lead = "Topic information: " if number == 0 else " " * 19
                kind = topic.msgtype or "several types"
                print(f"{lead}Topic: {name} | Type: {kind} | Count: {topic.msgcount} | Serialization Format: cdr")
            print()
    except (ReaderError, OSError) as error:
        raise UsageError(f"{error}") from error
    return 0


def main(argv: list[str]) -> int:
    """`ros2 bag COMMAND`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ros2 bag")
    commands = parser.add_subparsers(dest="command", required=True)
    bag_record.add_arguments(commands.add_parser("record", help="Record topics to a bag"))
    bag_play.add_arguments(commands.add_parser("play", help="Play a bag"))
    commands.add_parser("info", help="Print what a bag holds").add_argument("bag_path", help="Bag to look into")
    args = parser.parse_args(argv)
    return {"record": bag_record.main, "play": bag_play.main, "info": info}[args.command](args)
