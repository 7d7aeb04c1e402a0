"""The program behind `make demo`, small, with a vision-language model: every step is a real process, and what it leaves
is complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from corft_core.policy.backbones.small import make_small

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(1800),
              pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command on the PATH")]

QUICK = ("sft.steps=40", "sft.batch=16", "co_rft.steps=30", "co_rft.warmup=20", "co_rft.actor_steps=10",
         "co_rft.batch=16")


def test_the_demo_records_converts_trains_evaluates_drives_and_reports(ros_domain: int, tmp_path: Path) -> None:
    out, model = tmp_path / "demo", make_small(tmp_path / "model", "smolvlm")
    command = ["ros2", "run", "corft", "demo", "--out", str(out), "--episodes", "2", "--scenes", "1", "--live-scenes",
               "1", "--backbone", f"hf:{model}", "--domain-id", str(ros_domain),
               *(word for pair in QUICK for word in ("--set", pair))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-4000:]

    summary = json.loads((out / "summary.json").read_text())
    assert summary["demos"] == 2 and summary["seconds"] > 0 and summary["peak_rss_mb"] > 0
    for policy in ("sft", "co_rft"):
        for split in ("ind", "ood", "live"):
            row = summary[policy][split]
            assert {"success", "low", "high", "n", "cycle_time_s"} <= row.keys()
            assert row["n"] == 1 and 0 <= row["low"] <= row["success"] <= row["high"] <= 1
    live = json.loads((out / "live_co_rft.jsonl").read_text())
    assert live["outcome"] in ("success", "timeout") and live["chunks"] > 3, live
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") >= 4 and page.count("data:video/mp4") == 4
    assert not re.search(r"""(src|href)=["']?https?:""", page), "the page must need no network"
    assert "CO-RFT" in result.stdout, "the table is printed"

    again = subprocess.run([*command, "--continue"], capture_output=True, text=True, timeout=500, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "ros2 bag record" not in again.stderr, "finished steps are not done again"
