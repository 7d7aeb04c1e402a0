"""ExecuteProcess: starts a program, shows its output, restarts it or stops it."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ._core import Action, Entity, LaunchContext, SomeSubstitutionsType, normalize, perform, truth
from .event_handlers import entities_of
from .events import ProcessExited, ProcessStarted
from .substitutions import LaunchConfiguration

# where stdout and stderr go for each value of `output`: (stdout on screen, stderr on screen)
_SCREEN = {
    "log": (False, True),
    "screen": (True, True),
    "both": (True, True),
    "own_log": (False, False),
    "full": (True, True),
}


class ExecuteProcess(Action):
    """Run a command; `cmd` is a list of words, each text or substitutions."""

    def __init__(
        self,
        *,
        cmd: Sequence[SomeSubstitutionsType],
        name: SomeSubstitutionsType | None = None,
        cwd: SomeSubstitutionsType | None = None,
        env: Mapping[Any, SomeSubstitutionsType] | None = None,
        additional_env: Mapping[Any, SomeSubstitutionsType] | None = None,
        prefix: SomeSubstitutionsType | None = None,
        shell: bool = False,
        output: SomeSubstitutionsType = "log",
        emulate_tty: bool = False,
        log_cmd: bool = False,
        on_exit: Any = None,
        respawn: bool | SomeSubstitutionsType = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        sigterm_timeout: SomeSubstitutionsType | None = None,
        sigkill_timeout: SomeSubstitutionsType | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.cmd = [normalize(word) for word in cmd]
        self.exec_name, self.cwd, self.prefix = name, cwd, prefix
        self.env, self.additional_env = env, additional_env
        self.shell, self.output, self.emulate_tty, self.log_cmd = shell, output, emulate_tty, log_cmd
        self.on_exit = on_exit
        self.respawn = str(respawn) if isinstance(respawn, bool) else respawn
        self.respawn_delay_s, self.respawn_max_retries = respawn_delay or 0.0, respawn_max_retries
        self.sigterm_timeout = sigterm_timeout or LaunchConfiguration("sigterm_timeout", default="5")
        self.sigkill_timeout = sigkill_timeout or LaunchConfiguration("sigkill_timeout", default="5")

    def command(self, context: LaunchContext) -> list[str]:
        """The words of the command with every substitution performed."""
        return [perform(context, word) for word in self.cmd]

    def execute(self, context: LaunchContext) -> Sequence[Entity] | None:
        if context.is_shutdown:
            return None
        process = RunningProcess(self, context)
        context.run().spawn(process.run())
        return None

    def get_sub_entities(self) -> list[Entity]:
        """Actions to run when the process ends, where they are known beforehand."""
        return (
            []
            if callable(self.on_exit) or self.on_exit is None
            else list(entities_of(self.on_exit, None, LaunchContext()))
        )


class RunningProcess:
    """One program that runs, through all its restarts. Everything is evaluated once, when the action runs."""

    def __init__(self, action: ExecuteProcess, context: LaunchContext) -> None:
        self.action, self.context, self.service = action, context, context.run()
        self.cmd = action.command(context)
        if action.prefix is not None:
            self.cmd = shlex.split(perform(context, action.prefix)) + self.cmd
        base = os.path.basename(self.cmd[0]) if action.exec_name is None else perform(context, action.exec_name)
        self.base_name = base.split()[0] if action.shell else base
        self.name = f"{self.base_name}-{self.service.next_process_number()}"
        source = context.environment if action.env is None else action.env
        self.env = {perform(context, k): perform(context, v) for k, v in source.items()}
        self.env |= {perform(context, k): perform(context, v) for k, v in (action.additional_env or {}).items()}
        if action.emulate_tty:  # the visible effect on Python programs, without a pseudo-terminal
            self.env.setdefault("PYTHONUNBUFFERED", "1")
        self.cwd = None if action.cwd is None else perform(context, action.cwd)
        self.respawn = truth(perform(context, action.respawn))
        self.sigterm_s = float(perform(context, action.sigterm_timeout))
        self.sigkill_s = float(perform(context, action.sigkill_timeout))
        override = os.environ.get("OVERRIDE_LAUNCH_PROCESS_OUTPUT")
        where = override or perform(context, action.output)
        if where not in _SCREEN:
            raise ValueError(f"'{where}' is not a valid value for output, expected one of {sorted(_SCREEN)}")
        self.screen = _SCREEN[where]
        self.child: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        self._escalation: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start, wait, restart if asked for."""
        if self.context.is_shutdown:  # an error later in the description came before this task's first step
            return
        self.service.processes.append(self)
        try:
            retries = 0
            while not self.stopping.is_set():
                if not await self._run_once() or self.stopping.is_set() or not self.respawn:
                    return
                if 0 <= self.action.respawn_max_retries <= retries:
                    return
                retries += 1
                try:
                    await asyncio.wait_for(self.stopping.wait(), self.action.respawn_delay_s)
                except TimeoutError:
                    self.name = f"{self.base_name}-{self.service.next_process_number()}"
        finally:
            self.service.processes.remove(self)

    async def _run_once(self) -> bool:
        """Run the program to its end; False where it could not be started."""
        if self.action.log_cmd:
            self.service.output.say("INFO", self.name, f"process details: cmd={self.cmd}, cwd={self.cwd}")
        pipes: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        try:
            if self.action.shell:
                child = await asyncio.create_subprocess_shell(" ".join(self.cmd), env=self.env, cwd=self.cwd, **pipes)
            else:
                child = await asyncio.create_subprocess_exec(*self.cmd, env=self.env, cwd=self.cwd, **pipes)
        except OSError as error:
            self.service.output.say("ERROR", self.name, f"exception occurred while executing process: {error}")
            return False
        self.child = child
        output = self.service.output
        output.say("INFO", self.name, f"process started with pid [{child.pid}]")
        self.service.emit(ProcessStarted(self.action, self.name, self.cmd, child.pid))
        if self.stopping.is_set():  # the shutdown came while the program was being started
            self._signal(signal.SIGINT)
        readers = [
            asyncio.create_task(self._copy(stream, screen))
            for stream, screen in zip((child.stdout, child.stderr), self.screen, strict=True)
        ]
        code = await child.wait()
        await asyncio.wait(readers, timeout=1.0)  # a grandchild may hold the pipes open for longer
        for reader in readers:
            reader.cancel()
        self.child = None
        if self._escalation is not None:
            self._escalation.cancel()
        if code == 0:
            output.say("INFO", self.name, f"process has finished cleanly [pid {child.pid}]")
        else:
            text = f"process has died [pid {child.pid}, exit code {code}, cmd '{' '.join(self.cmd)}']."
            output.say("ERROR", self.name, text)
        event = ProcessExited(self.action, self.name, self.cmd, child.pid, code)
        self.service.visit(entities_of(self.action.on_exit, event, self.context))
        self.service.emit(event)
        return True

    async def _copy(self, stream: asyncio.StreamReader | None, screen: bool) -> None:
        """Prefix every line with the process's name."""
        assert stream is not None
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.service.output.write(f"[{self.name}] {line.decode(errors='replace')}", screen=screen)
        if rest:
            self.service.output.write(f"[{self.name}] {rest.decode(errors='replace')}", screen=screen)

    def stop(self, *, send_sigint: bool) -> None:
        """SIGINT, then SIGTERM after `sigterm_timeout`, then SIGKILL after `sigkill_timeout` more."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        if send_sigint and self.child is not None:
            self.service.output.say("INFO", self.name, f"sending signal 'SIGINT' to process[{self.name}]")
            self._signal(signal.SIGINT)
        self._escalation = asyncio.get_running_loop().create_task(self._escalate())

    async def _escalate(self) -> None:
        text = "process[{}] failed to terminate '{}' seconds after receiving '{}', escalating to '{}'"
        steps = ((self.sigterm_s, self.sigterm_s, "SIGINT", signal.SIGTERM),
                 (self.sigkill_s, self.sigterm_s + self.sigkill_s, "SIGTERM", signal.SIGKILL))  # fmt: skip
        for wait_s, total_s, before, number in steps:
            await asyncio.sleep(wait_s)
            if self.child is None:
                return
            self.service.output.say("ERROR", self.name, text.format(self.name, f"{total_s:g}", before, number.name))
            self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None and self.child.returncode is None:
            try:
                self.child.send_signal(number)
            except ProcessLookupError:
                return  # it ended by itself meanwhile

    def kill(self) -> None:
        """SIGKILL without delay."""
        self._signal(signal.SIGKILL)
