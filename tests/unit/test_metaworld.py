"""Meta-World as a suite: scenes, operator, environment. Needs requirements/evidence.txt."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.benchmarks.metaworld import TASKS, MetaWorldSuite
from corft_core.benchmarks.metaworld.environment import FEATURES, MetaWorldEnvironment
from corft_core.benchmarks.metaworld.operator import MIXED, ImperfectExpert
from corft_core.benchmarks.metaworld.scenes import PATCH_U, PATCH_V, SEEN_U, scene_vector
from corft_core.benchmarks.metaworld.suite import record_episode
from corft_core.errors import CorftError

SUITE = MetaWorldSuite()
installed = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="needs Meta-World: pip install -r requirements/evidence.txt"
)
pytestmark = pytest.mark.filterwarnings("ignore:Constant\\(s\\) may be too high")


def place(scene_id: str) -> tuple[float, float]:
    """The object's position in units of the task's range; v = 0 where the range is a line."""
    task = TASKS[scene_id.split("/")[0]]
    low, high = np.array(task.low_m[:2]), np.array(task.high_m[:2])
    unit = (scene_vector(scene_id)[:2] - low) / np.where(high > low, high - low, 1.0)
    return float(unit[0]), float(unit[1])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SUITE.tasks), st.sampled_from(["demo", "ind", "ood"]), st.integers(0, 10_000))
def test_a_scene_follows_from_its_id_and_lies_in_its_split(task: str, split: str, number: int) -> None:
    scene_id = f"{task}/{split}/{number}"
    vector = scene_vector(scene_id)
    assert np.array_equal(vector, scene_vector(scene_id))
    assert np.all(vector >= TASKS[task].low_m) and np.all(vector <= TASKS[task].high_m)
    u, v = place(scene_id)
    in_patch = task != "drawer-open-v3" and PATCH_U[0] <= u <= PATCH_U[1] and PATCH_V[0] <= v <= PATCH_V[1]
    assert (u > SEEN_U or in_patch) == (split == "ood")
    assert SUITE.unseen_kind(scene_id) == ("surrounded" if in_patch else "beyond" if u > SEEN_U else "")


def test_splits_and_seeds_share_no_scene() -> None:
    for task in SUITE.tasks:
        numbers = (*range(50), *range(100_000, 100_020))
        ids = [f"{task}/{split}/{n}" for split in ("demo", "ind", "ood") for n in numbers]
        assert len({scene_vector(scene_id).tobytes() for scene_id in ids}) == len(ids)


def test_unseen_positions_are_surrounded_or_outside() -> None:
    even = [place(scene_id) for scene_id in SUITE.scene_ids("push-v3", "ood", 40)[::2]]
    odd = [place(scene_id) for scene_id in SUITE.scene_ids("push-v3", "ood", 40)[1::2]]
    assert all(u < SEEN_U for u, _ in even) and all(u > SEEN_U for u, _ in odd)


def test_the_fixed_start_moves_no_object() -> None:
    assert len({place(f"pick-place-v3/{split}/{n}") for split in ("fixed_demo", "fixed_ind") for n in range(5)}) == 1


@pytest.mark.parametrize("scene_id", ["push-v3/ind", "push-v3/train/1", "reach-v3/ind/1", "push-v3/ind/-1"])
def test_other_ids_are_refused(scene_id: str) -> None:
    with pytest.raises(CorftError, match="TASK/SPLIT/NUMBER"):
        scene_vector(scene_id)


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(CorftError, match=r"pip install -r requirements/evidence\.txt"):
        SUITE.environment("push-v3")


@installed
@pytest.mark.parametrize("task", SUITE.tasks)
def test_replayed_actions_give_the_recorded_states_and_success(task: str) -> None:
    environment = MetaWorldEnvironment(task)
    episode = record_episode(environment, f"{task}/demo/0", replace(MIXED, speed=(0.9, 1.0)))
    environment.reset(f"{task}/ind/3")  # a used world must not differ from a fresh one
    environment.step(np.array([1.0, 0.0, 0.0, 0.0]))
    environment.reset(episode.scene_id)
    for state, action in zip(episode.state, episode.action, strict=True):
        assert not environment.success
        np.testing.assert_array_equal(environment.observe()[1], state)
        environment.step(action.astype(np.float64))
    assert environment.success == episode.success
    environment.close()


@installed
def test_demonstrations_succeed_and_follow_from_the_seed() -> None:
    first, again, other = (SUITE.demonstrate("drawer-open-v3", 2, seed) for seed in (0, 0, 1))
    assert [e.scene_id for e in first] != [e.scene_id for e in other]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.state, two.state) and np.array_equal(one.action, two.action)
    for episode in first + other:
        episode.validate()
        assert episode.success and episode.images == {} and episode.instruction == "open the drawer"
        assert episode.state.shape[1] == len(FEATURES.state_names) and episode.action.shape[1] == 4
        assert np.all(np.abs(episode.action[:, :3]) <= 1.0) and np.all(np.abs(episode.action[:, 3] - 0.5) <= 0.5)


@installed
def test_kept_failures_include_some() -> None:
    episodes = SUITE.demonstrate("drawer-open-v3", 8, 0, failures=True)
    assert len(episodes) == 8 and 0 < sum(e.success for e in episodes) < 8


@installed
def test_goal_is_visible_and_vectors_fit() -> None:
    environment = MetaWorldEnvironment("pick-place-v3")
    environment.reset("pick-place-v3/ind/1")
    environment.step(np.array([0.0, 0.0, 0.0, 1.0]))
    names = FEATURES.state_names
    state = dict(zip(names, environment.observe()[1], strict=True))
    vector = scene_vector("pick-place-v3/ind/1")
    for axis, value in zip("xyz", vector[3:], strict=True):
        assert state[f"goal_{axis}"] == pytest.approx(value, abs=1e-6)
        assert state[f"to_goal_{axis}"] == pytest.approx(state[f"goal_{axis}"] - state[f"object_{axis}"], abs=1e-6)
        assert state[f"to_object_{axis}"] == pytest.approx(state[f"object_{axis}"] - state[f"hand_{axis}"], abs=1e-6)
    assert environment.target_xy_m == pytest.approx(tuple(vector[:2]), abs=2e-3)
    assert state["gripper"] == pytest.approx(1.0, abs=0.05), "open"
    for _ in range(30):
        environment.step(np.array([0.0, 0.0, 0.0, 0.0]))
    assert environment.observe()[1][-1] < 0.6, "opening 0 closes"
    environment.close()


@installed
def test_faults_show_in_the_motion() -> None:
    calm = ImperfectExpert("drawer-open-v3", [0], replace(MIXED, noise=(0.0, 0.0), pause=0.0, detour=0.0, aim_error=0))
    shaky = ImperfectExpert("drawer-open-v3", [0], replace(MIXED, pause=0.2, noise=(0.3, 0.3)))
    environment = MetaWorldEnvironment("drawer-open-v3")
    environment.reset("drawer-open-v3/ind/0")
    quiet = np.stack([calm.act(environment.observation) for _ in range(40)])
    noisy = np.stack([shaky.act(environment.observation) for _ in range(40)])
    assert np.all(quiet == quiet[0]) and calm.speed == shaky.speed
    pauses = np.all(noisy[:, :3] == 0.0, 1)
    assert 0.2 < pauses.mean() < 0.9 and noisy[~pauses, :3].std() > 0.1
    environment.close()
