"""Figures of made-up runs whose answers are known, and properties of the hierarchical bootstrap."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.evidence import __main__ as program
from corft_core.evidence import records
from corft_core.evidence.arms import ARMS, RECIPES, chosen, configure, settings_of
from corft_core.evidence.bootstrap import Block, hierarchical
from corft_core.evidence.page import made_of, readme_table, write_page
from corft_core.evidence.protocol import EVIDENCE
from corft_core.evidence.records import Run, Trials
from corft_core.evidence.runner import Plan
from corft_core.evidence.summary import HEADLINE, columns, judge, references, suite_summary, to_json, write_summary
from corft_core.learning.config import TrainConfig

LIMIT, HORIZON = 100, 150
BEYOND = 999
"""Stands for a trial that fails."""


def trials(steps: list[int], kinds: tuple[str, ...] = ()) -> Trials:
    return Trials(tuple(step != BEYOND for step in steps), tuple(min(step, HORIZON) for step in steps), (), kinds)


def run(arm: str, task: str, seed: int, ind: list[int], ood: list[int]) -> Run:
    kinds = ("surrounded", "beyond") * (len(ood) // 2)
    return Run("cell", task, seed, arm, LIMIT, HORIZON, 10, {"ind": trials(ind, ("",) * len(ind)),
               "ood": trials(ood, kinds)}, settings_of(ARMS[arm], seed, EVIDENCE, RECIPES["cell"]), {"trials": 1.0})


def plan(tmp_path: Path) -> Plan:
    return Plan(EVIDENCE, tmp_path / "runs", tmp_path, {"cell": ("cup", "bottle")}, chosen([]), {}, RECIPES)


def runs_of(*made: Run) -> dict[str, dict[tuple[str, int], Run]]:
    found: dict[str, dict[tuple[str, int], Run]] = {}
    for one in made:
        found.setdefault(one.arm, {})[one.task, one.seed] = one
    return found


KNOWN = runs_of(
    # cup: SFT solves half in time, and one more late; CO-RFT all, in half the time where both do.
    run("sft", "cup", 0, [80, 100, 120, BEYOND], [BEYOND, BEYOND, 90, BEYOND]),
    run("c51", "cup", 0, [40, 50, 60, 70], [90, BEYOND, 90, BEYOND]),
    # bottle: nothing in common, half the ability.
    run("sft", "bottle", 0, [BEYOND, BEYOND, BEYOND, 100], [BEYOND] * 4),
    run("c51", "bottle", 0, [90, 90, BEYOND, BEYOND], [90, BEYOND, BEYOND, BEYOND]),
)


def test_columns_tell_in_time_from_late_and_from_never():
    table = columns(run("sft", "cup", 0, [80, 100, 120, BEYOND], [BEYOND] * 4), "ind")
    assert table.tolist() == [[1, 1, 80, 80], [1, 1, 100, 100], [0, 1, 120, 120], [0, 0, 0, 150]]


def test_known_runs_give_known_figures():
    figures = suite_summary(KNOWN)
    sft, co_rft = figures["arms"]["sft"], figures["arms"]["c51"]
    assert sft["success"]["value"] == 0.375 and sft["success_longer"]["value"] == 0.5
    assert co_rft["success"]["value"] == 0.75 and co_rft["success"]["n"] == 2
    assert figures["success_ratio"]["value"] == 2.0
    assert figures["cycle_time_ratio"]["value"] == 0.5, "cup only: (40+50+60)/(80+100+120); bottle has no pair"
    against = co_rft["against"]["sft"]
    assert against["success_difference"]["value"] == 0.375
    # With failures at the horizon: cup (40+50+60+70)/(80+100+120+150), bottle (90+90+150+150)/(150+150+150+100).
    expected = (220 / 450 + 480 / 550) / 2
    assert against["cycle_time_ratio_failures_at_horizon"]["value"] == pytest.approx(expected, abs=1e-4)
    assert figures["ood_success"]["value"] == 0.375 and figures["ood_against_sft"]["value"] == 0.25
    assert figures["ood_drop_random_start"]["value"] == pytest.approx(0.75 - 0.375)
    assert co_rft["ood_surrounded"]["value"] == 0.75 and co_rft["ood_beyond"]["value"] == 0.0
    assert figures["tasks"]["cup"]["arms"]["c51"]["against"]["sft"]["success_difference"]["value"] == 0.5
    assert figures["tasks"]["cup"]["limit_s"] == 10.0


def test_a_comparison_takes_only_the_runs_that_both_arms_have():
    more = {arm: dict(found) for arm, found in KNOWN.items()}
    more["sft"]["cup", 1] = run("sft", "cup", 1, [BEYOND] * 4, [BEYOND] * 4)
    against = suite_summary(more)["arms"]["c51"]["against"]["sft"]
    assert against["success_difference"] == suite_summary(KNOWN)["arms"]["c51"]["against"]["sft"][
        "success_difference"]


def test_a_comparison_meets_its_target_by_value_and_interval_a_rate_by_its_value():
    good = judge("success_ratio", {"value": 1.6, "low": 1.1, "high": 2.0})
    assert good["met"] and good["interval_excludes_no_effect"]
    unsure = judge("success_ratio", {"value": 1.6, "low": 0.9, "high": 2.0})
    assert not unsure["met"] and not unsure["interval_excludes_no_effect"]
    assert not judge("against_bc100", {"value": 0.15, "low": -0.06, "high": 0.35})["met"]
    assert judge("ood_success", {"value": 0.45, "low": 0.2, "high": 0.7})["met"]
    assert not judge("cycle_time_ratio", {"value": 0.8, "low": 0.7, "high": 0.9})["met"]
    assert not judge("success_ratio", {"value": None, "low": None, "high": None})["met"]


def test_the_scalar_recipe_and_the_headline_without_the_runs_seen_before_have_figures_of_their_own():
    scalar = {key: replace(one, arm="co_rft") for key, one in KNOWN["sft"].items()}
    figures = suite_summary({**KNOWN, "co_rft": scalar})
    assert figures["scalar_recipe"]["success_ratio"]["value"] == 1.0, "here the scalar recipe is as good as SFT"
    unseen = figures["without_seen"]["success_ratio"]
    assert (unseen["value"], unseen["n"]) == (2.0, 1), "bottle alone: 50 % to 25 %"
    assert figures["success_ratio"]["n"] == 2


@pytest.mark.parametrize("suite", RECIPES)
def test_the_headline_s_recipe_is_the_trainer_s_default(suite):
    recipe, default = configure(ARMS[HEADLINE], RECIPES[suite], 0), TrainConfig()
    assert recipe.co_rft == default.co_rft
    assert (recipe.policy.critic, recipe.policy.selection) == (default.policy.critic, default.policy.selection)


def test_every_arm_is_compared_with_the_control_of_its_own_kind():
    assert references(ARMS["chunk_weighted"])[0] == "chunk_sft"
    assert references(ARMS["co_rft_fixed"]) == ["sft_fixed"], "other starts, other scenes"
    assert references(ARMS["co_rft"]) == ["sft", "sft_extra", "sft_low_noise", "no_ops_low_noise",
                                            "bc100_low_noise"]


def test_only_the_plan_s_runs_with_its_settings_are_summarised_and_the_others_are_named(tmp_path, capsys):
    good = run("sft", "cup", 0, [80] * 4, [80] * 4)
    changed = replace(good, task="bottle", settings=good.settings | {"sft.steps": 9})
    older = replace(run("sft", "cup", 1, [80] * 4, [80] * 4), protocol=0)
    for one in (good, changed, older, replace(good, task="cube"), replace(good, seed=9)):
        records.write(tmp_path / "runs", one)
    summary = write_summary(plan(tmp_path))
    assert (summary["runs"], summary["cell"]["arms"]["sft"]["runs"]) == (1, 1)
    assert summary["planned"] == len(plan(tmp_path).runs())
    said = capsys.readouterr().err
    assert "2 of runs, arm, task or seed that is not asked for" in said
    assert "1 of runs, other settings (sft.steps)" in said and "1 of runs, other settings (protocol)" in said


def test_runs_of_several_versions_are_all_named(tmp_path):
    for seed, torch in enumerate(("2.13.0", "2.12.0", "2.13.0")):
        made = run("sft", "cup", seed, [80] * 4, [80] * 4)
        records.write(tmp_path / "runs", replace(made, versions={"torch": torch}))
    summary = write_summary(plan(tmp_path))
    assert summary["versions"] == {"torch": ["2.12.0", "2.13.0"]} and "torch 2.12.0 or 2.13.0" in made_of(summary)


def test_runs_made_under_another_name_are_told(tmp_path):
    made = run("co_rft_full_noise", "cup", 0, [80] * 4, [80] * 4)
    records.write(tmp_path / "runs", replace(made, relabelled_from="co_rft"))
    records.write(tmp_path / "runs", run("co_rft", "cup", 0, [80] * 4, [80] * 4))
    summary = write_summary(plan(tmp_path))
    assert summary["relabelled"] == {"co_rft → co_rft_full_noise": 1}
    assert "before the recipe changed: co_rft → co_rft_full_noise (1)." in made_of(summary)


def test_the_page_and_its_pictures_are_made_of_the_runs(tmp_path):
    for found in KNOWN.values():
        for one in found.values():
            curves = {"sft": {"step": [1, 2], "loss": [1.0, 0.5]}, "values": {
                "correlation": [0.5, None], "bias": [0.0, 0.0], "mc_return": [0.2, 0.9], "q": [[0.1, 0.2], [0.8, 0.9]]}}
            splits = {name: replace(part, xy_m=tuple((0.4 + 0.05 * i, 0.1 * i) for i in range(4)))
                      for name, part in one.splits.items()}
            records.write(tmp_path / "runs", replace(one, curves=curves, splits=splits))
    summary = write_summary(plan(tmp_path))
    write_page(summary, plan(tmp_path), tmp_path / "docs")
    page = (tmp_path / "docs/evidence.md").read_text()
    assert "| success, ratio to SFT | at least 1.57 | × 2.00 [" in page and "| 4 runs" not in page
    assert "trained on (in-sample)" in page[page.index("cell_values.png"):]
    pictures = re.findall(r"\((images/evidence/\S+\.png)\)", page)
    assert len(pictures) == 5 and all((tmp_path / "docs" / picture).stat().st_size > 5000 for picture in pictures)
    shown = readme_table(summary)
    assert "| cell | CO-RFT | 2, trials only | 75 [" in shown and "targets reached" in shown


@pytest.mark.parametrize(("words", "written"), [
    ([], True), (["--suite", "cell"], False), (["--quick"], False), (["--results", "elsewhere"], False)])
def test_the_documents_are_written_when_everything_was_asked_for(words, written, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("a\n<!-- evidence table -->\nold\n<!-- end of evidence table -->\nz\n")
    made = run("sft", "cup", 0, [80] * 4, [80] * 4)
    splits = {name: replace(part, xy_m=((0.4, 0.1),) * 4) for name, part in made.splits.items()}
    records.write(tmp_path / "results/evidence/runs", replace(made, splits=splits))
    assert program.main(["--summary-only", *words]) == 0
    readme = (tmp_path / "README.md").read_text()
    assert ("| cell | SFT |" in readme and "old" not in readme) == written == (tmp_path / "docs/evidence.md").exists()
    assert readme.startswith("a\n<!-- evidence table -->\n") and readme.endswith("<!-- end of evidence table -->\nz\n")
    assert ("ARGS=--summary-only" in capsys.readouterr().out) == (not written and words != ["--quick"])


def test_a_folder_without_the_readme_s_table_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert program.main(["--summary-only"]) == 2
    assert "lacks the markers" in capsys.readouterr().err and not (tmp_path / "docs").exists()


def column(values: list[list[list[float]]]) -> Block:
    """tasks → runs → trials of one column."""
    return Block([[np.asarray(trials, float)[:, None] for trials in runs] for runs in values])


def average(means: np.ndarray) -> np.ndarray:
    return means[..., 0].mean(-1)


def test_equal_data_has_an_interval_without_width():
    (found,) = hierarchical([column([[[1, 1, 1], [1, 1, 1]]] * 2)], {"mean": average}).values()
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 4)


def test_no_data_gives_no_figure():
    (found,) = hierarchical([Block([])], {"mean": average}).values()
    assert math.isnan(found.value) and found.n == 0


def test_runs_that_disagree_widen_the_interval_more_than_trials_that_disagree():
    """Two all-or-nothing seeds know far less than twenty mixed trials of each."""
    mixed = [[[0.0, 1.0] * 10, [0.0, 1.0] * 10]]
    split = [[[0.0] * 20, [1.0] * 20]]
    widths = [found.high - found.low for data in (mixed, split)
              for found in hierarchical([column(data)], {"mean": average}).values()]
    assert widths[1] > 2 * widths[0]


def test_tasks_that_disagree_count_only_when_tasks_vary():
    data = column([[[0.0] * 10] * 3, [[1.0] * 10] * 3])
    vary = hierarchical([data], {"mean": average})["mean"]
    stay = hierarchical([data], {"mean": average}, tasks_vary=False)["mean"]
    assert (vary.low, vary.high) == (0.0, 1.0) and (stay.low, stay.high) == (0.5, 0.5)


def test_pairing_by_scene_removes_the_scenes_own_spread():
    """B is better by one trial in ten on scenes that differ a lot."""
    rng = np.random.default_rng(0)
    a = [[(rng.random(100) < 0.5).astype(float) for _ in range(5)] for _ in range(3)]
    paired = Block([[np.stack([x, np.maximum(x, np.arange(100) % 10 == 0)], 1) for x in runs] for runs in a])
    found = hierarchical([paired], {"difference": lambda m: (m[..., 1] - m[..., 0]).mean(-1)})["difference"]
    assert found.low > 0.0 and found.high - found.low < 0.08


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Runs with success rates around 0.6 ± 0.1 and 20 trials each; 95 % nominal, few runs, so a little less."""
    rng = np.random.default_rng(1)
    hits = 0
    for number in range(100):
        rates = np.clip(rng.normal(0.6, 0.1, (3, 6)), 0, 1)
        data = Block([[(rng.random((20, 1)) < rate).astype(float) for rate in task] for task in rates])
        found = hierarchical([data], {"mean": average}, draws=400, seed=number, tasks_vary=False)["mean"]
        hits += found.low <= 0.6 <= found.high
    assert 0.87 <= hits / 100 <= 1.0


