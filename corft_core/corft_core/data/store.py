"""Writing a data set in one step: all of it appears, checked, or nothing does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corft_core.contract import Contract
from corft_core.data.dataset_check import check_dataset
from corft_core.data.episode import Episode
from corft_core.data.lerobot_writer import LeRobotWriter
from corft_core.errors import CorftError
from corft_core.files import FULL_DISK, atomic_folder

logger = logging.getLogger(__name__)


class WriteError(CorftError):
    """The data set could not be written."""


def write_dataset(folder: str | Path, episodes: Iterable[Episode], contract: Contract, *, overwrite: bool = False,
                  source: dict[str, Any] | None = None, report: Callable[[], dict[str, Any]] | None = None,
                  codec: str | None = None) -> dict[str, Any]:
    """Write ``episodes`` as LeRobot v3 into ``folder``, reopen and check it; returns the check's counts.

    The folder appears only when everything is right: a temporary sibling is filled, checked and renamed.
    ``source`` goes to meta/corft/source.json, ``report()`` (asked after the last episode) to meta/corft/report.json.
    Raises WriteError when the folder exists (unless ``overwrite``), when there is no episode or no disk space.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise WriteError(f"{folder} exists already. Choose another folder or add --overwrite to replace it.")
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not (folder / "meta/info.json").exists():
        raise WriteError(f"{folder} exists and is not a data set, it will not be overwritten. Choose another folder.")
    with _disk_errors(folder), atomic_folder(folder, overwrite) as temporary:
        writer = LeRobotWriter(temporary, contract, codec)
        try:
            for episode in episodes:
                writer.add(episode)
            if writer.episodes == 0:
                raise WriteError("there is no episode to write")
            writer.finish(source or {}, report() if report is not None else None)
        except BaseException:
            writer.abort()
            raise
        return check_dataset(temporary)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, as Python, Arrow and FFmpeg report it, into one message."""
    from av.error import FFmpegError

    try:
        yield
    except (OSError, FFmpegError) as error:
        if error.errno not in FULL_DISK:
            raise
        raise WriteError(f"no space left to write {folder} ({error.strerror}); nothing was left behind. "
                         "Free some space or choose a folder on another disk, then run the same command again."
                         ) from error
