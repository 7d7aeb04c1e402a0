"""What is wrong with the machine, the contract and a checkpoint, before any robot is looked at."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from corft.doctor_versions import differences, from_wheels, packages
from corft.policy.checks import check_robot, checkpoint_folder
from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.imports import import_trouble
from corft_core.planning.description import RobotDescription

Level = Literal["ok", "warning", "ERROR"]
ROOM_GB = 20.0
DISTROS = ("jazzy", "kilted", "lyrical")


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was seen, and what to do about it unless it is ok."""

    what: str
    level: Level
    seen: str
    fix: str = ""


def machine(planner: str, device: str) -> Iterator[Check]:
    """Interpreter, packages, GPU, middleware, disk."""
    distro = os.environ.get("ROS_DISTRO", "")
    known = distro in DISTROS
    yield Check("Python, ROS 2", "ok" if known else "warning" if distro else "ERROR",
                f"{platform.python_version()} ({sys.executable}), ROS_DISTRO {distro or 'not set'}"
                + ("" if known else f", expected {', '.join(DISTROS)}"),
                "" if known else "source /opt/ros/<distro>/setup.bash of one of them (without ROS 2: . tools/env.sh)")
    for name, why in (("rclpy", "the nodes"), ("corft_msgs", "the nodes"), ("torch", "policies and training"),
                      ("cv2", "images"), ("pinocchio", "the embedded planner")):
        yield _importable(name, why)
    yield _versions()
    yield _cv_bridge()
    yield _device(device)
    if planner == "moveit" or importlib.util.find_spec("moveit") is not None:
        found = _moveit()
        yield found if planner == "moveit" or found.level == "ok" else Check(
            found.what, "ok", f"{found.seen}; not needed: the planner is {planner}")
    yield _middleware()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Check("disk", "ok" if free_gb > ROOM_GB else "warning", f"{free_gb:.0f} GB free here",
                "" if free_gb > ROOM_GB else "recordings and data sets of 50 demonstrations take some 10 GB")


def _importable(name: str, why: str) -> Check:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken binary raises anything
        return Check(name, "ERROR", f"cannot be imported: {error}",
                     f"needed by {why}. Build the workspace with an environment that has it: make setup, or "
                     "docs/how-to/your-robot.md")
    return Check(name, "ok", str(getattr(module, "__version__", "found")))


def _versions() -> Check:
    found = list(packages())
    lines, advice = differences(found, from_wheels())
    if not lines:
        return Check("versions", "ok", f"{len(found)} packages as pinned" + (
            "" if from_wheels() else f", NumPy {np.__version__} as the ROS installation has it"))
    if sys.prefix == sys.base_prefix:
        advice = f"this Python is the system's; corft's own: make setup, then . tools/env.sh. Or here: {advice}"
    return Check("versions", "warning", "; ".join(lines), advice)


def _cv_bridge() -> Check:
    from corft_core.data.ros_cv_bridge import cv_bridge_trouble

    trouble = cv_bridge_trouble()
    return Check("cv_bridge", "ok", trouble + "; not needed: only encodings such as nv21 go through it" if trouble
                 else "loads")


def _device(device: str) -> Check:
    try:
        import torch
    except Exception as error:
        return Check("GPU", "warning", f"not looked at: torch cannot be imported ({error})", "make setup")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check("GPU", "ok", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, "
                                  f"CUDA {torch.version.cuda}")
    wanted = device.startswith("cuda")
    return Check("GPU", "ERROR" if wanted else "ok", f"none that this torch ({torch.__version__}) can use",
                 "install the driver (nvidia-smi must work) and a torch built for CUDA, or use device:=cpu"
                 if wanted else "")


def _moveit() -> Check:
    """MoveIt in a process of its own: with the wrong NumPy it does not raise, it crashes."""
    from corft_core.planning.interface import PlanningError
    from corft_core.planning.moveit import require_moveit

    try:
        require_moveit()
    except PlanningError as error:
        return Check("moveit_py", "ERROR", str(error), "or use planner:=embedded")
    if trouble := import_trouble("import moveit.planning, moveit.core"):
        newer = int(np.__version__.split(".")[0]) > 1
        return Check("moveit_py", "ERROR", trouble, (
            f"a moveit_py of Ubuntu 24.04 is built for NumPy 1.26: {sys.executable} -m pip install 'numpy<2'" if newer
            else "sudo apt install --reinstall ros-$ROS_DISTRO-moveit-py") + ", or use planner:=embedded")
    return Check("moveit_py", "ok", f"loads with NumPy {np.__version__}")


