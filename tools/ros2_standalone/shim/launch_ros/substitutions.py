"""Substitutions that this project's launch files use."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch._core import LaunchContext, SomeSubstitutionsType, Substitution, module_getattr, normalize, perform

__all__ = ["ExecutableInPackage", "FindPackagePrefix", "FindPackageShare"]
__getattr__ = module_getattr(__name__)


class FindPackagePrefix(Substitution):
    """Install prefix of a package; raises PackageNotFoundError."""

    def __init__(self, package: SomeSubstitutionsType) -> None:
        self.package = normalize(package)

    def find(self, package: str) -> str:
        return str(get_package_prefix(package))

    def perform(self, context: LaunchContext) -> str:
        return self.find(perform(context, self.package))

    def describe(self) -> str:
        return f"{type(self).__name__}(pkg=" + " + ".join(part.describe() for part in self.package) + ")"


class FindPackageShare(FindPackagePrefix):
    """Share folder of a package; raises PackageNotFoundError."""

    def find(self, package: str) -> str:
        return str(get_package_share_directory(package))


class ExecutableInPackage(Substitution):
    """Path of an executable of a package; raises LookupError."""

    def __init__(self, executable: SomeSubstitutionsType, package: SomeSubstitutionsType) -> None:
        self.executable, self.package = normalize(executable), normalize(package)

    def perform(self, context: LaunchContext) -> str:
        executable, package = perform(context, self.executable), perform(context, self.package)
        folder = os.path.join(get_package_prefix(package), "lib", package)
        path = os.path.join(folder, executable)
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            raise LookupError(f"executable '{executable}' not found on the libexec directory '{folder}'")
        return path
