"""`ros2 launch` without ROS: what a launch file does, seen from outside."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
IMPORTS = """
import sys
from launch import LaunchDescription
from launch.actions import *
from launch.actions import (DeclareLaunchArgument, EmitEvent, ExecuteProcess, GroupAction, IncludeLaunchDescription,
                            LogInfo, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable, TimerAction)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import (AndSubstitution, EnvironmentVariable, EqualsSubstitution, LaunchConfiguration,
                                  PathJoinSubstitution, PythonExpression, ThisLaunchFileDir)
from launch_ros.actions import Node, PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

def say(*words, **options):
    return ExecuteProcess(cmd=["echo", *words], output="screen", **options)
"""
SHOW_PARAMETERS = """
import json, sys, yaml
files = [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "--params-file"]
parameters = {}
for name in files:
    for values in yaml.safe_load(open(name)).values():
        parameters.update(values["ros__parameters"])
remaps = [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "-r"]
print(json.dumps({"parameters": parameters, "remaps": remaps, "arguments": sys.argv[1:]}))
"""


class Launcher:
    """Writes launch files into a folder and runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The rest of the path: this project's launch files read the nodes' parameter tables.
        paths = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": paths, "ROS_LOG_DIR": str(folder / "log")}

    def write(self, *entities: str, name: str = "a.launch.py") -> Path:
        """A launch file with the given entities, as source text."""
        body = "".join(textwrap.indent(entity.strip(), " " * 8) + ",\n" for entity in entities)
        path = self.folder / name
        path.write_text(
            f"{IMPORTS}\ndef generate_launch_description():\n    return LaunchDescription([\n{body}    ])\n"
        )
        return path

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """`ros2 launch ARGUMENTS`, running."""
        command = [sys.executable, "-m", "ros2_standalone", "launch", *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip

    def run(self, *arguments: object) -> tuple[int, str]:
        """Exit code and output of `ros2 launch ARGUMENTS`."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


def said(output: str) -> list[str]:
    """What the processes printed, in order, without their prefix."""
    return re.findall(r"^\[echo-\d+\] (.*)$", output, re.MULTILINE)


def test_arguments_conditions_and_includes(launcher: Launcher) -> None:
    launcher.write(
        'DeclareLaunchArgument("who")',
        'say("hello", LaunchConfiguration("who"))',
        name="inner.launch.py",
    )
    path = launcher.write(
        'DeclareLaunchArgument("flag", default_value="true", choices=["true", "false"], description="A flag.")',
        'DeclareLaunchArgument("side", default_value=["le", "ft"])',
        'say("on", condition=IfCondition(LaunchConfiguration("flag")))',
        'say("off", condition=UnlessCondition(LaunchConfiguration("flag")))',
        'say("both", condition=IfCondition(AndSubstitution(LaunchConfiguration("flag"),'
        ' EqualsSubstitution(LaunchConfiguration("side"), "right"))))',
        """IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "inner.launch.py"]),
           launch_arguments={"who": LaunchConfiguration("side")}.items())""",
        'GroupAction([SetEnvironmentVariable("COLOUR", "red"), say(EnvironmentVariable("COLOUR"))])',
        'say(EnvironmentVariable("COLOUR", default_value="none"))',
        'OpaqueFunction(function=lambda context: [say(str(len(LaunchConfiguration("side").perform(context))))])',
        'say(PythonExpression(["2 * ", "21"]))',
    )
    code, output = launcher.run(path)
    assert code == 0, output
    assert sorted(said(output)) == sorted(["on", "hello left", "red", "none", "4", "42"])
    code, output = launcher.run(path, "flag:=false", "side:=right")
    assert sorted(said(output)) == sorted(["off", "hello right", "red", "none", "5", "42"])
    code, output = launcher.run(path, "flag:=maybe")
    assert code == 1
    assert "Valid options are: ['true', 'false']" in output
    code, output = launcher.run(launcher.folder / "inner.launch.py")
    assert code == 1
    assert "Required launch argument 'who'" in output


def test_show_args_lists_arguments_of_included_files_without_running_anything(launcher: Launcher) -> None:
    inner = launcher.write(
        'DeclareLaunchArgument("depth", default_value="3", description="How deep.")', name="i.launch.py"
    )
    path = launcher.write(
        'DeclareLaunchArgument("flag", default_value="true", description="A flag.", choices=["true", "false"])',
        'DeclareLaunchArgument("must", description="Has no default.")',
        f'IncludeLaunchDescription("{inner}", condition=IfCondition("true"))',
        'say("not run")',
    )
    code, output = launcher.run(path, "--show-args")
    assert code == 0, output
    assert "'flag':\n        A flag. Valid choices are: ['true', 'false']\n        (default: 'true')" in output
    assert "'must':\n        Has no default.\n" in output
    assert "'depth':*\n        How deep.\n        (default: '3')" in output
    assert "not run" not in output


@pytest.mark.parametrize("path", sorted((TOOLS.parent / "launch").glob("*.launch.py")), ids=lambda path: path.name)
def test_the_launch_files_of_this_project_show_described_arguments(launcher: Launcher, path: Path) -> None:
    code, output = launcher.run(path, "--show-args")
    assert code == 0, output
    assert output.startswith("Arguments (pass arguments as '<name>:=<value>'):")
    assert "no description given" not in output


def test_node_turns_names_parameters_and_remappings_into_ros_arguments(launcher: Launcher) -> None:
    script = launcher.folder / "show.py"
    script.write_text(SHOW_PARAMETERS)
    shared = launcher.folder / "shared.yaml"
    shared.write_text("/**:\n  ros__parameters:\n    rate: 5.0\n    from_file: yes it is\n")
    node = f'executable=sys.executable, arguments=["{script}", "--word"], output="screen"'
    path = launcher.write(
        'DeclareLaunchArgument("n", default_value="7")',
        f"""GroupAction([
            PushRosNamespace("left"), SetParameter("use_sim_time", True),
            Node({node}, name="one", namespace="arm", remappings=[("a", "b")], parameters=[
                "{shared}",
                {{"rate": 9.0, "nested": {{"deep": [1, 2]}}, "text": "12", "typed": LaunchConfiguration("n"),
                  "as_text": ParameterValue(LaunchConfiguration("n"), value_type=str),
                  "as_float": ParameterValue(LaunchConfiguration("n"), value_type=float),
                  "use_sim_time": False}}]),
            Node({node}, namespace="/absolute"),
        ])""",
        f'Node({node}, name="outside")',
    )
    code, output = launcher.run(path)
    assert code == 0, output
    shown = {}
    for line in output.splitlines():
        if match := re.match(r"\[python[\d.]*-(\d)\] (\{.*)", line):
            shown[match[1]] = json.loads(match[2])
    one, absolute, outside = shown["1"], shown["2"], shown["3"]
    assert one["remaps"] == ["__node:=one", "__ns:=/left/arm", "a:=b"]
    assert one["arguments"][:2] == ["--word", "--ros-args"]
    assert one["parameters"] == {
        "use_sim_time": False, "rate": 9.0, "from_file": "yes it is", "nested.deep": [1, 2], "text": "12", "typed": 7,
        "as_text": "7", "as_float": 7.0,
    }  # fmt: skip
    assert absolute["remaps"] == ["__ns:=/absolute"]
    assert absolute["parameters"] == {"use_sim_time": True}
    assert outside["remaps"] == ["__node:=outside"]
    assert outside["parameters"] == {}


def test_respawn_and_exit_handlers(launcher: Launcher) -> None:
    path = launcher.write(
        """ExecuteProcess(cmd=["sh", "-c", "echo again; exit 3"], output="screen", respawn=True, respawn_delay=0.05,
                          respawn_max_retries=2, on_exit=[LogInfo(msg="it ended")])""",
    )
    code, output = launcher.run(path)
    assert code == 0
    assert output.count("] again") == 3
    assert output.count("it ended") == 3
    assert "process has died" in output
    assert "exit code 3" in output


def test_a_shutdown_event_stops_the_others(launcher: Launcher) -> None:
    path = launcher.write(
        'RegisterEventHandler(OnProcessExit(target_action=(worker := say("done")),'
        ' on_exit=[EmitEvent(event=Shutdown(reason="work is done"))]))',
        'ExecuteProcess(cmd=["sleep", "100"])',
        "worker",
        'TimerAction(period=100.0, actions=[LogInfo(msg="too late")])',
    )
    code, output = launcher.run(path)
    assert code == 0, output
    assert "sending signal 'SIGINT' to process[sleep-1]" in output
    assert "too late" not in output


def test_sigint_reaches_the_processes_and_the_stubborn_are_killed(launcher: Launcher) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    path = launcher.write(
        """ExecuteProcess(cmd=[sys.executable, "-u", "-c",
           "import time\\ntry:\\n  print('ready'); time.sleep(100)\\nexcept KeyboardInterrupt: print('bye')"],
           output="screen", respawn=True)""",
        f"""ExecuteProcess(cmd=[sys.executable, "-u", "-c", {stubborn + "print('ready'); time.sleep(100)"!r}],
           output="screen", sigterm_timeout="0.2", sigkill_timeout="0.2")""",
        f"""ExecuteProcess(cmd=[sys.executable, "-u", "-c",
           {stubborn + "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(100)"!r}],
           output="screen", sigterm_timeout="0.2", sigkill_timeout="0.2")""",
    )
    process = launcher.start("--noninteractive", path)
    assert process.stdout is not None
    lines, deadline = [], time.monotonic() + 60
    while sum("] ready" in line for line in lines) < 3 and time.monotonic() < deadline:
        lines.append(process.stdout.readline())
    pids = [int(match[1]) for line in lines if (match := re.search(r"started with pid \[(\d+)\]", line))]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "] bye" in output
    assert "receiving 'SIGINT', escalating to 'SIGTERM'" in output
    assert "receiving 'SIGTERM', escalating to 'SIGKILL'" in output
    assert "started with pid" not in output  # no respawn once stopping
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from launch.actions import ResetEnvironment", "launch.actions.ResetEnvironment"),
        ("from launch.substitutions import Command", "launch.substitutions.Command"),
        ("from launch_ros.actions import ComposableNodeContainer", "launch_ros.actions.ComposableNodeContainer"),
        ("import launch_ros.descriptions", "launch_ros.descriptions"),
        ("from launch_xml.launch_description_sources import XMLLaunchDescriptionSource", "launch_xml"),
        ("GroupAction([], forwarding=False)", "forwarding=False"),
        ("LaunchDescription([], deprecated_reason='x')", "deprecated_reason"),
        ("say('x', sigquit_timeout='1')", "sigquit_timeout"),
    ],
)
def test_names_of_the_real_packages_are_refused(launcher: Launcher, source: str, name: str) -> None:
    path = launcher.write()
    path.write_text(path.read_text() + "\n" + source)
    code, output = launcher.run(path)
    assert code == 1
    assert "needs a ROS 2 installation" in output
    assert name in output


@pytest.mark.skipif(importlib.util.find_spec("launch_ros") is not None, reason="a real launch_ros is installed")
def test_the_stand_ins_stay_inside_ros2_launch() -> None:
    code = "import ros2_standalone.cli, ros2_standalone.launcher\nimport launch_ros"
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "No module named 'launch_ros'" in result.stderr


def test_an_error_in_a_launch_file_is_shown_and_ends_with_1(launcher: Launcher) -> None:
    path = launcher.write('say(LaunchConfiguration("nowhere"))')
    code, output = launcher.run(path)
    assert code == 1
    assert "launch configuration 'nowhere' does not exist" in output
    broken = launcher.write(name="broken.launch.py")
    broken.write_text("\nraise KeyError('gripper')\n")
    for options in ((), ("--show-args",)):
        code, output = launcher.run(broken, *options)
        assert code == 1
        assert "broken.launch.py:2: KeyError: 'gripper'" in output
        assert "Traceback" not in output
    code, output = launcher.run(launcher.folder / "missing.launch.py")
    assert code == 1
    assert "is not a file" in output
    code, output = launcher.run(path, "word")
    assert code == 1
    assert "malformed launch argument 'word'" in output


def test_an_error_behind_a_started_process_ends_the_launch_without_it(launcher: Launcher) -> None:
    path = launcher.write('ExecuteProcess(cmd=["sleep", "60"], output="screen")',
                          'OpaqueFunction(function=lambda context: 1 / 0)')
    code, output = launcher.run(path)
    assert code == 1
    assert "division by zero" in output and "process started" not in output
