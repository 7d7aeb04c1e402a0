"""Launch files as sources of launch descriptions (Python files only)."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import traceback

from ._core import LaunchContext, LaunchDescription, SomeSubstitutionsType, module_getattr, normalize, perform, refuse

__all__ = ["AnyLaunchDescriptionSource", "LaunchDescriptionSource", "PythonLaunchDescriptionSource"]
__getattr__ = module_getattr(__name__)


class LaunchDescriptionSource:
    """Loads `generate_launch_description()` of a Python launch file, once."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        self._path = normalize(launch_file_path)
        self._description: LaunchDescription | None = None
        self.location = ""

    def get_launch_description(self, context: LaunchContext) -> LaunchDescription:
        """The description; raises RuntimeError for a missing or invalid file."""
        if self._description is None:
            self.location = os.path.abspath(perform(context, self._path))
            self._description = load_launch_file(self.location)
        return self._description


class PythonLaunchDescriptionSource(LaunchDescriptionSource):
    """A Python launch file."""


class AnyLaunchDescriptionSource(LaunchDescriptionSource):
    """A launch file of any kind; only Python files are supported here."""


def load_launch_file(path: str) -> LaunchDescription:
    """Run a Python launch file and return its description."""
    if not path.endswith(".py"):
        refuse(f"a launch file that is not Python ({os.path.basename(path)})")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"launch file '{path}' does not exist")
    loader = importlib.machinery.SourceFileLoader("python_launch_file", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
        description = module.generate_launch_description()
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{path}:{lines[-1]}" if lines else path
        raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(description, LaunchDescription):
        raise RuntimeError(
            f"generate_launch_description() of '{path}' returned {description!r}, not a LaunchDescription"
        )
    return description
