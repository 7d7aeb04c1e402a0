"""The executor's small parts: newest job wins, one source at a time, stops are kept."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from corft.executor.chunk_source import ChunkSource
from corft.executor.stop_memory import StopMemory, stop_file
from corft.worker import Worker
from corft_core.errors import CorftError
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


def memory(file: Path) -> StopMemory:
    """As a new process has it; a failure to write is one of the test."""
    return StopMemory(file, pytest.fail)


def test_a_stop_that_nobody_answered_is_there_for_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "stops" / "0.executor_node.json"
    first = memory(file)
    assert first.waiting == {} and not file.exists()
    first.keep("service", "the emergency stop was called")
    first.keep("enable", "stop was called")
    second = memory(file)
    assert second.waiting == {"service": "the emergency stop was called", "enable": "stop was called"}
    second.keep("service", "")
    assert memory(file).waiting == {"enable": "stop was called"}
    second.keep("enable", "")
    assert memory(file).waiting == {} and list(file.parent.iterdir()) == []


def test_who_ended_the_executor_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "stops.json"
    ended = memory(file)
    ended.keep("service", "the emergency stop was called")
    ended.forget()
    assert not file.exists() and memory(file).waiting == {}


@pytest.mark.parametrize("content", ["", "[1]", "{", "\0"])
def test_a_file_that_says_nothing_is_a_stop_until_it_is_released(tmp_path: Path, content: str) -> None:
    file = tmp_path / "stops.json"
    file.write_text(content)
    found = memory(file)
    assert "does not say whether the emergency stop was released" in found.waiting["service"]
    found.keep("service", "")
    assert memory(file).waiting == {}


def test_a_stop_that_could_not_be_written_is_said_and_written_later(tmp_path: Path) -> None:
    folder, failures = tmp_path / "stops", list[str]()
    kept = StopMemory(folder / "stops.json", failures.append)
    folder.rmdir()
    folder.write_text("a file in the folder's place")
    kept.keep("service", "the emergency stop was called")
    kept.poll()
    assert len(failures) == 2 and "would be forgotten" in failures[0] and "emergency stop was called" in failures[0]
    folder.unlink()
    kept.poll()
    assert len(failures) == 2 and memory(folder / "stops.json").waiting == kept.waiting


def test_where_nothing_can_be_kept_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "stops").write_text("a file in the folder's place")
    with pytest.raises(CorftError, match="set ROS_HOME"):
        memory(tmp_path / "stops" / "stops.json")


def test_every_executor_of_a_machine_has_a_file_of_its_own(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_HOME", str(tmp_path))
    files = {stop_file(name, domain) for name in ("/executor_node", "/left/executor_node") for domain in (0, 1)}
    assert len(files) == 4 and {file.parent for file in files} == {tmp_path / "corft" / "stops"}
    monkeypatch.delenv("ROS_HOME")
    assert stop_file("/executor_node", 0) == Path.home() / ".ros" / "corft" / "stops" / "0.executor_node.json"
