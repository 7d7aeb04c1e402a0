"""The packages that are installed beside those that corft is tested with, requirements/base.txt."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

# Packages of a ROS installation, found first by PYTHONPATH, may hide these, whose modules are called otherwise.
MODULES = {"pin": "pinocchio", "opencv-python-headless": "cv2"}


@dataclass(frozen=True)
class Package:
    """One that is pinned: for what, to which version, which is there (empty: none), and which file hides that."""

    name: str
    purpose: str
    pinned: str
    version: str
    hidden_by: str = ""


def packages() -> Iterator[Package]:
    """Every package of requirements/base.txt, which is installed with corft_core."""
    for line in (resources.files("corft_core") / "requirements.txt").read_text().splitlines():
        requirement, _, purpose = line.partition("#")
        name, equals, pinned = requirement.strip().partition("==")
        if equals:
            yield Package(name, purpose.strip(), pinned, *_found(name))


def _found(name: str) -> tuple[str, str]:
    """The version that is imported, and its file where it is not the installed one; without local parts."""
    try:
        version = metadata.version(name).split("+")[0]  # 2.13.0+cpu
    except metadata.PackageNotFoundError:
        version = ""
    module = sys.modules.get(MODULES.get(name, name))
    loaded = str(getattr(module, "__version__", version)).split("+")[0]
    return (version, "") if version.startswith(loaded) else (loaded, str(getattr(module, "__file__", "")))


def from_wheels() -> bool:
    """Whether ROS 2 comes as wheels."""
    return any(metadata.distributions(name="ros-rclpy"))


def differences(found: Sequence[Package], wheels: bool) -> tuple[list[str], str]:
    """What is not as pinned, in words, and what to type.

    A ROS installation brings the NumPy that its own binaries were built for: it is not compared, and pip must not
    follow the other packages' wish for a newer one, as in tools/setup_env.py.
    """
    other = [package for package in found if package.version != package.pinned and (wheels or package.name != "numpy")]
    lines, advice = [], []
    for package in other:
        where = f" of {package.hidden_by}" if package.hidden_by else ""
        lines.append(f"{package.name} {package.version}{where} instead of {package.pinned}" if package.version
                     else f"{package.name} {package.pinned} is missing ({package.purpose})")
    wanted = [package for package in other if not package.hidden_by]
    for group, options in (([p for p in wanted if wheels or p.name == "torch"], ""),
                           ([p for p in wanted if not wheels and p.name != "torch"], " --no-deps")):
        if group:
            names = " ".join(f"{package.name}=={package.pinned}" for package in group)
            advice.append(f"{sys.executable} -m pip install{options} {names}")
    advice += [f"export PYTHONPATH={_folder(package.name)}:$PYTHONPATH" for package in other if package.hidden_by]
    return lines, " && ".join(advice)


def _folder(name: str) -> str:
    """Where the installed package's modules lie."""
    end = f"{MODULES.get(name, name)}/__init__.py"
    files = [Path(file.locate()) for file in metadata.files(name) or () if str(file).endswith(end)]
    return str(files[0].parent.parent) if files else "<folder of the installed package>"
