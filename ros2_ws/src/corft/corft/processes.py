"""Child processes of the demo: started as a user would type them, logged, and stopped for certain."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from corft_core.errors import CorftError


class Child:
    """One running command in a process group of its own; its output goes to a log file and to ``on_line``."""

    def __init__(self, command: Sequence[str], log: Path, on_line: Callable[[str], None] = lambda line: None) -> None:
        self.command = shlex.join(command)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(on_line,), daemon=True)
        self._reader.start()

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        with self.log.open("a") as file:
            file.write(f"$ {self.command}\n")
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                on_line(line.rstrip())

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for success. Raises CorftError with the end of the log on failure or when time runs out."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise CorftError(f"`{self.command}` was still running after {timeout_s:.0f} s. "
                             f"{self._last_lines()}") from None
        self._reader.join(timeout=5)
        if status != 0:
            raise CorftError(f"`{self.command}` ended with status {status}. {self._last_lines()}")

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def stop(self, patience_s: float = 15.0) -> int:
        """Ctrl-C, as a user would; SIGTERM and SIGKILL to the whole group when that is not enough."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self._process.pid, number)
                else:
                    self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self._reader.join(timeout=5)
        return self._process.wait()

    def _last_lines(self, count: int = 15) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return f"The end of {self.log}:\n" + "\n".join(f"    {line}" for line in lines)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Child]:
    """A command that runs while the block does."""
    child = Child(command, log)
    try:
        yield child
    finally:
        child.stop()


class MemoryWatch:
    """Samples the memory of this process and all its descendants; shared pages count once (PSS)."""

    def __init__(self, period_s: float = 2.0) -> None:
        self.peak_mb = 0
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._stop.wait(self._period_s):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            self.peak_mb = max(self.peak_mb, round(total / 2**20))


def announce(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n== {text}", file=sys.stderr, flush=True)


def stopwatch() -> Callable[[], float]:
    """Returns a function that gives the seconds since now."""
    start = time.monotonic()
    return lambda: time.monotonic() - start
