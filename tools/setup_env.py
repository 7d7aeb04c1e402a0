"""Make ``.venv`` and build the workspace, once; a second call with nothing changed returns at once.

Works in two worlds. With a sourced ROS 2 installation (``ros2`` on the PATH) the environment sees the system's
packages and only what ROS lacks is installed. Without one, ROS 2 comes as wheels and ``tools/ros2_standalone``
provides the ``ros2`` command. Needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"
STAMP = "corft-environment"
SOURCES = ("ros2_ws/src", "corft_core", "launch")


def has_ros() -> bool:
    """True where a ROS 2 installation is sourced; the ``ros2`` of an environment made by this file is none."""
    found = shutil.which("ros2")
    if found is None:
        return False
    prefix = Path(found).parent.parent
    return prefix != VENV and not (prefix / STAMP).exists()


def check_system() -> None:
    """Name every missing system part and its package before anything is installed."""
    missing = []
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may well run this file
        missing.append(f"Python >= 3.11, this is {sys.version.split()[0]} (Debian/Ubuntu: python3)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python headers (Debian/Ubuntu: python3-dev)")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append("venv (Debian/Ubuntu: python3-venv)")
    for program, package in (("g++", "g++"), ("cmake", "cmake"), ("make", "make"), ("git", "git")):
        if shutil.which(program) is None:
            missing.append(f"{program} (Debian/Ubuntu: {package})")
    if not (ctypes.util.find_library("EGL") or ctypes.util.find_library("OSMesa")):
        missing.append("EGL or OSMesa for rendering (Debian/Ubuntu: libegl1 libgl1 libgl1-mesa-dri)")
    if missing:
        sys.exit("Missing system parts:\n  - " + "\n  - ".join(missing)
                 + "\nInstall them, for example with `sudo apt-get install <packages>`, and run the command again.")


def run(command: list[str], **kwargs: object) -> None:
    """Run a command, stop with its status when it fails."""
    result = subprocess.run(command, cwd=ROOT, check=False, **kwargs)  # type: ignore[call-overload]
    if result.returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed with status {result.returncode}; its output above says why.")


def fingerprint(paths: list[Path], salt: str) -> str:
    """Hash of the contents of files and folders."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def up_to_date(stamp: Path, value: str) -> bool:
    """True when the stamp file holds ``value``."""
    return stamp.exists() and stamp.read_text() == value


def install_packages(ros: bool) -> None:
    """Create ``.venv`` and install pinned packages, unless that was done for the same requirements."""
    files = sorted(REQUIREMENTS.glob("*.txt"))
    value = fingerprint([*files, Path(__file__).resolve()], f"{ros} {sys.version}")
    stamp = VENV / STAMP
    if up_to_date(stamp, value):
        return
    settings = VENV / "pyvenv.cfg"
    sees_system = settings.exists() and "include-system-site-packages = true" in settings.read_text()
    if not (VENV / "bin" / "python").exists() or sees_system != ros:
        print("Creating .venv", flush=True)
        run([sys.executable, "-m", "venv", "--clear", *(["--system-site-packages"] if ros else []), str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    print("Installing packages into .venv (a few minutes the first time)", flush=True)
    if ros:
        # torch brings what its build for this machine needs. The rest is listed whole, so that NumPy can stay the one
        # that the distribution's binaries were built for, also where a wheel's metadata asks for a newer one.
        run([*pip, "-q", *(line for line in lines_of("base.txt") if line.startswith("torch=="))])
        run([*pip, "-q", "--no-deps", "-r", str(ros_requirements())])
    else:
        names = ("base.txt", "ros_wheels.txt", "build.txt", "dev.txt", "evidence.txt")
        run([*pip, "-q", "-c", str(REQUIREMENTS / "lock.txt"),
             *(part for name in names for part in ("-r", str(REQUIREMENTS / name)))])
        relocate_cmake_files()
        run([str(VENV / "bin" / "python"), "tools/ros2_standalone/install.py"])
    stamp.write_text(value)


def lines_of(name: str) -> list[str]:
    """Requirement lines of a file, without comments."""
    lines = (line.split("#")[0].strip() for line in (REQUIREMENTS / name).read_text().splitlines())
    return [line for line in lines if line]


def ros_requirements() -> Path:
    """The lock file without what a ROS installation brings: ROS itself, colcon, NumPy."""
    from_ros: tuple[str, ...] = ("ros-", "torch==", "catkin-pkg", "empy", "lark")
    if shutil.which("colcon") is not None and system_has("colcon_core"):
        from_ros += ("colcon-", "setuptools")
    if system_has("numpy"):
        from_ros += ("numpy==",)
    path = VENV / "requirements.txt"
    path.write_text("\n".join(line for line in lines_of("lock.txt") if not line.startswith(from_ros)) + "\n")
    return path


def system_has(module: str) -> bool:
    """Whether ``.venv`` sees a module that is not its own. (A program on the PATH may be another environment's.)"""
    found = subprocess.run([str(VENV / "bin" / "python"), "-c", f"import {module}; print({module}.__file__)"],
                           capture_output=True, text=True, check=False)
    return found.returncode == 0 and not Path(found.stdout.strip()).is_relative_to(VENV)


def relocate_cmake_files() -> None:
    """Point the ROS wheels' CMake files, which hold paths of the machine that built them, at this interpreter."""
    site = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    built = f"/opt/python/{tag}-{tag}"
    for file in (VENV / "share").rglob("*.cmake"):
        text = file.read_text()
        moved = (text.replace(f"{built}/include/{version}", sysconfig.get_path("include"))
                 .replace(f"{built}/lib/{version}/site-packages", str(site)))
        if moved != text:
            file.write_text(moved)


def build(ros: bool) -> None:
    """``colcon build`` the workspace when a source changed since the last build."""
    value = fingerprint([ROOT / name for name in SOURCES] + [ROOT / "colcon.meta"], str(ros))
    stamp = ROOT / "install" / "corft-sources"
    if up_to_date(stamp, value):
        return
    environment = dict(os.environ)
    environment["PATH"] = f"{VENV / 'bin'}:{environment['PATH']}"
    arguments = ["build", "--base-paths", "ros2_ws/src", "corft_core", "--event-handlers", "console_direct-",
                 "--cmake-args", f"-DPython3_EXECUTABLE={VENV / 'bin' / 'python'}"]
    if not ros:
        environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(VENV)
        environment["LD_LIBRARY_PATH"] = f"{VENV / 'lib'}:{environment.get('LD_LIBRARY_PATH', '')}"
        for name in ("PYTHONPATH", "COLCON_PREFIX_PATH"):
            environment.pop(name, None)
    colcon = shutil.which("colcon", path=environment["PATH"])
    if colcon is None:
        sys.exit("colcon is not on the PATH; install python3-colcon-common-extensions and run the command again.")
    # Console scripts get the interpreter that runs colcon, so colcon runs in the environment that has torch.
    run([str(VENV / "bin" / "python"), colcon, *arguments], env=environment)
    stamp.write_text(value)


def main() -> None:
    """Set up and build; `tools/env.sh` then gives a shell that has everything."""
    ros = has_ros()
    if not (VENV / STAMP).exists():
        check_system()
    install_packages(ros)
    build(ros)


if __name__ == "__main__":
    main()
