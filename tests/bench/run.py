"""`make bench NAME=<name>`: runs tests/bench/bench_<name>.py and keeps what it measured.

A benchmark is a module with a docstring and ``measure() -> dict``. Timings inside are ratios of things measured side by
side in the same run, because machines differ and are noisy. The last line printed is one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from corft_core import files

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


def names() -> list[str]:
    """Benchmarks that exist."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def load(name: str) -> ModuleType:
    """The benchmark's module."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"bench_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Run one benchmark."""
    if len(sys.argv) != 2 or sys.argv[1] not in names():
        print("usage: make bench NAME=<name>", file=sys.stderr)
        for name in names():
            print(f"  {name:10} {(load(name).__doc__ or '').splitlines()[0]}", file=sys.stderr)
        return 2
    name = sys.argv[1]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT,
                            check=False)
    row = {"name": name, **load(name).measure(), "commit": commit.stdout.strip(), "cores": os.cpu_count(),
           "python": platform.python_version(), "command": f"make bench NAME={name}"}
    files.write_json(ROOT / "results" / "bench" / f"{name}.json", row)
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
