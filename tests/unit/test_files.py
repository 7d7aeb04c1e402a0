"""Writes are whole or absent."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from corft_core import files


def test_a_failed_block_leaves_the_old_folder_and_no_temporary(tmp_path):
    target = tmp_path / "data"
    with files.atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_folder(target, overwrite=True) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old" and os.listdir(tmp_path) == ["data"]


def test_overwriting_replaces_the_whole_folder(tmp_path):
    target = tmp_path / "data"
    for name in ("a", "b"):
        with files.atomic_folder(target, overwrite=True) as folder:
            (folder / name).write_text(name)
    assert os.listdir(target) == ["b"] and os.listdir(tmp_path) == ["data"]


def test_an_existing_folder_is_refused_without_overwrite(tmp_path):
    with pytest.raises(FileExistsError), files.atomic_folder(tmp_path):
        pass


def test_a_full_disk_ends_with_status_2_and_leaves_nothing(tmp_path):
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from corft_core import cli, files\n"
        "sys.exit(cli.run_main(lambda: files.write_bytes(sys.argv[1], b'x' * 5000)))\n")
    assert hasattr(resource, "RLIMIT_FSIZE")
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out.bin")], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert result.returncode == 2 and "no space left" in result.stderr and not list(tmp_path.iterdir())
