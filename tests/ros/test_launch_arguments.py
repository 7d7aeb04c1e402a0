"""Launch files: they import nothing that a ROS installation's own Python lacks, and their arguments fit the nodes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ros.graph import ROOT

from corft.executor.parameters import EXECUTOR_PARAMETERS
from corft.launch_arguments import argument, chosen, value_type
from corft.node_parameters import Param

pytestmark = pytest.mark.ros
# What `ros2 launch` of an installation can import: its own packages, NumPy and YAML.
BLOCKED = ("av", "coal", "cv2", "daqp", "mujoco", "ompl", "pinocchio", "PIL", "pyarrow", "rosbags", "ruckig",
           "safetensors", "scipy", "toppra", "torch", "tqdm", "transformers")
LOAD = """
import importlib.util, sys
for name in {blocked}:
    sys.modules[name] = None
sys.path.insert(0, {shim!r})
spec = importlib.util.spec_from_file_location("launched", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(len(module.generate_launch_description().describe_sub_entities()))
"""


@pytest.mark.parametrize("name", ["bringup", "cell", "demo"])
def test_a_launch_file_needs_only_what_a_ros_installation_has(name: str) -> None:
    code = LOAD.format(blocked=BLOCKED, shim=str(ROOT / "tools" / "ros2_standalone" / "shim"),
                       path=str(ROOT / "launch" / f"{name}.launch.py"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 3


def test_an_argument_is_its_parameter() -> None:
    (scale, execute, mode) = chosen(EXECUTOR_PARAMETERS, "speed_scale", "execute", "chunk_mode")
    assert argument(scale)["default_value"] == "1.0" and "(0.05 to 1)" in argument(scale)["description"]
    assert argument(execute) == {"default_value": "true", "description": execute.description,
                                 "choices": ["true", "false"]}
    assert argument(mode)["choices"][0] == "splice" and value_type(mode) is str
    assert argument(Param("n", 1, "A number.", range=(1, 10**9)), 4) == {"default_value": "4",
                                                                         "description": "A number."}
    with pytest.raises(KeyError):
        chosen(EXECUTOR_PARAMETERS, "nothing")
