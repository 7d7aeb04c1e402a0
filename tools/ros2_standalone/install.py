"""Writes `bin/ros2` into the virtual environment of the Python that runs this, unless a real `ros2` is there.

Usage: python tools/ros2_standalone/install.py
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

MARK = "# written by tools/ros2_standalone/install.py"
SCRIPT = """#!{python}
{mark}
import sys

sys.path.insert(0, {tools!r})
from ros2_standalone.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""


def real_ros2(search_path: str) -> str | None:
    """Path of a `ros2` command that is not ours."""
    for folder in search_path.split(os.pathsep):
        path = shutil.which("ros2", path=folder) if folder else None
        if path is not None and MARK not in Path(path).read_text(errors="replace")[:4096]:
            return path
    return None


def install(environment: Path, search_path: str) -> int:
    """Write the command; returns the exit code, 1 where a real `ros2` would be hidden."""
    target = environment / "bin" / "ros2"
    if (found := real_ros2(os.pathsep.join([str(target.parent), search_path]))) is not None:
        print(f"{found} is there: the standalone ros2 is not installed over a ROS 2 installation", file=sys.stderr)
        return 1
    tools = Path(__file__).resolve().parent.parent
    text = SCRIPT.format(python=environment / "bin" / "python", mark=MARK, tools=str(tools))
    temporary = target.with_name(f".ros2.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o755)
    os.replace(temporary, target)
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit("run this with the Python of a virtual environment, e.g. .venv/bin/python")
    sys.exit(install(Path(sys.prefix), os.environ.get("PATH", "")))
