"""`ros2 run`, `ros2 pkg`, unknown commands, and the installer's care for a real ROS 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
INSTALLER = TOOLS / "ros2_standalone" / "install.py"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An install prefix with one package and one executable."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    library = tmp_path / "lib/toy"
    for folder in (index, library, tmp_path / "share/toy"):
        folder.mkdir(parents=True)
    (index / "toy").touch()
    (library / "count").write_text('#!/bin/sh\necho "arguments: $@"\nexit 7\n')
    (library / "count").chmod(0o755)
    return tmp_path


def ros2(prefix: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TOOLS), "AMENT_PREFIX_PATH": str(prefix)}
    command = [sys.executable, "-m", "ros2_standalone", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_run_passes_arguments_and_the_exit_code(prefix: Path) -> None:
    result = ros2(prefix, "run", "toy", "count", "--flag", "x", "--ros-args", "-p", "a:=1")
    assert result.returncode == 7
    assert result.stdout == "arguments: --flag x --ros-args -p a:=1\n"


def test_run_names_what_there_is(prefix: Path) -> None:
    result = ros2(prefix, "run", "toy", "nothing")
    assert result.returncode == 1
    assert "has the executables: count" in result.stderr
    result = ros2(prefix, "run", "absent", "count")
    assert result.returncode == 1
    assert "Package 'absent' not found" in result.stderr
    assert "Traceback" not in result.stderr


def test_pkg_tells_prefix_and_executables(prefix: Path) -> None:
    assert ros2(prefix, "pkg", "prefix", "toy").stdout.strip() == str(prefix)
    assert ros2(prefix, "pkg", "prefix", "--share", "toy").stdout.strip() == str(prefix / "share/toy")
    assert ros2(prefix, "pkg", "executables", "toy").stdout == "toy count\n"


@pytest.mark.parametrize("words", [("doctor",), ("bag", "reindex", "x"), ("topic", "bw", "/x")])
def test_other_commands_need_a_ros_installation(prefix: Path, words: tuple[str, ...]) -> None:
    result = ros2(prefix, *words)
    assert result.returncode == 2
    assert "needs a ROS 2 installation" in result.stderr


def test_every_command_in_the_documents_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from ros2_standalone.cli import VERBS

    root = TOOLS.parent
    texts = [re.sub(r"```sh installed\n.*?```", "", path.read_text(), flags=re.DOTALL)  # needs ROS 2, and says so
             for path in (root / "README.md", *(root / "docs").glob("**/*.md")) if path.is_file()]
    used = {match for text in texts for match in re.findall(r"^\s*ros2 ([a-z]+) +([a-z_]+)", text, re.MULTILINE)}
    for verb, word in sorted(used):
        assert verb in VERBS, f"ros2 {verb}"
        subcommands = VERBS[verb][2]
        assert subcommands is None or word in subcommands, f"ros2 {verb} {word}"


def environment_folder(folder: Path) -> tuple[Path, Path]:
    """A virtual environment that is only a folder, and its Python."""
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    return folder, python


def test_installer_writes_a_command_that_works(prefix: Path, tmp_path: Path) -> None:
    venv, python = environment_folder(tmp_path / "venv")
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    for _ in range(2):  # its own command does not stop it
        result = subprocess.run([python, INSTALLER], env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    command = [venv / "bin" / "ros2", "pkg", "executables", "toy"]
    environment["AMENT_PREFIX_PATH"] = str(prefix)
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert shown.stdout == "toy count\n", shown.stderr


def test_installer_refuses_to_hide_a_real_ros2(tmp_path: Path) -> None:
    venv, python = environment_folder(tmp_path / "venv")
    real = tmp_path / "opt" / "ros2"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    environment = {**os.environ, "PATH": f"{real.parent}:/usr/bin:/bin"}
    result = subprocess.run([python, INSTALLER], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert str(real) in result.stderr
    assert not (venv / "bin" / "ros2").exists()
