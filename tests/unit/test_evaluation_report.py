"""The report is one file that needs nothing else, and its figures are those of the summary."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corft_core.evaluation import video
from corft_core.evaluation.report import ReportData, comparison_sentences, text_table, write_report
from corft_core.evaluation.results import EpisodeResult, compare, summarise, to_json

LIMIT_S = 10.0


def trials(times: list[float]) -> list[EpisodeResult]:
    return [EpisodeResult(f"ind/{i}", time < 15.0, time, (0.45 + 0.01 * i, -0.05 + 0.02 * i), 3)
            for i, time in enumerate(times)]


def data() -> ReportData:
    results = {split: {"sft": trials([9.0, 15.0, 12.0, 15.0]), "co_rft": trials([6.0, 8.0, 7.0, 9.5])}
               for split in ("ind", "ood", "live")}
    comparisons = {split: compare(rows["sft"], rows["co_rft"], LIMIT_S) for split, rows in results.items()}
    summary = {"demos": 40, "seconds": 600.0, "peak_rss_mb": 2000, "machine": "2 cores", "commit": "abc",
               "versions": {"torch": "2"}, "comparison": to_json(comparisons),
               **{name: {split: summarise(rows[name], LIMIT_S) for split, rows in results.items()}
                  for name in ("sft", "co_rft")}}
    metrics = [{"stage": "sft", "step": step, "loss": 1.0 / step} for step in range(1, 5)]
    return ReportData(summary, results, comparisons, LIMIT_S, demo_times_s=[8.0, 12.0],
                      demo_targets_m=[(0.5, 0.0)], metrics=metrics, q_values=[0.2, 0.6], returns=[0.1, 0.7],
                      commands=["ros2 bag record <topics>"])


def test_the_page_is_self_contained_and_holds_the_figures(tmp_path):
    write_report(tmp_path / "report.html", data())
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=.?https?:", page) and page.count("data:image/png") == 4
    assert "25 %" in page and "100 %" in page, "success of SFT and CO-RFT within the limit"
    assert "&lt;topics&gt;" in page, "commands are escaped"


def test_the_terminal_table_has_a_row_for_each_policy_and_split():
    lines = text_table(data().summary).splitlines()
    assert len(lines) == 2 + 6 and sum("CO-RFT" in line for line in lines) == 3


def test_a_difference_whose_interval_holds_zero_is_called_no_difference():
    same = compare(trials([9.0, 15.0]), trials([15.0, 9.0]), LIMIT_S)
    assert "no difference can be told" in comparison_sentences({"ind": same})[0]
    better = compare(trials([15.0] * 20), trials([9.0] * 20), LIMIT_S)
    assert "succeeds more often" in comparison_sentences({"ind": better})[0]


def test_no_common_success_gives_a_ratio_of_null_in_json():
    row = to_json(compare(trials([15.0]), trials([9.0]), LIMIT_S))
    assert row["cycle_time_ratio"]["value"] is None and not math.isnan(row["success"]["value"])


def test_videos_side_by_side_keep_the_last_frame_of_the_shorter_one():
    short = [np.zeros((8, 8, 3), np.uint8)] * 2
    long = [np.full((8, 8, 3), 250, np.uint8)] * 5
    frames = video.side_by_side({"": short, " ": long}, height=64)
    assert len(frames) == 5 and frames[0].shape == (64, 128, 3)
    assert frames[4][40, 10].max() == 0 and frames[4][40, 100].min() > 240
    assert video.to_data_uri(frames, fps=10).startswith("data:video/mp4;base64,")


def test_a_moving_picture_shows_every_frame_and_rests_on_the_outcome(tmp_path: Path):
    frames = [np.full((64, 128, 3), 60 * step, np.uint8) for step in range(4)]
    video.save_webp(frames, 20, tmp_path / "policies.webp")
    with Image.open(tmp_path / "policies.webp") as picture:
        durations, greys = [], []
        for step in range(picture.n_frames):
            picture.seek(step)
            greys.append(int(np.asarray(picture.convert("L")).mean()))
            durations.append(picture.info["duration"])
    assert greys == pytest.approx([0, 60, 120, 180], abs=6) and durations == [50, 50, 50, 2000]