def _middleware() -> Check:
    rmw = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp (default)")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    seen = f"{rmw}, ROS_DOMAIN_ID {domain}, discovery {reach}"
    if reach in ("OFF", "LOCALHOST"):
        return Check("middleware", "warning", seen,
                     "drivers on other machines are not seen; for them: export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET")
    return Check("middleware", "ok", seen)


def contract_checks(contract: Contract, scene: Path | None) -> Iterator[Check]:
    """Whether the contract fits its robot description: frames, joints, limits, home, workspace."""
    from corft_core.planning import make_planner, resolve_description

    try:
        description = resolve_description(contract.robot.description)
        planner = make_planner("embedded", contract, scene)
    except CorftError as error:
        yield Check("robot description", "ERROR", str(error), "correct robot.description, joints or frames")
        return
    try:
        yield Check("robot description", "ok", f"{contract.robot.description}: {len(contract.robot.joints)} joints, "
                                               f"{len(description.links())} links")
        yield _limits(contract, description)
        yield from _home(contract, planner)
        yield Check("scene", "ok" if planner.scene else "warning",
                    f"{len(planner.scene)} objects" + (f" of {scene}" if scene else ""),
                    "" if planner.scene else "without a scene only the robot itself is avoided: describe the table in "
                    "scene.yaml beside the contract")
    finally:
        planner.close()


def moveit_files(contract: Contract, folder: Path) -> Check:
    """Whether the folder moveit in ``folder`` holds what MoveIt needs for this robot; MoveIt itself isn't asked."""
    from corft_core.planning import resolve_description
    from corft_core.planning.moveit_config import moveit_config

    try:
        moveit_config(contract, folder / "moveit", resolve_description(contract.robot.description))
    except CorftError as error:
        return Check("MoveIt's files", "ERROR", str(error),
                     "copy config/panda_cell/moveit and edit it: docs/how-to/your-robot.md")
    return Check("MoveIt's files", "ok", f"{folder / 'moveit'} fits contract and SRDF")


def _limits(contract: Contract, description: RobotDescription) -> Check:
    """The contract's velocities against the URDF's."""
    above = faster(contract, description)
    return Check("velocity limits", "warning" if above else "ok",
                 "; ".join(above) if above else "within the robot description's",
                 "lower limits.velocity_rad_s" if above else "")


def faster(contract: Contract, description: RobotDescription) -> list[str]:
    """Joints for which the contract allows more velocity than a description."""
    highest = description.velocity_limits(contract.robot.joints)
    return [f"{name} {allowed:g} above {limit:g}" for name, allowed, limit in zip(
        contract.robot.joints, contract.limits.velocity_rad_s, highest, strict=True) if allowed > limit]


def _home(contract: Contract, planner: Any) -> Iterator[Check]:
    home = np.array(contract.robot.home_rad)
    low, high = planner.position_limits
    outside = [name for name, q, lo, hi in zip(contract.robot.joints, home, low, high, strict=True)
               if not lo <= q <= hi]
    touching = planner.in_collision(home)
    if outside or touching:
        seen = "; ".join(([f"{', '.join(outside)} outside its limits"] if outside else [])
                         + [f"{a} touches {b}" for a, b in touching[:3]])
        yield Check("home pose", "ERROR", seen, "correct robot.home_rad, the scene, or the SRDF's allowed pairs "
                                                "(python3 -m corft_core.planning.srdf --help)")
        return
    tool = planner.forward_kinematics(home)[:3, 3]
    inside = bool(np.all(tool >= contract.workspace.min_m) and np.all(tool <= contract.workspace.max_m))
    place = ", ".join(f"{value:.2f}" for value in tool)
    yield Check("home pose", "ok" if inside else "ERROR",
                f"free, {contract.robot.tool_frame} at ({place}) m" + ("" if inside else ", outside the workspace"),
                "" if inside else "correct workspace.min_m and max_m, tool_frame or home_rad")


def checkpoint_checks(folder: str, contract: Contract) -> Iterator[Check]:
    """Whether a checkpoint may drive this robot."""
    try:
        path = checkpoint_folder(folder)
        check_robot(Contract.load(path / "contract.json"), contract, path)
    except CorftError as error:
        yield Check("checkpoint", "ERROR", str(error), "use a checkpoint that was trained with this contract")
        return
    yield Check("checkpoint", "ok", f"{path} fits the contract")
