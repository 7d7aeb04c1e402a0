"""Commands from the keyboard, or line by line from a pipe.

On a terminal single keys count, and only a key that comes alone: pasted text, escape sequences and held keys are
ignored. The terminal is put back on every way out of the ``with`` block. No ROS in here.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from corft.recording.session import COMMANDS, KEYS

# A key counts when nothing else comes for so long; a person's keys are further apart, a paste's are not.
QUIET_S = 0.05
DEAF_S = 0.4
MAX_ESCAPE = 6  # bytes of an arrow or function key, no news
_PASTE_ON, _PASTE_OFF = b"\x1b[?2004h", b"\x1b[?2004l"
_PASTE_START, _PASTE_END = b"\x1b[200~", b"\x1b[201~"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.?")


@dataclass(frozen=True)
class Command:
    """What the operator asked for, when (ns on the recorder's clock), and a text for `start` and `prompt`."""

    name: str
    stamp_ns: int
    text: str = ""


class Keys:
    """Turns bytes of a terminal into commands; fed by `Keyboard`, testable without a terminal.

    ``editing`` is the prompt text being typed, or None.
    """

    def __init__(self, now_ns: Callable[[], int], steady_s: Callable[[], float] = time.monotonic) -> None:
        self._now_ns, self._steady_s = now_ns, steady_s
        self.editing: str | None = None
        self.ignored = ""
        self._pending = b""
        self._pending_ns, self._last_s, self._deaf_until_s = 0, float("-inf"), float("-inf")
        self._pasting = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def feed(self, data: bytes) -> list[Command]:
        """Take what the terminal sent; returns finished commands."""
        if self.editing is not None:
            return self._edit(data)
        if not self._pending:
            self._pending_ns = self._now_ns()
        self._pending += data
        self._last_s = self._steady_s()
        return []

    def poll(self) -> list[Command]:
        """Commands of keys that have been alone for long enough; call often."""
        if not self._pending or self._steady_s() - self._last_s < QUIET_S:
            return []
        burst, self._pending = self._pending, b""
        pasted = self._pasting or _PASTE_START in burst
        self._pasting = pasted and _PASTE_END not in burst
        name = KEYS.get(burst.decode("ascii", "replace"))
        deaf = self._last_s < self._deaf_until_s
        if pasted or deaf or len(burst) > 1:
            # A paste over a slow line comes in pieces.
            self._deaf_until_s = self._last_s + DEAF_S
            if pasted or len(burst) > MAX_ESCAPE:
                self.ignored = "pasted text"
            return []
        if name is None:
            return []
        if name == "prompt":
            self.editing = ""
            return []
        return [Command(name, self._pending_ns)]

    def _edit(self, data: bytes) -> list[Command]:
        assert self.editing is not None
        if data in (b"\r", b"\n"):
            text, self.editing = self.editing, None
            return [Command("prompt", self._now_ns(), text)] if text.strip() else []
        if data == b"\x1b":
            self.editing = None
        elif data in (b"\x7f", b"\b"):
            self.editing = self.editing[:-1]
        elif data == b"\x15":  # Ctrl-U
            self.editing = ""
        else:
            text = _ESCAPES.sub("", self._decoder.decode(data).replace("\r", " ").replace("\n", " "))
            self.editing += "".join(character for character in text if character.isprintable())
        return []


class Lines:
    """Turns text into commands: `start [PROMPT]`, `prompt TEXT`, `success`, `failure`, `discard`, `stop`, `quit`, and
    `wait SECONDS`, which holds back the commands after it."""

    def __init__(self, now_ns: Callable[[], int], steady_s: Callable[[], float] = time.monotonic) -> None:
        self._now_ns, self._steady_s = now_ns, steady_s
        self._rest, self._waiting = b"", deque[str]()
        self._resume_s = float("-inf")
        self.ignored = ""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes; empty bytes mean that no more will come."""
        if not data:
            self.ended = True
            data = b"\n"
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._waiting.extend(line.decode("utf-8", "replace").strip() for line in lines)

    def poll(self) -> list[Command]:
        """The next command that is due."""
        while self._waiting and self._steady_s() >= self._resume_s:
            name, _, text = self._waiting.popleft().partition(" ")
            if name == "wait":
                with contextlib.suppress(ValueError):
                    self._resume_s = self._steady_s() + float(text)
            elif name in COMMANDS:
                return [Command(name, self._now_ns(), text.strip())]
            elif name and not name.startswith("#"):
                self.ignored = f"the line {name!r}: expected one of {', '.join(COMMANDS)}, wait"
        if self.ended and not self._waiting and self._steady_s() >= self._resume_s:
            return [Command("quit", self._now_ns())]
        return []


class Keyboard:
    """Standard input as a source of commands, for the length of a ``with`` block."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._fd = sys.stdin.fileno()
        self.terminal = os.isatty(self._fd)
        self.source: Keys | Lines = Keys(now_ns) if self.terminal else Lines(now_ns)
        self._saved: list[Any] | None = None
        self._open = True

    def __enter__(self) -> Keyboard:
        if self.terminal:
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSANOW)
            attributes = termios.tcgetattr(self._fd)
            # Ctrl-C still ends the recording cleanly; Ctrl-Z and Ctrl-\ would lose it.
            for key in (termios.VSUSP, termios.VQUIT):
                attributes[6][key] = os.fpathconf(self._fd, "PC_VDISABLE").to_bytes(1, "big")
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
            self._write(_PASTE_ON)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._saved is not None:
            self._write(_PASTE_OFF)
            with contextlib.suppress(termios.error):  # the terminal is gone, as after a lost SSH connection
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._saved)

    def read(self, timeout_s: float) -> list[Command]:
        """Commands, after at most ``timeout_s`` of waiting. A closed input asks to quit."""
        if not self._open:
            time.sleep(timeout_s)
        elif select.select([self._fd], [], [], timeout_s)[0]:
            try:
                data = os.read(self._fd, 4096)
            except OSError:
                data = b""
            self._open = bool(data)
            if self.terminal and not data:
                return [Command("hangup", 0)]
            commands = self.source.feed(data)
            if commands:
                return commands
        return self.source.poll()

    def take_ignored(self) -> str:
        """What was ignored since the last call, for a message; usually empty."""
        text, self.source.ignored = self.source.ignored, ""
        return text

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), data)
