"""The executor's small parts: newest job wins, one source at a time."""

from __future__ import annotations

import threading

import pytest

from corft.executor.chunk_source import ChunkSource
from corft.worker import Worker
from corft_core.execution import Reason


def test_the_worker_runs_the_newest_of_a_kind_and_every_kind() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []
    worker = Worker("test", lambda error: ran.append(f"failed {error}"))

    def first() -> None:
        begun.set()
        go.wait(10.0)
        ran.append("first")

    worker.put("chunk", first)
    assert begun.wait(10.0)
    for name in ("second", "third"):
        worker.put("chunk", lambda name=name: ran.append(name))  # type: ignore[misc]
    worker.put("move", lambda: (ran.append("move"), done.set())[0])
    go.set()
    assert done.wait(10.0)
    assert ran == ["first", "third", "move"] and worker.replaced["chunk"] == 1
    assert worker.stop(10.0)


def test_a_job_that_raises_is_reported_and_the_next_one_runs() -> None:
    errors: list[Exception] = []
    done = threading.Event()
    worker = Worker("test", errors.append)
    worker.put("chunk", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    worker.put("move", done.set)
    assert done.wait(10.0) and isinstance(errors[0], ZeroDivisionError)
    assert worker.stop(10.0)


def test_stopping_drops_what_waits() -> None:
    begun, go = threading.Event(), threading.Event()
    ran: list[int] = []
    worker = Worker("test", lambda error: None)
    worker.put("chunk", lambda: (begun.set(), go.wait(10.0))[0])
    assert begun.wait(10.0)
    worker.put("chunk", lambda: ran.append(1))
    assert not worker.stop(0.01), "the running job has not ended"
    go.set()
    assert worker.stop(10.0) and ran == []


def test_a_second_source_is_refused_until_the_first_has_been_silent() -> None:
    source = ChunkSource(1.0)
    assert source.admit(b"a", "policy_a", 0.0) is None
    refusal = source.admit(b"b", "policy_b", 0.5)
    assert refusal is not None and refusal.reason == Reason.OTHER_SOURCE
    assert "policy_b sends chunks while policy_a drives" in refusal.message
    assert source.admit(b"a", "policy_a", 0.9) is None
    assert source.admit(b"b", "policy_b", 1.8) is not None, "the first was heard 0.9 s ago"
    assert source.admit(b"b", "policy_b", 1.91) is None and source.name == "policy_b"
    assert source.admit(b"a", "policy_a", 2.0) is not None
    source.release()
    assert source.admit(b"a", "policy_a", 2.0) is None


@pytest.mark.parametrize("silent_s", [0.1, 2.0])
def test_a_refused_source_does_not_keep_itself_out(silent_s: float) -> None:
    source = ChunkSource(silent_s)
    source.admit(b"a", "a", 0.0)
    for step in range(10):
        source.admit(b"b", "b", step * silent_s / 10)
    assert source.admit(b"b", "b", silent_s) is None
