"""The `ros2` command: picks the verb, or says that a ROS 2 installation is needed."""

from __future__ import annotations

import importlib
import os
import sys

from .packages import UsageError

# verb → (module, function, subcommands or None)
VERBS: dict[str, tuple[str, str, tuple[str, ...] | None]] = {
    "action": ("calls", "action", ("list", "send_goal")),
    "bag": ("bag", "main", ("info", "play", "record")),
    "launch": ("launcher", "main", None),
    "lifecycle": ("calls", "lifecycle", ("get", "set")),
    "node": ("topics", "node", ("list",)),
    "param": ("calls", "param", ("get", "set")),
    "pkg": ("packages", "pkg", ("executables", "list", "prefix")),
    "run": ("packages", "run", None),
    "service": ("calls", "service", ("call", "list")),
    "topic": ("topics", "topic", ("echo", "hz", "list", "pub")),
}


def usage() -> str:
    """What is supported."""
    lines = [f"  {verb} {'|'.join(subcommands or ())}".rstrip() for verb, (_, _, subcommands) in VERBS.items()]
    return "usage: ros2 COMMAND ...\n\nA subset of the ROS 2 command line, for machines without ROS 2:\n" + "\n".join(
        lines
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    verb, rest = argv[0], argv[1:]
    module, function, subcommands = VERBS.get(verb, ("", "", None))
    unknown = not module or (
        subcommands is not None and rest and not rest[0].startswith("-") and rest[0] not in subcommands
    )
    if unknown:
        print(f"ros2: '{' '.join(argv[:2])}' needs a ROS 2 installation\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        handler = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        code: int = handler(rest)
    except UsageError as error:
        print(f"ros2 {verb}: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        if "needs a ROS 2 installation" not in str(error):
            raise
        print(f"ros2 {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
