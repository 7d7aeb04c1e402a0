"""The evidence's runner on a suite of milliseconds: complete runs, resumable work, nothing mixed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from point_suite import PointSuite

from corft_core.errors import CorftError
from corft_core.evidence import __main__ as program
from corft_core.evidence import protocol as fixed
from corft_core.evidence import records
from corft_core.evidence.arms import ARMS, RECIPES, chosen, configure, settings_of
from corft_core.evidence.group import Group, command
from corft_core.evidence.protocol import Protocol
from corft_core.evidence.records import Run
from corft_core.evidence.runner import Plan, run_plan
from corft_core.evidence.summary import write_summary

RECIPE = {
    "policy.backbone": "none", "policy.head.width": 32, "policy.head.layers": 1, "policy.encoder.embedding": 16,
    "policy.critic.width": 8, "policy.head.flow_steps": 2, "policy.selection.samples": 4, "sft.steps": 20,
    "sft.batch": 16, "sft.warmup": 2, "co_rft.steps": 6, "co_rft.warmup": 2, "co_rft.actor_steps": 4,
    "co_rft.batch": 16,
}
SMALL = Protocol("runs", seeds=(0,), trials=3)


def group(tmp_path: Path, **changes: Any) -> Group:
    return Group(PointSuite(), "near", 0, SMALL, tmp_path / "results", tmp_path / "work", recipe=RECIPE | changes)


def plan(tmp_path: Path, names: tuple[str, ...], seeds: tuple[int, ...] = (0,)) -> Plan:
    protocol = Protocol("runs", seeds=seeds, trials=3)
    return Plan(protocol, tmp_path / "results/runs", tmp_path / "work", {"point": ("near", "far")}, chosen(names),
                {"point": "point_suite:PointSuite"}, {"point": RECIPE})


def test_every_arm_is_a_valid_recipe_and_every_parent_comes_before_its_children():
    seen: set[str] = set()
    for arm in ARMS.values():
        for suite, recipe in RECIPES.items():
            configure(arm, recipe, 0)
            assert arm.parent is None or arm.parent in seen, f"{arm.name} in {suite}"
        if arm.parent is not None:
            parent = ARMS[arm.parent]
            assert (parent.start, parent.failures, parent.demonstrations) == (
                arm.start, arm.failures, arm.demonstrations), f"{arm.name} starts from other data"
            assert not arm.main or parent.main
        seen.add(arm.name)


def test_run_time_arms_change_nothing_but_the_selection():
    for arm in ARMS.values():
        if arm.run_time:
            assert arm.parent is not None and all(key.startswith("policy.selection.") for key in arm.settings)


def test_a_group_writes_complete_runs_and_shares_stage_one(tmp_path):
    made = group(tmp_path)
    runs = {run.arm: run for run in made.run(chosen(["sft", "co_rft", "awr_n1"]))}
    assert list(runs) == ["sft", "co_rft", "awr_n1"]
    for run in runs.values():
        assert records.read(records.path(tmp_path / "results", "point", "near", 0, run.arm)) == run
        assert {split: len(trials.success) for split, trials in run.splits.items()} == {"ind": 3, "ood": 3}
        assert run.limit == runs["sft"].limit and run.horizon == fixed.horizon_steps(run.limit)
        assert set(run.splits["ood"].kind) == {"surrounded", "beyond"} and set(run.splits["ind"].kind) == {""}
        assert run.splits["ind"].xy_m == runs["sft"].splits["ind"].xy_m, "paired scenes"
    stage_one = [(tmp_path / "work/point/near/0" / name / "checkpoints/sft/model.safetensors").read_bytes()
                 for name in ("sft", "co_rft")]
    assert stage_one[0] == stage_one[1]
    assert not (tmp_path / "work/point/near/0/awr_n1").exists(), "a run-time arm trains nothing"
    assert runs["co_rft"].curves["values"]["q"] and runs["sft"].curves["sft"]["loss"]


def test_an_arm_executes_as_much_of_a_chunk_as_its_settings_say(tmp_path, monkeypatch):
    from corft_core.evidence import group as module

    asked: list[int] = []
    monkeypatch.setattr(module, "load_policy", lambda *_: None)
    monkeypatch.setattr(module, "run_trials", lambda *_, replan_steps, **__: asked.append(replan_steps) or [])
    made = group(tmp_path)
    arms = chosen(["co_rft", "replan_1", "replan_10", "h1", "h20"])
    for arm in arms:
        made.trials(arm, tmp_path, 10)
    assert asked == [5, 5, 1, 1, 10, 10, 1, 1, 5, 5]
    assert [made.settings(arm)["protocol.replan_steps"] for arm in arms] == [5, 1, 10, 1, 5]


def test_a_policy_of_single_actions_is_trained_and_tried_like_the_others(tmp_path):
    runs = {run.arm: run for run in group(tmp_path).run(chosen(["h1_sft", "h1"]))}
    assert runs["h1"].settings["policy.horizon"] == 1 and not runs["h1"].diverged
    assert len(runs["h1"].curves["values"]["correlation"]) == 1, "one prefix"
    assert {split: len(trials.success) for split, trials in runs["h1"].splits.items()} == {"ind": 3, "ood": 3}


def test_a_run_says_how_much_a_filter_removed_and_which_stage_1_it_started_from(tmp_path):
    runs = {run.arm: run for run in group(tmp_path).run(chosen(["sft", "co_rft", "no_ops", "no_ops_low_noise"]))}
    assert runs["sft"].data["removed_share"] == 0.0 < runs["no_ops"].data["removed_share"] < 0.5
    assert runs["sft"].data["imitated_steps"] == runs["sft"].data["steps"] == runs["no_ops"].data["steps"]
    assert runs["no_ops"].data == runs["no_ops_low_noise"].data
    digests = {name: run.stage_one for name, run in runs.items()}
    assert len(digests["sft"]) == 16 and digests["sft"] == digests["co_rft"] != digests["no_ops"]
    assert digests["no_ops"] == digests["no_ops_low_noise"]


def test_a_run_without_the_newer_fields_is_still_read(tmp_path):
    (run,) = group(tmp_path).run(chosen(["sft"]))
    file = records.path(tmp_path / "results", "point", "near", 0, "sft")
    older = json.loads(file.read_text())
    del older["data"], older["stage_one"]
    file.write_text(json.dumps(older))
    assert records.read(file) == replace(run, data={}, stage_one="")


def test_deleted_run_folders_are_made_again_for_a_child(tmp_path):
    list(group(tmp_path).run(chosen(["sft"])))
    shutil.rmtree(tmp_path / "work")
    (run,) = group(tmp_path).run(chosen(["sft_extra"]))
    assert run.arm == "sft_extra" and (tmp_path / "work/point/near/0/sft/checkpoints/sft").exists()


def test_a_recipe_that_diverges_counts_as_failures(tmp_path, monkeypatch):
    from corft_core.evidence import group as module
    from corft_core.learning.loop import Diverged

    def diverge(*_: object, **__: object) -> None:
        raise Diverged("the loss is nan")

    monkeypatch.setattr(module, "train", diverge)
    (run,) = group(tmp_path).run(chosen(["sft"]))
    assert run.diverged == "the loss is nan"
    assert run.splits["ind"].success == (False,) * 3 and set(run.splits["ind"].steps) == {run.horizon}


def test_the_work_list_is_breadth_first_headline_controls_levers(tmp_path):
    names = ("sft", "no_ops", "v_only")
    order = [(task, seed, arm.name) for _, task, seed, arm in plan(tmp_path, names, (0, 1)).runs()]
    assert order == [(task, seed, name) for name in names for seed in (0, 1) for task in ("near", "far")]


def test_controls_and_levers_take_the_first_seeds_only(tmp_path):
    made = replace(plan(tmp_path, ("sft", "no_ops", "v_only"), (3, 4, 5)),
                   protocol=Protocol(seeds=(3, 4, 5), control_seeds=2, lever_seeds=1))
    assert [made.seeds(arm) for arm in made.arms] == [(3, 4, 5), (3, 4), (3,)]


def test_lever_arms_run_on_few_tasks_with_few_seeds(tmp_path):
    made = Plan(Protocol(), tmp_path, tmp_path, {"cell": ("cup", "cube"), "metaworld": ("door",)},
                chosen(["sft", "v_only", "sft_fixed"]), {}, RECIPES)
    pairs = {arm.name: set(made.pairs(arm)) for arm in made.arms}
    assert pairs["sft"] == {("cell", "cup"), ("cell", "cube"), ("metaworld", "door")}
    assert pairs["v_only"] == {("cell", "cup"), ("metaworld", "door")}
    assert pairs["sft_fixed"] == {("cell", "cup"), ("cell", "cube")}


def test_finished_runs_are_skipped_until_their_settings_change(tmp_path):
    todo = plan(tmp_path, ("sft",))
    made = group(tmp_path)
    made.results, made.protocol = todo.results, todo.protocol
    list(made.run(chosen(["sft"])))
    assert [(task, seed) for _, task, seed, _ in todo.left()] == [("far", 0)]
    (file,) = todo.results.rglob("*.json")
    run = records.read(file)
    wanted = dict(run.settings)
    assert records.outdated(run, wanted) == []
    assert records.outdated(run, wanted | {"sft.lr": 0.5}) == [f"sft.lr: {run.settings['sft.lr']}, 0.5"]


def test_a_setting_that_came_after_a_run_counts_as_what_was_done_then_whatever_is_the_default_now():
    wanted = settings_of(ARMS["sft"], 0, SMALL, RECIPE)
    later = {"policy.history.steps", "sft.accumulate"}
    older = {key: value for key, value in wanted.items() if key not in later}
    run = Run("point", "near", 0, "sft", 10, 15, 10, {}, older, {})
    assert records.outdated(run, wanted) == []
    assert records.outdated(run, wanted | {"policy.history.steps": 4}) == ["policy.history.steps: 1, 4"]
    del older["co_rft.alpha"]
    assert records.outdated(run, wanted) == [f"co_rft.alpha: None, {wanted['co_rft.alpha']}"], "never a default"


def test_every_setting_that_a_kept_run_lacks_has_its_value_of_that_time():
    known = set(settings_of(ARMS["sft"], 0, SMALL, RECIPE))
    assert set(fixed.ADDED_SETTINGS) <= known
    for run in records.read_all(Path(__file__).parents[2] / "results/evidence/runs"):
        assert known - set(run.settings) <= set(fixed.ADDED_SETTINGS), (run.suite, run.task, run.seed, run.arm)


@pytest.mark.slow
def test_two_workers_finish_everything_and_the_summary_holds_it(tmp_path):
    lines: list[str] = []
    todo = plan(tmp_path, ("sft", "c51"))
    assert run_plan(todo, 2, lines.append) == 0
    assert len(lines) == 5 and lines[0].startswith("4 runs left in 2 groups") and "min left" in lines[-1]
    assert run_plan(todo, 2, lines.append) == 0 and lines[-1].startswith("0 runs left")
    summary = write_summary(todo)
    assert json.loads((tmp_path / "results/summary.json").read_text()) == summary
    assert {"success_ratio", "cycle_time_ratio", "ood_success", "ood_drop_random_start", "targets"} <= set(
        summary["point"])


@pytest.mark.parametrize(("words", "message"), [
    (["--arm", "ppo"], "no arm ppo"), (["--suite", "moon"], "no suite moon"), (["--set", "seed=1"], "belongs to"),
])
def test_wrong_words_are_explained(words, message, capsys):
    assert program.main(["--list", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_unreadable_run_is_named(tmp_path):
    file = tmp_path / "cell/cup/0/sft.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(CorftError, match=r"sft\.json is no run"):
        list(records.read_all(tmp_path))


def test_the_quick_part_and_tuning_never_mix_with_the_evidence():
    folders = [fixed.EVIDENCE.folder, fixed.QUICK.folder, fixed.tuning("a").folder]
    assert len(set(folders)) == 3
    assert not set(fixed.EVIDENCE.seeds) & set(fixed.TUNING.seeds)
    assert fixed.EVIDENCE.first_scene + fixed.EVIDENCE.trials <= fixed.TUNING.first_scene
    assert fixed.TUNING.tasks == fixed.TUNING_TASKS


def test_the_kept_command_names_no_folder_of_this_machine():
    assert command(["--suite", "cell", "--results", "/a/b", "--arm", "sft", "--work", "/c"]) == (
        "python -m corft_core.evidence --suite cell --arm sft"
    )
