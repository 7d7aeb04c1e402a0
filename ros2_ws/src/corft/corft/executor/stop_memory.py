"""Stops that nobody has answered yet, in a file: they outlive a process that crashed or was killed. No ROS in here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from corft_core import files
from corft_core.errors import CorftError


def stop_file(node_name: str, domain: int) -> Path:
    """Where the stops of a node (its full name) are kept: `$ROS_HOME/corft/stops/`, by default in `~/.ros`."""
    home = Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser()
    return home / "corft" / "stops" / f"{domain}{node_name.replace('/', '.')}.json"


class StopMemory:
    """``waiting``: by who gave it, a sentence on every stop that waits for a person. Empty: there is no file.

    A file that can't be understood is a stop. A disk that fails later stops nobody: ``failed`` gets a sentence, and
    :meth:`poll` tries again. Raises CorftError where nothing can be kept from the start.
    """

    def __init__(self, file: Path, failed: Callable[[str], object]) -> None:
        self._file, self._failed = file, failed
        self.waiting = self._read()
        self._written: dict[str, str] = {}
        try:
            files.write_json(file, self.waiting)
            self._write()
        except OSError as error:
            raise CorftError(f"an emergency stop could not be kept for the next start: {error}; set ROS_HOME to a "
                             "folder that can be written") from error

    def keep(self, source: str, sentence: str) -> None:
        """What ``source`` waits for; empty: it was answered."""
        if sentence:
            self.waiting[source] = sentence
        else:
            self.waiting.pop(source, None)
        self.poll()

    def poll(self) -> None:
        """To be called regularly: writes what could not be written before."""
        if self.waiting != self._written:
            try:
                self._write()
            except OSError as error:
                self._failed(f"after a crash this would be forgotten, it could not be written: {self.waiting}: {error}")

    def forget(self) -> None:
        """The process ends because a person ended it (Ctrl-C, also of its launch): who starts it again begins anew."""
        self.waiting.clear()
        self.poll()

    def _write(self) -> None:
        if self.waiting:
            files.write_json(self._file, self.waiting)
        else:
            self._file.unlink(missing_ok=True)
        self._written = dict(self.waiting)

    def _read(self) -> dict[str, str]:
        try:
            return {str(source): str(sentence) for source, sentence in json.loads(self._file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            return {"service": f"{self._file} does not say whether the emergency stop was released: {error}"}