def test_scenes_that_are_hard_for_every_run_are_covered_as_often():
    """Half of all scenes are lost and half are won, by every seed: five seeds know 20 scenes, not 100."""
    rng = np.random.default_rng(2)
    hits = 0
    for number in range(100):
        rates = rng.choice([0.05, 0.95], 20)
        data = Block([[(rng.random(20) < rates).astype(float)[:, None] for _ in range(5)]])
        found = hierarchical([data], {"mean": average}, draws=400, seed=number, tasks_vary=False)["mean"]
        hits += found.low <= 0.5 <= found.high
    assert 0.87 <= hits / 100 <= 1.0


def test_one_run_a_task_gives_an_interval_of_trials_only():
    one, two = (hierarchical([column([[[0.0, 1.0]] * runs] * 2)], {"mean": average})["mean"] for runs in (1, 2))
    assert one.trials_only and not two.trials_only
    assert to_json(one)["trials_only"] and "trials_only" not in to_json(two)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=3), min_size=1,
                max_size=3), st.integers(0, 1000))
def test_an_interval_holds_the_figure_s_range_and_repeats(data, seed):
    blocks = [column([[list(map(float, trials)) for trials in runs] for runs in data])]
    found = hierarchical(blocks, {"mean": average}, draws=200, seed=seed)["mean"]
    assert 0.0 <= found.low <= found.high <= 1.0 and found.n == sum(map(len, data))
    expected = np.mean([np.mean([np.mean(trials) for trials in runs]) for runs in data])
    assert found.value == pytest.approx(expected)
    assert hierarchical(blocks, {"mean": average}, draws=200, seed=seed)["mean"] == found


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 30), st.integers(0, 100))
def test_resampled_means_are_unbiased(tasks, runs, count, seed):
    """The mean over draws of the resampled figure is the figure."""
    rng = np.random.default_rng(seed)
    block = Block([[rng.random((count, 1)) for _ in range(runs)] for _ in range(tasks)])
    draws: list[np.ndarray] = []

    def keep(means: np.ndarray) -> np.ndarray:
        draws.append(average(means))
        return draws[-1]

    found = hierarchical([block], {"mean": keep}, draws=4000, seed=seed)["mean"]
    spread = draws[1].std() / np.sqrt(len(draws[1]))
    assert abs(draws[1].mean() - found.value) < 5 * spread + 1e-9
