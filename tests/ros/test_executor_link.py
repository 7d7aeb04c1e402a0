"""When its executor ends a policy's run: silent, stopped, or no longer enabled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from corft_msgs.msg import ExecutionStatus

from corft.policy.executor_link import SILENT_S, WAKING_S, ExecutorLink

pytestmark = pytest.mark.ros
DISABLED, IDLE, EXECUTING, STOPPED = (
    ExecutionStatus.DISABLED, ExecutionStatus.IDLE, ExecutionStatus.EXECUTING, ExecutionStatus.STOPPED)
BEGUN_S, TICK_S = 100.0, 0.05


class Executor:
    """Says a state for a while; steady time passes only here. The run begins at BEGUN_S."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = BEGUN_S
        monkeypatch.setattr("corft.policy.executor_link.time", SimpleNamespace(monotonic=lambda: self.now_s))
        node: Any = SimpleNamespace(create_subscription=lambda *_: None)
        self.link = ExecutorLink(node)

    def says(self, state: int, for_s: float = TICK_S, **more: str) -> str:
        """The run's trouble after it."""
        for _ in range(round(for_s / TICK_S)):
            self.now_s += TICK_S
            self.link._on_status(ExecutionStatus(state=state, **more))
        return self.link.trouble(BEGUN_S)

    def is_silent(self, for_s: float) -> str:
        """The run's trouble after it."""
        self.now_s += for_s
        return self.link.trouble(BEGUN_S)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    return Executor(monkeypatch)


@pytest.mark.parametrize("before", [None, DISABLED, EXECUTING, STOPPED])
def test_one_that_was_not_heard_since_the_run_began_is_waited_for_as_long_as_a_silent_one(
        executor: Executor, before: int | None) -> None:
    if before is not None:
        executor.now_s -= 10.0
        executor.says(before)
        executor.now_s = BEGUN_S
    assert not executor.is_silent(SILENT_S - 0.1)
    assert "silent for 5 s" in executor.is_silent(0.2)


def test_one_that_falls_silent_is_trouble_and_one_that_comes_back_enabled_in_time_is_not(executor: Executor) -> None:
    assert not executor.says(EXECUTING, 1.0)
    assert not executor.is_silent(SILENT_S - 0.1)
    assert not executor.says(DISABLED, WAKING_S - 0.1), "auto_enable: it has yet to wake up"
    assert not executor.says(IDLE, 10.0)
    assert "silent for 6 s" in executor.is_silent(6.0)


def test_one_that_stops_says_why(executor: Executor) -> None:
    assert not executor.says(EXECUTING)
    assert executor.says(STOPPED, reason="STALE", message="no joints") == "the executor has stopped: STALE: no joints"


def test_one_that_the_operator_has_not_enabled_yet_is_waited_for(executor: Executor) -> None:
    executor.now_s -= 10.0
    executor.says(EXECUTING)
    executor.now_s = BEGUN_S
    assert not executor.says(DISABLED, 20.0), "it was enabled before the run only"
    assert not executor.says(IDLE, 20.0)


@pytest.mark.parametrize("silent_s", [0.0, 3.0])
def test_one_that_was_enabled_and_stays_disabled_is_trouble(executor: Executor, silent_s: float) -> None:
    assert not executor.says(DISABLED, 2.0)
    assert not executor.says(IDLE)
    assert not executor.is_silent(silent_s)
    assert not executor.says(DISABLED, WAKING_S - 0.1)
    assert "call its ~/enable, then send the goal again" in executor.says(DISABLED, 0.3)
    assert not executor.says(IDLE), "enabled again"


def test_the_farewell_of_one_that_is_ended_is_not_what_its_successor_says(executor: Executor) -> None:
    assert not executor.says(EXECUTING)
    assert not executor.says(DISABLED)
    assert not executor.is_silent(3.0)
    assert not executor.says(DISABLED, WAKING_S - 0.1)
    assert not executor.says(IDLE)
