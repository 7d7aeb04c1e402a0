"""The doctor's checks of the machine: each fails when what it looks at is wrong, and says what to type."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pinocchio
import pytest
import torch

from corft.doctor_machine import Check, contract_checks, machine
from corft.doctor_versions import Package, differences, packages
from corft_core.contract import Contract
from corft_core.planning import resolve_description

ROOT = Path(__file__).parents[2]
PANDA = Contract.load(ROOT / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
# As an extension module built for NumPy 1 behaves under NumPy 2: it says so and takes the process with it.
CRASHING = "import os, sys\nprint('numpy.core.multiarray failed to import', file=sys.stderr)\nos.abort()\n"


def looked_at(planner: str = "embedded", device: str = "cpu") -> dict[str, Check]:
    return {check.what: check for check in machine(planner, device)}


def test_a_machine_with_the_pinned_packages_is_well() -> None:
    found = looked_at()
    assert found["versions"].level == "ok", found["versions"]
    assert {"Python, ROS 2", "rclpy", "corft_msgs", "GPU", "middleware", "disk"} <= found.keys()


def test_the_pins_are_those_of_the_requirements() -> None:
    text = (ROOT / "requirements/base.txt").read_text()
    expected = re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE)
    assert [(package.name, package.pinned) for package in packages()] == expected and len(expected) > 20


def test_another_version_is_a_warning_that_names_both_and_the_command(tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft-0.1.0.dist-info").mkdir()
    (tmp_path / "peft-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "peft", raising=False)  # what is loaded already is what counts
    pinned = next(package.pinned for package in packages() if package.name == "peft")
    found = looked_at()["versions"]
    assert (found.level, found.seen) == ("warning", f"peft 0.1.0 instead of {pinned}")
    assert found.fix.endswith(f"{sys.executable} -m pip install peft=={pinned}")


def test_a_package_that_hides_the_pinned_one_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinocchio, "__version__", "3.4.0")
    found = looked_at()["versions"]
    assert f"pin 3.4.0 of {pinocchio.__file__} instead of" in found.seen and found.level == "warning"
    folder = found.fix.partition("export PYTHONPATH=")[2].removesuffix(":$PYTHONPATH")
    assert (Path(folder) / "pinocchio/__init__.py").is_file() and "pip install" not in found.fix


def test_what_is_missing_is_named_with_what_it_is_for() -> None:
    lines, advice = differences([Package("peft", "LoRA adapters", "0.21", "")], True)
    assert lines == ["peft 0.21 is missing (LoRA adapters)"] and advice.endswith("pip install peft==0.21")


def test_with_a_ros_installation_its_numpy_is_right_and_stays() -> None:
    found = [Package("numpy", "arrays", "2.4.6", "1.26.4"), Package("pin", "kinematics", "4.1.0", "4.1.0")]
    assert differences(found, False) == ([], "")
    assert differences(found, True)[0] == ["numpy 1.26.4 instead of 2.4.6"]
    other = [*found, Package("ompl", "planning", "2.0", "1.9"), Package("torch", "policies", "2.13.0", "2.9.0")]
    lines, advice = differences(other, False)
    assert len(lines) == 2 and "numpy" not in advice
    pip = f"{sys.executable} -m pip install"
    assert advice == f"{pip} torch==2.13.0 && {pip} --no-deps ompl==2.0", "no dependency pulls up NumPy"


@pytest.mark.parametrize("distro", ["", "humble"])
def test_a_distribution_that_is_missing_or_not_known_is_said(distro: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", distro)
    found = looked_at()["Python, ROS 2"]
    assert found.level == ("warning" if distro else "ERROR") and "expected jazzy" in found.seen
    assert "source /opt/ros" in found.fix


@pytest.fixture
def moveit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A moveit_py that is installed; returns the file of its module ``planning``."""
    for name in ("moveit", "moveit_msgs", "shape_msgs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "moveit/core.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "moveit/planning.py"


@pytest.mark.skipif(np.__version__ < "2", reason="this NumPy is what moveit_py is built for")
def test_a_moveit_py_that_crashes_with_this_numpy_is_an_error_where_it_is_to_plan(moveit: Path) -> None:
    moveit.write_text(CRASHING)
    found = looked_at("moveit")["moveit_py"]
    assert found.level == "ERROR" and f"NumPy {np.__version__}" in found.seen and "multiarray" in found.seen
    assert "pip install 'numpy<2'" in found.fix and "planner:=embedded" in found.fix
    unused = looked_at("embedded")["moveit_py"]
    assert unused.level == "ok" and "not needed" in unused.seen


def test_a_moveit_py_that_loads_is_ok(moveit: Path) -> None:
    moveit.touch()
    assert looked_at("moveit")["moveit_py"] == Check("moveit_py", "ok", f"loads with NumPy {np.__version__}")


@pytest.mark.skipif(importlib.util.find_spec("moveit") is not None, reason="moveit_py is installed")
def test_a_moveit_py_that_is_missing_is_an_error_where_it_is_to_plan() -> None:
    assert "moveit_py" not in looked_at("embedded")
    found = looked_at("moveit")["moveit_py"]
    assert found.level == "ERROR" and "apt install ros-$ROS_DISTRO-moveit" in found.seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_wanted_and_missing_is_an_error() -> None:
    assert looked_at()["GPU"].level == "ok"
    found = looked_at(device="cuda")["GPU"]
    assert found.level == "ERROR" and "nvidia-smi" in found.fix and "device:=cpu" in found.fix


def test_velocities_above_the_descriptions_are_seen_beside_ros2_controls_joints_too(tmp_path: Path) -> None:
    description = resolve_description(PANDA.robot.description)
    control = "".join(f'<joint name="{name}"/>' for name in PANDA.robot.joints)
    (tmp_path / "arm.urdf").write_text(description.urdf.replace(
        "</robot>", f'<ros2_control name="arm" type="system">{control}</ros2_control></robot>'))
    (tmp_path / "arm.srdf").write_text(description.srdf)
    fast = replace(PANDA.limits, velocity_rad_s=(9.0, *PANDA.limits.velocity_rad_s[1:]))
    robot = replace(PANDA.robot, description=str(tmp_path / "arm.urdf"))
    found = {check.what: check for check in contract_checks(replace(PANDA, limits=fast, robot=robot), None)}
    assert found["velocity limits"].level == "warning", found
    assert found["velocity limits"].seen == "panda_joint1 9 above 2.175"
