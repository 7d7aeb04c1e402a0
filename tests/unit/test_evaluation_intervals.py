"""Intervals and summaries say what their names promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corft_core.evaluation.intervals import bootstrap_mean, success_rate
from corft_core.evaluation.results import EpisodeResult, compare, read_results, scene_ids, summarise, to_json


def trial(scene: str, success: bool, time_s: float) -> EpisodeResult:
    return EpisodeResult(scene, success, time_s, (0.5, 0.0), 3)


def test_wilson_interval_of_eight_in_ten_matches_the_published_value():
    rate = success_rate([True] * 8 + [False] * 2)
    assert (rate.value, rate.n) == (0.8, 10)
    assert (rate.low, rate.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_success_interval_lies_in_zero_one_and_holds_the_rate(successes: list[bool]):
    rate = success_rate(successes)
    assert 0 <= rate.low <= rate.value + 1e-12 and rate.value <= rate.high + 1e-12 <= 1 + 1e-9


def test_no_trials_give_no_figure():
    assert math.isnan(success_rate([]).value) and bootstrap_mean([]).n == 0


def test_success_after_the_limit_counts_only_at_the_longer_limit():
    row = summarise([trial("ind/0", True, 9.0), trial("ind/1", True, 13.0), trial("ind/2", False, 15.0)], limit_s=10.0)
    assert row["success"] == pytest.approx(1 / 3, abs=1e-4) and row["n"] == 3
    assert row["success_at_1_5x_limit"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["cycle_time_s"] == 11.0


def test_a_summary_without_successes_has_no_cycle_time():
    assert summarise([trial("ind/0", False, 15.0)], 10.0)["cycle_time_s"] is None


def test_comparison_pairs_scenes_and_ignores_others():
    a = [trial("ind/0", True, 10.0), trial("ind/1", False, 15.0), trial("ind/9", True, 1.0)]
    b = [trial("ind/1", True, 6.0), trial("ind/0", True, 5.0)]
    result = compare(a, b, limit_s=10.0)
    assert result.success.value == 0.5 and result.success.n == 2
    assert result.cycle_time_ratio.value == pytest.approx(0.5) and result.cycle_time_ratio.n == 1


def test_results_survive_a_round_trip_through_json_lines(tmp_path):
    import json
    rows = [trial(scene, True, 3.5) for scene in scene_ids("ood", 2, first=4)]
    path = tmp_path / "live.jsonl"
    path.write_text("".join(json.dumps(to_json(row)) + "\n" for row in rows))
    assert read_results(path) == rows
