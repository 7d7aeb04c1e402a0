"""Writing a data set in one step: all of it appears, checked, or nothing does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corft_core.contract import Contract
from corft_core.data.dataset_check import check_dataset
from corft_core.data.episode import Episode
from corft_core.data.lerobot_writer import LeRobotWriter
from corft_core.data.parts import PartWriter, part_episodes
from corft_core.errors import CorftError
from corft_core.files import FULL_DISK, atomic_folder

EXIT_NO_SPACE = 3


class WriteError(CorftError):
    """The data set could not be written."""


class NoSpaceError(WriteError):
    """The disk is full."""

    exit_code = EXIT_NO_SPACE


@contextmanager
def new_dataset(folder: str | Path, overwrite: bool = False, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder to write a data set into. At the end it is checked and becomes ``folder``.

    ``within``: where the temporary folder lies, on the same disk (default: beside ``folder``).
    Raises WriteError when the folder exists (unless ``overwrite``) or the disk is full, and what check_dataset raises;
    ``folder`` is then left as it was.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    kept = "nothing was left behind" if within is None else f"what was finished is kept in {within}"
    with disk_errors(folder, kept), atomic_folder(folder, overwrite, within) as temporary:
        yield temporary
        check_dataset(temporary)


def check_target(folder: Path, overwrite: bool) -> None:
    """Raise WriteError when ``folder`` may not be written."""
    if folder.exists() and not overwrite:
        raise WriteError(f"{folder} exists already. Choose another folder or add --overwrite to replace it.")
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not (folder / "meta/info.json").exists():
        raise WriteError(f"{folder} exists and is not a data set, it will not be overwritten. Choose another folder.")


def write_dataset(folder: str | Path, episodes: Iterable[Episode], contract: Contract, *, overwrite: bool = False,
                  source: dict[str, Any] | None = None, report: Callable[[], dict[str, Any]] | None = None,
                  codec: str | None = None, data_file_bytes: int | None = None,
                  video_file_bytes: int | None = None) -> dict[str, int]:
    """Write ``episodes`` as LeRobot v3 into ``folder``, reopen and check it; returns counts of episodes and frames.

    ``source`` goes to meta/corft/source.json, ``report()`` (asked after the last episode) to meta/corft/report.json.
    Raises WriteError when the folder exists (unless ``overwrite``), when there is no episode or no disk space.
    """
    with new_dataset(folder, overwrite) as temporary:
        parts = temporary / ".parts"
        with PartWriter(parts / "all", contract, codec) as part:
            for episode in episodes:
                part.write(episode)
            part.finish()
        counts = join_parts(temporary, [parts / "all"], contract, source or {}, report() if report else None,
                            data_file_bytes=data_file_bytes, video_file_bytes=video_file_bytes)
        shutil.rmtree(parts)
    return counts


def join_parts(root: Path, parts: Iterable[Path], contract: Contract, source: dict[str, Any],
               report: dict[str, Any] | None, **limits: int | None) -> dict[str, int]:
    """Write the episodes of ``parts`` in their order as a data set into ``root``, without encoding again."""
    writer, frames = LeRobotWriter(root, contract, **limits), 0
    try:
        for part in parts:
            for episode in part_episodes(part):
                writer.add(episode)
                frames += len(episode)
        if writer.episodes == 0:
            raise WriteError("there is no episode to write")
        writer.finish(source, report)
    except BaseException:
        writer.abort()
        raise
    return {"episodes": writer.episodes, "frames": frames}


@contextmanager
def disk_errors(folder: Path, kept: str = "nothing was left behind") -> Iterator[None]:
    """Turn a full disk, as Python, Arrow and FFmpeg report it, into one message; ``kept``: what is left behind."""
    from av.error import FFmpegError

    try:
        yield
    except (OSError, FFmpegError) as error:
        if error.errno not in FULL_DISK:
            raise
        raise NoSpaceError(f"no space left to write {folder} ({error.strerror}); {kept}. "
                           "Free some space or choose a folder on another disk, then run the same command again."
                           ) from error
