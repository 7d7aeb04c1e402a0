"""Packages and executables through the ament index, and `ros2 run` / `ros2 pkg`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


class UsageError(Exception):
    """A message for the user; the command exits with 1."""


def prefixes() -> list[Path]:
    """Install prefixes, first match wins: AMENT_PREFIX_PATH, then the Python environment (message wheels)."""
    listed = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [*listed, Path(sys.prefix)]


def extend_ament_prefix_path() -> None:
    """Let ament_index_python see the environment's own packages as well."""
    os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join(dict.fromkeys(str(p) for p in prefixes()))


def package_prefix(package: str) -> Path:
    """Prefix that holds a package; raises UsageError."""
    for prefix in prefixes():
        if (prefix / "share/ament_index/resource_index/packages" / package).is_file():
            return prefix
    raise UsageError(f"Package '{package}' not found: build the workspace (`make build`) and `. tools/env.sh`")


def package_share(package: str) -> Path:
    """Share folder of a package; raises UsageError."""
    return package_prefix(package) / "share" / package


def executables(package: str) -> dict[str, Path]:
    """Executables of a package by name."""
    folder = package_prefix(package) / "lib" / package
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in found if path.is_file() and os.access(path, os.X_OK)}


def run(argv: list[str]) -> int:
    """`ros2 run PKG EXE ARGS`: becomes the executable, so its exit code and signals are its own."""
    parser = argparse.ArgumentParser(prog="ros2 run", description="Run a package specific executable")
    parser.add_argument("package_name")
    parser.add_argument("executable_name")
    parser.add_argument("argv", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    known = executables(args.package_name)
    if args.executable_name not in known:
        print("No executable found", file=sys.stderr)
        names = ", ".join(known) or "none"
        print(f"package '{args.package_name}' has the executables: {names}", file=sys.stderr)
        return 1
    path = str(known[args.executable_name])
    sys.stdout.flush()
    return os.execv(path, [path, *args.argv])


def pkg(argv: list[str]) -> int:
    """`ros2 pkg prefix|executables|list`."""
    parser = argparse.ArgumentParser(prog="ros2 pkg")
    commands = parser.add_subparsers(dest="command", required=True)
    prefix = commands.add_parser("prefix", help="Output the prefix path of a package")
    prefix.add_argument("--share", action="store_true", help="show share directory for the package")
    prefix.add_argument("package_name")
    commands.add_parser("executables", help="List package specific executables").add_argument("package_name")
    commands.add_parser("list", help="Output a list of available packages")
    args = parser.parse_args(argv)
    if args.command == "list":
        index = [p / "share/ament_index/resource_index/packages" for p in prefixes()]
        print("\n".join(sorted({f.name for folder in index if folder.is_dir() for f in folder.iterdir()})))
    elif args.command == "prefix":
        print(package_share(args.package_name) if args.share else package_prefix(args.package_name))
    else:
        for name in executables(args.package_name):
            print(f"{args.package_name} {name}")
    return 0
