"""A thread for what takes long, so that a node's callbacks never wait. No ROS in here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable


class Worker:
    """Runs jobs one after the other in a thread of its own.

    There is one place for every kind of job: a newer one replaces one that still waits (newest wins), so the worker
    never falls behind. Lock order: nothing is called while the lock is held. Exceptions of a job go to ``failed``.
    """

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self.replaced: Counter[str] = Counter()  # by kind, jobs that gave way to a newer one
        self._failed = failed
        self._jobs: dict[str, Callable[[], None]] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, kind: str, job: Callable[[], None]) -> None:
        """Run ``job`` as soon as possible, in the place of one of this ``kind`` that waits."""
        with self._wake:
            self.replaced[kind] += kind in self._jobs
            self._jobs[kind] = job
            self._wake.notify()

    def stop(self, timeout_s: float) -> bool:
        """Drop what waits and end the thread; False when the running job did not end in time."""
        with self._wake:
            self._stopping = True
            self._jobs.clear()
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                job = self._jobs.pop(next(iter(self._jobs)))
            try:
                job()
            except Exception as error:
                self._failed(error)
