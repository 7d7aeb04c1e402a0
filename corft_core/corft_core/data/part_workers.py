"""Bags shared out among processes, and the cameras of a big bag where there are more processes than bags.

Tasks and replies are lines of JSON; a worker ends when its parent does.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corft_core.contract import Contract
from corft_core.data.bag_converter import ConvertOptions, convert_bag
from corft_core.data.parts import join_cameras
from corft_core.data.store import NoSpaceError, disk_errors
from corft_core.errors import CorftError

WORTH_SHARING_BYTES = 50_000_000
"""A smaller bag is converted before another process has started."""

TaskProgress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class BagTask:
    """A recording and the part that it becomes; of ``cameras`` only the pictures (None: of all)."""

    bag: Path
    part: Path
    size_bytes: int = 0
    cameras: tuple[str, ...] | None = None


def convert_bags(tasks: Sequence[BagTask], contract: Contract, options: ConvertOptions, jobs: int,
                 progress: TaskProgress) -> dict[int, CorftError]:
    """Convert each task's bag, ``jobs`` at a time; ``progress(task, done, total)`` counts a task's messages.

    Returns the tasks whose bag could not be converted, with the reason. A full disk or a programming error ends all.
    Threads of one process wait for each other's Python more than two cores can bear, so with processes to spare each
    takes some of the cameras of a bag; all but the pictures is done by each of them.
    """
    groups = _camera_groups(contract, jobs // max(1, len(tasks)))
    if len(groups) == 1 or max((task.size_bytes for task in tasks), default=0) < WORTH_SHARING_BYTES:
        return _convert_bags(tasks, contract, options, jobs, progress)

    def first_only(number: int, done: int, total: int) -> None:
        if number % len(groups) == 0:
            progress(number // len(groups), done, total)

    shares = [[replace(task, part=task.part.with_name(f".{task.part.name}.{k}"), cameras=group)
               for k, group in enumerate(groups)] for task in tasks]
    errors = _convert_bags([share for bag in shares for share in bag], contract, options, jobs, first_only)
    failed = {number // len(groups): error for number, error in sorted(errors.items(), reverse=True)}
    again = [number for number, task in enumerate(tasks) if number not in failed
             and not join_cameras([share.part for share in shares[number]], task.part)]
    late = _convert_bags([tasks[number] for number in again], contract, options, jobs,
                         lambda number, done, total: progress(again[number], done, total))
    return failed | {again[number]: error for number, error in late.items()}


def _camera_groups(contract: Contract, shares: int) -> list[tuple[str, ...]]:
    """The cameras in their order, cut into at most ``shares`` groups."""
    names = tuple(camera.name for camera in contract.cameras)
    count = max(1, min(shares, len(names)))
    return [names[k * len(names) // count : (k + 1) * len(names) // count] for k in range(count)]


def _convert_bags(tasks: Sequence[BagTask], contract: Contract, options: ConvertOptions, jobs: int,
                  progress: TaskProgress) -> dict[int, CorftError]:
    if min(jobs, len(tasks)) <= 1:
        return _here(tasks, contract, options, progress)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(tasks)):
        waiting.put(number)
    failed: dict[int, CorftError] = {}
    workers = [_Worker(contract, options) for _ in range(min(jobs, len(tasks)))]

    def serve(worker: _Worker) -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            error = worker.convert(tasks[number], lambda done, total: progress(number, done, total))  # noqa: B023
            if isinstance(error, NoSpaceError):
                raise error
            if error is not None:
                failed[number] = error

    pool = ThreadPoolExecutor(len(workers))
    try:
        for future in [pool.submit(serve, worker) for worker in workers]:
            future.result()
    finally:
        for worker in workers:
            worker.kill()
        pool.shutdown()
    return failed


def _here(tasks: Sequence[BagTask], contract: Contract, options: ConvertOptions,
          progress: TaskProgress) -> dict[int, CorftError]:
    failed: dict[int, CorftError] = {}
    for number, task in enumerate(tasks):
        try:
            _convert(task, contract, options, lambda done, total: progress(number, done, total))  # noqa: B023
        except NoSpaceError:
            raise
        except CorftError as error:
            failed[number] = error
    return failed


def _convert(task: BagTask, contract: Contract, options: ConvertOptions, progress: Callable[[int, int], None]) -> None:
    with disk_errors(task.part.parent, "the bags that are finished are kept there"):
        convert_bag(task.bag, task.part, contract, options, progress, cameras=task.cameras)


class _Worker:
    def __init__(self, contract: Contract, options: ConvertOptions) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        self._send({"contract": contract.to_dict(), "options": asdict(options)})

    def convert(self, task: BagTask, progress: Callable[[int, int], None]) -> CorftError | None:
        self._send({"bag": str(task.bag), "part": str(task.part), "cameras": task.cameras})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            if "total" in reply:
                progress(reply["done"], reply["total"])
            elif "crash" in reply:
                raise RuntimeError(f"converting {task.bag} failed:\n{reply['crash']}")
            elif "error" in reply:
                return NoSpaceError(reply["error"]) if reply["no_space"] else CorftError(reply["error"])
            else:
                return None
        raise RuntimeError(f"the process that converted {task.bag} ended with code {self._process.wait()}; "
                           "is there enough memory? Run again with a smaller --jobs")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _send(self, value: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()


def _serve() -> None:
    """Take tasks from standard input until it closes, which it does when the parent ends, however it ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print must not get between the replies
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()

    def reply(**value: object) -> None:
        replies.write(json.dumps(value) + "\n")

    first = json.loads(lines.get())
    contract = Contract.from_dict(first["contract"])
    options = ConvertOptions(**first["options"] | {"exclude": tuple(first["options"]["exclude"])})
    while True:
        task = json.loads(lines.get())
        try:
            cameras = None if task["cameras"] is None else tuple(task["cameras"])
            _convert(BagTask(Path(task["bag"]), Path(task["part"]), cameras=cameras), contract, options,
                     lambda done, total: reply(done=done, total=total))
            reply(finished=True)
        except CorftError as error:
            reply(error=str(error), no_space=isinstance(error, NoSpaceError))
        except Exception:
            reply(crash=traceback.format_exc())


if __name__ == "__main__":
    _serve()
