"""Files of ROS packages by their ``package://`` URI."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from corft_core.planning.interface import PlanningError


def share_folder(package: str) -> Path | None:
    """Share folder of a ROS package on AMENT_PREFIX_PATH."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    return next((prefix / "share" / package for prefix in prefixes if (prefix / "share" / package).is_dir()), None)


def located(uri: str, locate: Callable[[str], Path | None] = share_folder) -> Path:
    """File of ``package://<package>/<path>``. Raises PlanningError when ``locate`` doesn't know the package."""
    package, _, rest = uri.removeprefix("package://").partition("/")
    folder = locate(package)
    if folder is None:
        raise PlanningError(f"the package {package} of {uri} is neither a folder above the file that names it nor on "
                            "AMENT_PREFIX_PATH: source the workspace that has it")
    return folder / rest
