"""Imports go one way, and the library needs no ROS."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "corft_core/corft_core"
ROS_PACKAGES = {"rclpy", "launch", "launch_ros", "sensor_msgs", "std_msgs", "std_srvs", "geometry_msgs",
                "trajectory_msgs", "diagnostic_msgs", "lifecycle_msgs", "corft_msgs", "corft", "ament_index_python",
                "rosgraph_msgs"}
# A package may import from those listed; modules at the top (contract, trajectory, files, …) are open to all.
ALLOWED = {
    "data": set(),
    "policy": {"data"},
    "serving": {"data", "policy"},
    "learning": {"data", "policy"},
    "evaluation": {"data", "policy", "learning", "cell"},
    "planning": set(),
    "execution": {"planning"},
    "cell": {"data"},
    "benchmarks": {"data", "evaluation"},
    "evidence": {"data", "policy", "learning", "evaluation", "cell", "benchmarks"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_modules_import_downwards_and_no_ros(path):
    package = path.relative_to(CORE).parts[0] if path.parent != CORE else None
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ROS_PACKAGES, f"{path.name} imports {name}"
        if parts[0] == "corft_core" and len(parts) > 1 and parts[1] in ALLOWED:
            assert package is not None, f"{path.name} lies below {parts[1]} and must not import it"
            assert parts[1] == package or parts[1] in ALLOWED[package], f"{package} must not import {name}"


def test_the_whole_library_imports_with_rclpy_blocked():
    modules = [".".join(path.relative_to(CORE.parent).with_suffix("").parts) for path in sorted(CORE.rglob("*.py"))]
    modules = [name.removesuffix(".__init__") for name in modules]
    program = ("import sys, importlib\nsys.modules['rclpy'] = None\nsys.modules['corft_msgs'] = None\n"
               f"for name in {modules!r}: importlib.import_module(name)\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                            env={**os.environ, "PYTHONPATH": str(CORE.parent)})
    assert result.returncode == 0, result.stderr


def test_launch_files_need_nothing_of_the_virtual_environment():
    """`ros2 launch` runs in the system's Python, which has ROS, NumPy and PyYAML."""
    ours = {name for path in (ROOT / "launch").glob("*.py") for name in imports(path)
            if name.split(".")[0] in ("corft", "corft_core") and name[-1].islower()}
    blocked = ("torch", "transformers", "peft", "tokenizers", "safetensors", "rosbags", "cv2", "av", "pyarrow",
               "mujoco", "pinocchio", "coal", "ompl", "toppra", "daqp", "ruckig", "matplotlib", "PIL", "tensorboardX",
               "tqdm", "jinja2", "psutil", "zmq")
    program = (f"import sys, importlib\nfor name in {blocked!r}: sys.modules[name] = None\n"
               f"for name in {sorted(ours)!r}:\n    module, _, item = name.rpartition('.')\n"
               "    try: importlib.import_module(name)\n"
               "    except ModuleNotFoundError: getattr(importlib.import_module(module), item)\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ours and result.returncode == 0, result.stderr


def test_no_pickle_anywhere():
    for path in [*CORE.rglob("*.py"), *(ROOT / "ros2_ws/src/corft/corft").rglob("*.py")]:
        found = imports(path)
        assert not {"pickle", "cloudpickle", "dill", "joblib"} & found, path
        text = path.read_text()
        assert "allow_pickle=True" not in text and "weights_only=False" not in text, path
