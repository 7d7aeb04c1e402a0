"""The recorder's lines on the terminal: messages above, one status line at the bottom. No ROS in here."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys

from corft.recording.log import Summary
from corft.recording.session import Session

IDLE_KEYS = "s start  p prompt  q quit"
EPISODE_KEYS = "y success  n failure  d discard  x stop"
EDIT_KEYS = "Enter takes it, Esc leaves it, Ctrl-U clears"


class Screen:
    """Prints to standard output; a terminal that has gone away is no error, the recording goes on."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._status = ""

    def say(self, text: str) -> None:
        """A message that stays."""
        self._write(f"{self._clear()}{text}\n{self._status}")

    def status(self, text: str) -> None:
        """Replace the line at the bottom, cut to the terminal's width; without a terminal there is none."""
        if self._terminal:
            clear, self._status = self._clear(), text[: shutil.get_terminal_size().columns - 1]
            self._write(clear + self._status)

    def close(self) -> None:
        """Take the status line away."""
        if self._status:
            self._write(self._clear())
            self._status = ""

    def _clear(self) -> str:
        return "\r\x1b[K" if self._terminal else ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text.encode())


def status_line(session: Session, now_ns: int, rates: dict[str, Summary], editing: str | None) -> str:
    """State, keys, then the rates: what is cut off on a narrow terminal is the least important."""
    if editing is not None:
        return f"prompt: {editing}_   [{EDIT_KEYS}]"
    episode = session.running
    if episode is not None:
        head = f"EPISODE {episode.number}  {(now_ns - episode.start_ns) * 1e-9:5.1f} s  [{EPISODE_KEYS}]"
    else:
        done = sum(e.outcome == "success" for e in session.episodes)
        head = f"{len(session.episodes)} episodes, {done} successes  [{IDLE_KEYS}]"
    return f"{head}  {rates_text(rates)}  '{session.instruction}'"


def rates_text(rates: dict[str, Summary]) -> str:
    """``name rate`` of every stream in Hz, with what was lost."""
    def one(name: str, heard: Summary) -> str:
        rate = f"{heard.rate_hz:.0f}" if heard.count > 1 else "-"
        missing = heard.lost + heard.dropped
        return f"{name} {rate}" + (f" ({missing} LOST)" if missing else "")

    return "  ".join(one(name, heard) for name, heard in rates.items()) + " Hz"
