"""Runs a launch description: events, processes, timers, signals and the output on the screen."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ._core import Entity, LaunchContext, LaunchDescription, visit_all
from .event_handlers import EventHandler
from .events import Shutdown


class Output:
    """Screen and launch log file."""

    def __init__(self) -> None:
        home = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
        root = Path(os.environ.get("ROS_LOG_DIR") or home / "log")
        stamp = datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
        self.folder = root / f"{stamp}-{socket.gethostname()}-{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / "launch.log").open("w", encoding="utf-8", errors="replace")

    def write(self, line: str, *, screen: bool, log: bool = True) -> None:
        """One line to the screen, the log file, or both."""
        if log and not self._file.closed:
            self._file.write(f"{datetime.now().timestamp():.7f} {line}\n")
        if screen:
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except BrokenPipeError:  # the reader of a pipe has left; processes still need an orderly stop
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the process ends

    def say(self, level: str, who: str, text: str) -> None:
        """A message of launch itself."""
        self.write(f"[{level}] [{who}]: {text}", screen=True)

    def close(self) -> None:
        """Flush and close the log file."""
        self._file.close()


class LaunchService:
    """Visits a launch description and waits until its processes and timers are done."""

    def __init__(self, *, argv: Iterable[str] | None = None, debug: bool = False, noninteractive: bool = False) -> None:
        self.context = LaunchContext(argv=argv, noninteractive=noninteractive)
        self.context.service = self
        self.debug = debug
        self.output = Output()
        self.handlers: list[EventHandler] = []
        self.processes: list[Any] = []  # running _process.RunningProcess
        self._descriptions: list[LaunchDescription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.Task[None]] = set()
        self._return_code = 0
        self._changed = asyncio.Event()
        self._names = 0

    def include_launch_description(self, launch_description: LaunchDescription) -> None:
        """Add a description to run."""
        self._descriptions.append(launch_description)

    def next_process_number(self) -> int:
        """Number behind a process's name on the screen, from 1."""
        self._names += 1
        return self._names

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, timer: bool = False) -> None:
        """Run a coroutine; the service is not idle before it ends. Timers are cancelled by a shutdown."""
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks = self._timers if timer else self._tasks
        tasks.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            tasks.discard(finished)
            self._changed.set()
            if not finished.cancelled() and finished.exception() is not None:
                self.fail(finished.exception())

        task.add_done_callback(done)

    def emit(self, event: Any) -> None:
        """Give an event to all matching handlers; a Shutdown stops everything."""
        if isinstance(event, Shutdown):
            if self.context.is_shutdown:
                return
            self.context.is_shutdown = True
        for handler in list(self.handlers):
            if handler.matches(event):
                self.visit(handler.handle(event, self.context))
        if isinstance(event, Shutdown):
            for task in list(self._timers):
                task.cancel()
            for process in list(self.processes):
                process.stop(send_sigint=not event.due_to_sigint or not self._terminal_sends_sigint())
        self._changed.set()

    def visit(self, entities: Iterable[Entity]) -> None:
        """Visit entities; an exception stops the launch with exit code 1, as in the real one."""
        try:
            for entity in entities:
                visit_all(entity, self.context)
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """Report an exception and stop."""
        self._return_code = 1
        if self.debug and error is not None:
            raise error
        self.output.say("ERROR", "launch", f"Caught exception in launch (see debug for traceback): {error}")
        self.emit(Shutdown(reason="exception in launch"))

    def _terminal_sends_sigint(self) -> bool:
        """True in the foreground of a terminal: its ctrl-c reaches the processes without our help."""
        if self.context.noninteractive:
            return False
        try:
            terminal = os.open("/dev/tty", os.O_RDONLY)
        except OSError:
            return False
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:
            return False
        finally:
            os.close(terminal)

    def _on_signal(self, number: int) -> None:
        interrupt = number == signal.SIGINT
        text = "user interrupted with ctrl-c (SIGINT)" if interrupt else f"stopped by {signal.Signals(number).name}"
        if self.context.is_shutdown:
            self.output.say("WARNING", "launch", f"{text} again, ignoring...")
            return
        self.output.say("WARNING", "launch", text)
        self.emit(Shutdown(reason="ctrl-c (SIGINT)" if interrupt else text, due_to_sigint=interrupt))

    async def run_async(self) -> int:
        """Run until idle or shut down; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, self._on_signal, number)
        self.output.say("INFO", "launch", f"All log files can be found below {self.output.folder}")
        self.output.say("INFO", "launch", "Default logging verbosity is set to INFO")
        try:
            self.visit(self._descriptions)
            while self._tasks or self._timers:
                self._changed.clear()
                await self._changed.wait()
            self.emit(Shutdown(reason="idle"))
            while self._tasks:
                self._changed.clear()
                await self._changed.wait()
        finally:
            for process in list(self.processes):
                process.kill()
            self.output.close()
        return self._return_code

    def run(self) -> int:
        """Run to the end in a fresh event loop; returns the exit code."""
        return asyncio.run(self.run_async())
