"""`ros2 launch`: the launch files of this project, run by the stand-ins in `shim/`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from .packages import UsageError, extend_ament_prefix_path, package_share

SHIM = Path(__file__).parent / "shim"
ROS_ONLY = ("launch", "launch_ros", "launch_param_builder", "launch_testing", "launch_xml", "launch_yaml",
            "moveit_configs_utils", "nav2_common", "xacro")  # fmt: skip


class _Refusal(MetaPathFinder):
    """Last finder: says why a module of the real packages is missing."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.split(".")[0] in ROS_ONLY:
            raise ModuleNotFoundError(
                f"the module '{fullname}' needs a ROS 2 installation: tools/ros2_standalone offers only the part of "
                "launch and launch_ros that this project's launch files use",
                name=fullname,
            )


def offer_shim() -> None:
    """Put the stand-ins for launch and launch_ros on this process's path."""
    sys.path.insert(0, str(SHIM))
    sys.meta_path.append(_Refusal())
    extend_ament_prefix_path()


def find_launch_file(package: str, name: str) -> Path:
    """A launch file anywhere in a package's share folder; raises UsageError."""
    share = package_share(package)
    found = sorted(Path(folder) / name for folder, _, files in os.walk(share) if name in files)
    if not found:
        raise UsageError(
            f"file '{name}' was not found in the share directory of package '{package}' which is at '{share}'"
        )
    if len(found) > 1:
        raise UsageError(
            f"file '{name}' was found more than once in the share directory of package '{package}': {found}"
        )
    return found[0]


def parse_arguments(words: list[str]) -> list[tuple[str, str]]:
    """`name:=value` words; the last of a name wins. Raises UsageError."""
    parsed: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise UsageError(f"malformed launch argument '{word}', expected format '<name>:=<value>'")
        parsed[name] = value
    return list(parsed.items())


def show_arguments(description: Any) -> None:
    """Print the declared arguments, those of included files too."""
    declares = importlib.import_module("launch.actions").DeclareLaunchArgument
    declared: dict[str, tuple[Any, bool]] = {}

    def collect(entity: Any, conditional: bool) -> None:
        conditional = conditional or getattr(entity, "condition", None) is not None
        if isinstance(entity, declares):
            declared.setdefault(entity.name, (entity, conditional))
        for child in entity.describe_sub_entities():
            collect(child, conditional)

    collect(description, False)
    print("Arguments (pass arguments as '<name>:=<value>'):")
    for name, (argument, conditional) in declared.items():
        print(f"\n    '{name}':{'*' if conditional else ''}\n        {argument.description}")
        if argument.default_value is not None:
            text = " + ".join(part.describe() for part in argument.default_value) or "''"
            print(f"        (default: {text})")
    if not declared:
        print("\n  No arguments.")
    if any(conditional for _, conditional in declared.values()):
        print("\n* argument(s) which are only used if specific conditions occur")


def main(argv: list[str]) -> int:
    """`ros2 launch PACKAGE FILE [name:=value …]` or `ros2 launch PATH [name:=value …]`."""
    parser = argparse.ArgumentParser(prog="ros2 launch", description="Run a launch file")
    parser.add_argument(
        "package_name", help="Name of the ROS package which contains the launch file, or path of a file"
    )
    parser.add_argument("launch_file_name", nargs="?", help="Name of the launch file")
    parser.add_argument("launch_arguments", nargs="*", help="Arguments to the launch file; '<name>:=<value>'")
    parser.add_argument("-n", "--noninteractive", action="store_true", help="Run with no terminal associated")
    parser.add_argument("-d", "--debug", action="store_true", help="Show the traceback of an error")
    parser.add_argument("-s", "--show-args", "--show-arguments", action="store_true", help="Show arguments of the file")
    parser.add_argument(
        "-a", "--show-all-subprocesses-output", action="store_true", help="Show all output on the screen"
    )
    args = parser.parse_intermixed_args(argv)
    offer_shim()
    words = ([args.launch_file_name] if args.launch_file_name else []) + args.launch_arguments
    if os.path.isfile(args.package_name):
        path = Path(args.package_name)
    elif args.launch_file_name is None or ":=" in args.launch_file_name:
        raise UsageError(f"'{args.package_name}' is not a file, and no launch file of a package by this name is given")
    else:
        path, words = find_launch_file(args.package_name, args.launch_file_name), args.launch_arguments
    if args.show_all_subprocesses_output:
        os.environ["OVERRIDE_LAUNCH_PROCESS_OUTPUT"] = "both"

    # by name, not `import`: a type checker would take the repository's folder launch/ for the module
    launch = importlib.import_module("launch")
    source = launch.launch_description_sources.PythonLaunchDescriptionSource(str(path))
    if args.show_args:
        try:
            show_arguments(source.get_launch_description(launch.LaunchContext()))
        except (RuntimeError, OSError) as error:
            raise UsageError(str(error)) from error
        return 0
    include = launch.actions.IncludeLaunchDescription(source, launch_arguments=parse_arguments(words))
    service = launch.LaunchService(argv=words, debug=args.debug, noninteractive=args.noninteractive)
    service.include_launch_description(launch.LaunchDescription([include]))
    return int(service.run())
