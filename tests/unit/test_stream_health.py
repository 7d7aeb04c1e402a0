"""Losses, rate, latency and silence of a stream."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from corft.stream_health import StreamHealth, percentile

MS = 1_000_000


@given(kept=st.lists(st.booleans(), min_size=1, max_size=200), jitter=st.integers(-10, 10))
def test_every_missing_period_between_two_samples_counts_once(kept: list[bool], jitter: int) -> None:
    assume("0" * 38 not in "".join("01"[keep] for keep in kept))  # two seconds without a sample are an outage
    health = StreamHealth("camera", rate_hz=20.0)
    sent = [0, *[i + 1 for i, keep in enumerate(kept) if keep], len(kept) + 1]
    for index in sent:
        shift = jitter * MS if index % 2 else 0
        health.record(1000 * MS + index * 50 * MS + shift, 0, 0.0)
    assert health.dropped == len(kept) - sum(kept)
    assert health.received == len(sent)


def test_the_period_is_learned_when_no_rate_is_given() -> None:
    health = StreamHealth("camera")
    stamps_ms = [0, 33, 67, 100, 133, 167, 267, 300]
    for stamp_ms in stamps_ms:
        health.record(stamp_ms * MS, (stamp_ms + 4) * MS, stamp_ms * 1e-3)
    assert health.dropped == 2
    assert health.seen_rate_hz == pytest.approx(7 / 0.3)
    assert health.latency_s(0.5) == pytest.approx(0.004)
    assert health.silence_s(1.3) == pytest.approx(1.0)


def test_a_clock_that_goes_back_is_no_loss_and_silence_counts_from_the_start() -> None:
    health = StreamHealth("camera", rate_hz=10.0, started_s=5.0)
    assert health.silence_s(7.5) == 2.5
    health.record(100_000 * MS, 0, 8.0)
    health.record(10 * MS, 0, 8.1)
    health.record(110 * MS, 0, 8.2)
    assert health.dropped == 0


def test_a_stream_that_stops_for_seconds_had_an_outage_and_lost_nothing() -> None:
    health = StreamHealth("camera")
    for stamp_ms in [*range(0, 500, 50), *range(30_000, 30_500, 50)]:
        health.record(stamp_ms * MS, 0, 0.0)
    assert (health.outages, health.dropped) == (1, 0)
    assert health.period_s == pytest.approx(0.05)
    assert health.age_s(30_460 * MS) == pytest.approx(0.01)


def test_percentiles_of_few_values() -> None:
    assert math.isnan(percentile([], 0.5))
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
