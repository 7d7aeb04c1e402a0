"""control_msgs for tests: the installed one, or the part of it in control_msgs_source/, built once with colcon."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "control_msgs_source"


def environment() -> dict[str, str]:
    """What a process needs on top of os.environ to import control_msgs; builds it on the first call (20 s)."""
    if importlib.util.find_spec("control_msgs") is not None:
        return {}
    files = sorted(path for path in SOURCE.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    base = ROOT / "out" / "control_msgs" / digest
    prefix = base / "install" / "control_msgs"
    if not (base / "complete").exists():
        virtual = Path(sys.prefix)
        build = {**os.environ, "AMENT_PREFIX_PATH": str(virtual), "CMAKE_PREFIX_PATH": str(virtual),
                 "LD_LIBRARY_PATH": f"{virtual / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
        build.pop("PYTHONPATH", None)
        build.pop("COLCON_PREFIX_PATH", None)
        subprocess.run(
            [sys.executable, str(virtual / "bin" / "colcon"), "--log-base", str(base / "log"), "build", "--base-paths",
             str(SOURCE), "--build-base", str(base / "build"), "--install-base", str(base / "install"),
             "--event-handlers", "console_direct-", "--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}"],
            check=True, cwd=ROOT, env=build, stdout=subprocess.DEVNULL)
        (base / "complete").touch()
    packages = next((prefix / "lib").glob("python3*/site-packages"))
    return {"AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
            "LD_LIBRARY_PATH": f"{prefix / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "PYTHONPATH": f"{packages}:{os.environ.get('PYTHONPATH', '')}"}
