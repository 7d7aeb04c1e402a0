"""Ticks and the end of one policy run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corft.policy.run import PolicyRun

STEP_NS = 100_000_000


def run_of(ends: list[tuple[int, str]], start_ns: int = 0, deadline_ns: int | None = None) -> PolicyRun:
    return PolicyRun("go", start_ns, deadline_ns, STEP_NS, 5, lambda outcome, reason: ends.append((outcome, reason)))


@given(start_ns=st.integers(0, 10**18), waits_ns=st.lists(st.integers(0, 3 * 10**9), min_size=1, max_size=30))
def test_ticks_lie_on_the_grid_are_never_ahead_and_at_most_a_step_old(start_ns: int, waits_ns: list[int]) -> None:
    run, now_ns, last_ns = run_of([], start_ns), start_ns, -1
    for wait_ns in waits_ns:
        now_ns += wait_ns
        tick_ns = run.due_tick(now_ns)
        if tick_ns is None:
            assert last_ns >= 0 and now_ns < last_ns + 5 * STEP_NS
            continue
        assert (tick_ns - start_ns) % STEP_NS == 0
        assert now_ns - STEP_NS < tick_ns <= now_ns
        assert last_ns < 0 or tick_ns >= last_ns + 5 * STEP_NS
        run.predicted(tick_ns)
        last_ns = tick_ns


def test_a_tick_without_observation_is_tried_again_a_step_later() -> None:
    run = run_of([])
    assert run.due_tick(0) == 0
    run.skipped(0)
    assert run.due_tick(STEP_NS - 1) is None
    assert run.due_tick(STEP_NS) == STEP_NS
    assert 0.0 <= run.blind_s(STEP_NS) <= 0.1
    run.predicted(STEP_NS)
    assert run.blind_s(3 * STEP_NS) == 0.0
    assert (run.chunks, run.next_tick_ns) == (1, 6 * STEP_NS)


def test_only_the_first_end_counts() -> None:
    ends: list[tuple[int, str]] = []
    run = run_of(ends, deadline_ns=10)
    assert not run.timed_out(9) and run.timed_out(10)
    assert run.end(2, "timeout") and not run.end(0, "success")
    assert run.ended and ends == [(2, "timeout")]
