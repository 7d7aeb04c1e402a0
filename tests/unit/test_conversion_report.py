"""The report's figures by hand-made streams: drops, gaps, ages, several bags put together, what counts as a loss."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE

from corft_core.contract import Contract
from corft_core.data import Episode
from corft_core.data.report import BagReport, StreamMeter, losses, summary, text
from corft_core.data.report_page import page

CONTRACT = Contract.load(CONTRACT_FILE)
PERIOD_NS = 33_333_333
IMAGE = "sensor_msgs/msg/Image"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_drops_are_all_reported(data: st.DataObject) -> None:
    count = data.draw(st.integers(20, 200))
    jitter = data.draw(st.lists(st.integers(-3_000_000, 3_000_000), min_size=count, max_size=count))
    lost = data.draw(st.sets(st.integers(1, count - 2), max_size=count // 4))
    meter = StreamMeter("/camera", IMAGE, periodic=True)
    kept = [k for k in range(count) if k not in lost]
    for k in kept:
        meter.add(k * PERIOD_NS + jitter[k], 0)
    found = meter.to_dict(0, PERIOD_NS, count)
    runs = [b - a - 1 for a, b in pairwise(kept) if b - a > 1]
    assert found["messages"] == len(kept) and sum(found["timeline"]["messages"]) == len(kept)
    assert found["dropped"] == len(lost) and found["gaps"] == len(runs)
    lengths = [round(gap["length_s"] / PERIOD_NS * 1e9) - 1 for gap in found["gap_list"]]
    assert lengths == runs


def test_pauses_between_episodes_are_no_gaps() -> None:
    meter = StreamMeter("/camera", IMAGE, periodic=True)
    for start in (0, 60):
        for k in range(-5, 30):
            meter.add(round((start + 0.1 * k) * 1e9), start if k >= 0 else None)
    found = meter.to_dict(0, 10**9, 70)
    assert found["gaps"] == 0 and found["rate_hz"] == pytest.approx(10) and found["largest_gap_s"] == pytest.approx(0.1)
    assert meter.largest_gap_s(0, 2_900_000_000) == pytest.approx(0.1)
    assert meter.largest_gap_s(0, 60_000_000_000) == pytest.approx(56.6)  # 2.9 s … 59.5 s


def test_a_stream_that_is_silent_between_episodes_has_no_gap_there() -> None:
    meter = StreamMeter("/commands", IMAGE, periodic=True)
    for episode in range(3):
        for k in range(20):
            meter.add(round((60 * episode + 0.1 * k) * 1e9), episode)
    found = meter.to_dict(0, 10**9, 200)
    assert found["gaps"] == 0 and found["rate_hz"] == pytest.approx(10) and found["largest_gap_s"] == pytest.approx(0.1)


def bag(path: str, seconds: float, opening: float, kept: bool = True) -> dict[str, Any]:
    """A bag's report: cameras at 10 Hz, one episode of 20 steps."""
    report = BagReport(path, CONTRACT, [[-3.0] * 7, [3.0] * 7])
    for name in CONTRACT.streams:
        report.meter(name, f"/{name}", IMAGE)
        for k in range(round(10 * seconds)):
            report.meters[name].add(k * 10**8, 0)
    columns: dict[str, Any] = {"source.tick_ns": np.arange(20) * 10**8}
    for name in CONTRACT.observation_streams:
        columns[f"source.{name}.stamp_ns"] = np.arange(20) * 10**8
        columns[f"source.{name}.age_s"] = np.full(20, 0.01 * seconds, np.float32)
    action = np.zeros((20, 8), np.float32)
    action[:, 7], action[3, 2] = opening, 3.5
    if kept:
        report.add_episode(Episode({}, np.zeros((20, 8), np.float32), action, "", True, "", columns))
    report.episodes.append({"kept": kept, "reason": None if kept else "unfinished", "damaged": not kept,
                            "scene_id": path, "instruction": "pick", "steps": 20 * kept, "idle_steps": 5,
                            "stale_steps": 0, "outcome": "success", "start_ns": 0, "end_ns": 2 * 10**9})
    return report.to_dict()


def test_bags_are_put_together() -> None:
    report = summary([bag("a", 3.0, 1.0), bag("b", 5.0, 1.0), bag("c", 2.0, 1.0, kept=False)],
                     [{"path": "d", "reason": "is cut off"}])
    assert report["episodes_kept"] == 2 and report["steps"] == 40 and report["left_out"] == {"unfinished": 1}
    assert report["idle_share_trimmed"] == pytest.approx(15 / 55, abs=1e-4)
    front = report["streams"]["front"]
    assert front["messages"] == 100 and front["age_s"] == {"mean": 0.04, "p95": 0.05, "max": 0.05, "count": 40}
    assert report["bags"][0]["clipped"]["joint_steps"]["panda_joint3"] == 1
    assert "panda_joint3 on 1 steps" in text(report)
    assert any("never commanded to close" in note for note in report["notes"])
    assert losses(report) == ["d left out: is cut off", "episode at 0.0 s of c left out: unfinished"]
    assert page(report).count("<svg") == 3


def test_a_gripper_that_closes_is_not_complained_about() -> None:
    report = summary([bag("a", 3.0, 1.0), bag("b", 3.0, 0.2)], [])
    assert report["notes"] == [] and losses(report) == []
    assert report["bags"][1]["gripper"]["commanded"] == {"min": 0.2, "max": 0.2, "closed_share": 1.0}
