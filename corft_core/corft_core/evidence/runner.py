"""The work list, and the processes that do it. Every finished run is a file, so that any interruption costs one run."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from corft_core.cli import EXIT_INTERRUPTED
from corft_core.errors import CorftError
from corft_core.evidence import records
from corft_core.evidence.arms import ARMS, KINDS, RECIPES, Arm, settings_of
from corft_core.evidence.protocol import LEVER_TASKS, SUITES, Protocol
from corft_core.evidence.records import Run
from corft_core.learning.loop import Interrupted

PATIENCE_S = 30.0
"""How long a worker that was asked to stop may take to notice."""


@dataclass(frozen=True)
class Job:
    """Arms of one (suite, task, seed) that are still to be made; one worker does them in a row."""

    suite: str
    task: str
    seed: int
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is asked for: ``tasks`` by suite, ``arms`` in the order of their making, ``sources`` of the suites as
    ``module:Class``, ``recipes`` by suite."""

    protocol: Protocol
    results: Path
    work: Path
    tasks: Mapping[str, Sequence[str]]
    arms: Sequence[Arm]
    sources: Mapping[str, str]
    recipes: Mapping[str, Mapping[str, Any]]

    def pairs(self, arm: Arm) -> Iterable[tuple[str, str]]:
        """(suite, task) pairs on which an arm runs."""
        for suite, tasks in self.tasks.items():
            if not arm.suites or suite in arm.suites:
                levers = [task for task in tasks if task in LEVER_TASKS] or tasks
                yield from ((suite, task) for task in (tasks if arm.main else levers))

    def seeds(self, arm: Arm) -> Sequence[int]:
        """Seeds with which an arm runs."""
        protocol = self.protocol
        first = {"headline": None, "control": protocol.control_seeds, "lever": protocol.lever_seeds}[arm.kind]
        return protocol.seeds[:first]

    def runs(self) -> list[tuple[str, str, int, Arm]]:
        """All runs, breadth first: the headline arms of every task with the first seed, then with the next seed, …; so
        the controls, so the levers."""
        wanted = [(suite, task, seed, arm) for arm in self.arms for suite, task in self.pairs(arm)
                  for seed in self.seeds(arm)]
        place = [(suite, task) for suite, tasks in self.tasks.items() for task in tasks]
        seeds = list(self.protocol.seeds)
        return sorted(wanted, key=lambda run: (KINDS.index(run[3].kind), seeds.index(run[2]), place.index(run[:2])))

    def left(self) -> list[tuple[str, str, int, Arm]]:
        """Runs that are missing, or were made with other settings."""
        missing = []
        for suite, task, seed, arm in self.runs():
            file = records.path(self.results, suite, task, seed, arm.name)
            if not file.exists() or records.outdated(records.read(file), self.settings(suite, seed, arm)):
                missing.append((suite, task, seed, arm))
        return missing

    def kept(self) -> tuple[list[Run], Counter[str]]:
        """The finished runs of the plan; why other files of its folder are none of them → how many."""
        wanted = {(suite, task, seed, arm.name): self.settings(suite, seed, arm)
                  for suite, task, seed, arm in self.runs()}
        found, others = [], Counter[str]()
        for run in records.read_all(self.results):
            settings = wanted.get((run.suite, run.task, run.seed, run.arm))
            differences = [] if settings is None else records.outdated(run, settings)
            if settings is None:
                others["arm, task or seed that is not asked for"] += 1
            elif differences:
                others[f"other settings ({', '.join(one.partition(':')[0] for one in differences)})"] += 1
            else:
                found.append(run)
        return found, others

    def settings(self, suite: str, seed: int, arm: Arm) -> dict[str, Any]:
        """With which a run is to be made."""
        return settings_of(arm, seed, self.protocol, self.recipes.get(suite, {}))

    def jobs(self) -> list[Job]:
        """The runs that are left, those of a group and level together."""
        grouped: dict[tuple[str, str, str, int], list[str]] = {}
        for suite, task, seed, arm in self.left():
            grouped.setdefault((arm.kind, suite, task, seed), []).append(arm.name)
        return [Job(suite, task, seed, tuple(names)) for (_, suite, task, seed), names in grouped.items()]

    def expected_s(self, jobs: Iterable[Job]) -> float | None:
        """Seconds of work in ``jobs`` for one process, from what was measured; None before the first run."""
        by_arm: dict[tuple[str, str], list[float]] = {}
        for run in records.read_all(self.results):
            by_arm.setdefault((run.suite, run.arm), []).append(sum(run.seconds.values()))
        if not by_arm:
            return None
        mean = {key: sum(values) / len(values) for key, values in by_arm.items()}

        def guess(suite: str, arm: str) -> float:
            alike = [value for (s, _), value in mean.items() if s == suite] or list(mean.values())
            return mean.get((suite, arm), sum(alike) / len(alike))

        return sum(guess(job.suite, arm) for job in jobs for arm in job.arms)


def run_plan(plan: Plan, processes: int, say: Callable[[str], None]) -> int:
    """Do everything that is left. Returns 0, 1 when a run failed, 130 after SIGTERM or Ctrl-C."""
    jobs = plan.jobs()
    total = sum(len(job.arms) for job in jobs)
    say(f"{total} runs left in {len(jobs)} groups{_eta(plan, jobs, processes)}")
    if not jobs:
        return 0
    # Threads of a second library would fight with the other worker for two cores, and spin while they wait.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    waiting, reports = context.Queue(), context.Queue()
    for job in jobs:
        waiting.put(job)
    workers = [context.Process(target=_work, args=(plan, waiting, reports)) for _ in range(min(processes, len(jobs)))]
    for worker in workers:
        waiting.put(None)
        worker.start()
    with _Stop() as stop:
        status = _follow(plan, jobs, workers, reports, stop, processes, say)
    for worker in workers:
        if stop.asked and worker.is_alive():
            worker.terminate()
    for worker in workers:
        worker.join(PATIENCE_S)
        if worker.is_alive():
            worker.kill()
    waiting.cancel_join_thread()
    return EXIT_INTERRUPTED if stop.asked else status


def _follow(plan: Plan, jobs: list[Job], workers: list[Any], reports: Any, stop: _Stop, processes: int,
            say: Callable[[str], None]) -> int:
    total, done, status = sum(len(job.arms) for job in jobs), 0, 0
    left = {(job.suite, job.task, job.seed, arm) for job in jobs for arm in job.arms}
    while not stop.asked:
        try:
            kind, job, text, arm = reports.get(timeout=0.5)
        except queue.Empty:
            if not any(worker.is_alive() for worker in workers):
                return status or int(bool(left))
            continue
        if kind == "failed":
            status = 1
            print(f"{job.suite} {job.task} seed {job.seed}: {text}", file=sys.stderr, flush=True)
            continue
        done += 1
        left.discard((job.suite, job.task, job.seed, arm))
        remaining = [Job(suite, task, seed, (name,)) for suite, task, seed, name in left]
        say(f"[{done}/{total}] {job.suite} {job.task} seed {job.seed} {text}{_eta(plan, remaining, processes)}")
    return status


def _eta(plan: Plan, jobs: Sequence[Job], processes: int) -> str:
    seconds = plan.expected_s(jobs)
    return "" if seconds is None else f", about {seconds / processes / 60:.0f} min left with {processes} processes"


class _Stop:
    """Notes SIGTERM and Ctrl-C instead of dying of them."""

    asked = False

    def __enter__(self) -> _Stop:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked = True


def _work(plan: Plan, waiting: Any, reports: Any) -> None:
    """A worker process: groups, one after the other, on one thread."""
    import torch

    from corft_core.evidence.group import Group

    torch.set_num_threads(1)
    parent = os.getppid()
    # Ctrl-C reaches all processes of a terminal; the parent's SIGTERM is what counts, and it drops the current run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_INTERRUPTED))
    suites: dict[str, Any] = {}
    while (job := waiting.get()) is not None and os.getppid() == parent:
        began = time.monotonic()
        try:
            if job.suite not in suites:
                suites[job.suite] = load_suite(plan.sources[job.suite])
            group = Group(suites[job.suite], job.task, job.seed, plan.protocol, plan.results, plan.work,
                          recipe=plan.recipes.get(job.suite, {}))
            try:
                for run in group.run([ARMS[name] for name in job.arms]):
                    rates = "  ".join(f"{split} {100 * _rate(trials, run.limit):.0f} %"
                                      for split, trials in run.splits.items())
                    note = " (diverged)" if run.diverged else ""
                    reports.put(("done", job, f"{run.arm}{note}: {rates}, {time.monotonic() - began:.0f} s", run.arm))
                    began = time.monotonic()
            finally:
                group.close()
        except Interrupted:
            sys.exit(EXIT_INTERRUPTED)
        except CorftError as error:
            reports.put(("failed", job, str(error), ""))
        except Exception:
            reports.put(("failed", job, traceback.format_exc(), ""))


def _rate(trials: records.Trials, limit: int) -> float:
    good = [success and steps <= limit for success, steps in zip(trials.success, trials.steps, strict=True)]
    return sum(good) / len(good)


def load_suite(source: str) -> Any:
    """The suite (evaluation.environment.Suite) that ``module:Class`` names."""
    module, _, name = source.partition(":")
    return getattr(import_module(module), name)()


def make_plan(protocol: Protocol, results: Path, work: Path, *, suites: Sequence[str], tasks: Sequence[str],
              arms: Sequence[Arm], overrides: Mapping[str, Any] | None = None) -> Plan:
    """The plan for suites (all tasks, or those named that the suite has), arms, and changed settings for tuning."""
    unknown = [name for name in suites if name not in SUITES]
    if unknown:
        raise CorftError(f"no suite {', '.join(unknown)}; known: {', '.join(SUITES)}.")
    wanted = set(tasks) or set(protocol.tasks)
    made = {name: load_suite(SUITES[name]) for name in suites}
    offered = {name: (*suite.tasks, *(suite.tuning_tasks if wanted else ())) for name, suite in made.items()}
    known = {task for found in offered.values() for task in found}
    unknown = sorted(set(tasks) - known)
    if unknown:
        raise CorftError(f"no task {', '.join(unknown)}; known: {', '.join(sorted(known))}.")
    if wanted:
        offered = {name: tuple(task for task in found if task in wanted) for name, found in offered.items()}
    recipes = {name: {**RECIPES.get(name, {}), **(overrides or {})} for name in suites}
    return Plan(protocol, results / protocol.folder, work / protocol.folder, offered, arms, SUITES, recipes)
