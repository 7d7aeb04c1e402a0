"""All arms of one (suite, task, seed): demonstrations made once, features once, the same scenes for every arm."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.data.episode import Episode
from corft_core.evaluation.environment import Environment, Suite
from corft_core.evaluation.results import EpisodeResult
from corft_core.evaluation.rollout import run_trials
from corft_core.evidence import protocol as fixed
from corft_core.evidence import records
from corft_core.evidence.arms import ARMS, Arm, configure, settings_of
from corft_core.evidence.protocol import Protocol
from corft_core.evidence.records import Run, Trials
from corft_core.learning.loop import Diverged
from corft_core.learning.reuse import FeatureCache
from corft_core.learning.run_folder import RunFolder
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.policy.checkpoint import load_checkpoint
from corft_core.policy.config import PolicyConfig
from corft_core.policy.options import override

PACKAGES = ("torch", "numpy", "mujoco", "metaworld", "transformers")
CURVE_POINTS, VALUE_POINTS = 40, 150


class Group:
    """See the module's docstring. Run folders lie under ``work`` and may be deleted; results are kept."""

    def __init__(self, suite: Suite, task: str, seed: int, protocol: Protocol, results: Path, work: Path, *,
                 recipe: Mapping[str, Any], arms: Mapping[str, Arm] = ARMS) -> None:
        self.suite, self.task, self.seed, self.protocol = suite, task, seed, protocol
        self.results, self.arms = results, arms
        self.work = work / suite.name / task / str(seed)
        self.recipe = recipe
        self.features = FeatureCache(keep=2)
        self._episodes: dict[tuple[str, bool], list[Episode]] = {}
        self._environments: list[Environment] = []

    def close(self) -> None:
        """Free the worlds."""
        for environment in self._environments:
            environment.close()
        self._environments = []

    def settings(self, arm: Arm) -> dict[str, Any]:
        """Everything the arm's result depends on."""
        return settings_of(arm, self.seed, self.protocol, self.recipe, self.arms)

    def run(self, arms: Sequence[Arm]) -> Iterator[Run]:
        """Train and try the arms, yielding each when its file is written."""
        for arm in arms:
            seconds: dict[str, float] = {}
            with _Clock(seconds, "demonstrations"):
                limit = fixed.limit_steps([len(e) for e in self.demonstrations("random", False, fixed.DEMONSTRATIONS)])
                self.demonstrations(arm.start, arm.failures, arm.demonstrations)
            diverged, folder = "", None
            with _Clock(seconds, "training"):
                try:
                    folder = self.train(arm)
                except Diverged as error:
                    diverged = str(error)
            with _Clock(seconds, "trials"):
                splits = self.trials(arm, folder, limit)
            run = Run(
                self.suite.name, self.task, self.seed, arm.name, limit, fixed.horizon_steps(limit),
                self.suite.features(self.task).rate_hz, splits, self.settings(arm), seconds, diverged,
                versions(), commit(), command(sys.argv[1:]),
                curves_of(folder) if folder is not None and not arm.run_time else {},
                data=RunFolder(folder).data() if folder is not None else {},
                stage_one=RunFolder(folder).stage_one_digest() if folder is not None else "",
            )
            records.write(self.results, run)
            yield run

    def demonstrations(self, start: str, failures: bool, count: int) -> list[Episode]:
        """The first ``count`` demonstrations of the group's seed; made once, more of them when more are asked for."""
        kept = self._episodes.get((start, failures), [])
        if len(kept) < count:
            kept = self.suite.demonstrate(self.task, count, self.seed, start=start, failures=failures)
            self._episodes[start, failures] = kept
        return kept[:count]

    def train(self, arm: Arm) -> Path:
        """Run folder of the arm, trained unless it lies there finished; its parents first. Raises Diverged."""
        parent = self.train(self.arms[arm.parent]) if arm.parent else None
        if arm.run_time:
            assert parent is not None
            return parent
        folder = self.work / arm.name
        config = configure(arm, self.recipe, self.seed)
        finished = folder / "evidence.json"
        settings = json.dumps(self.settings(arm), sort_keys=True)
        if finished.exists() and finished.read_text() == settings:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        episodes = self.demonstrations(arm.start, arm.failures, arm.demonstrations)
        data = EpisodesInMemory(self.suite.features(self.task), episodes)
        train(data, folder, config, init=parent, features=self.features, quiet=True)
        shutil.rmtree(folder / "resume", ignore_errors=True)
        finished.write_text(settings)
        return folder

    def trials(self, arm: Arm, folder: Path | None, limit: int) -> dict[str, Trials]:
        """Trials on the paired scenes of both splits; without a policy (training diverged) all of them fail."""
        horizon, splits = fixed.horizon_steps(limit), fixed.SPLITS[arm.start]
        scenes = {split: self.suite.scene_ids(self.task, split, self.protocol.trials, self.protocol.first_scene)
                  for split in splits}
        if folder is None:
            return {split: Trials((False,) * len(ids), (horizon,) * len(ids), (),
                                  tuple(self.suite.unseen_kind(scene) for scene in ids))
                    for split, ids in scenes.items()}
        policy = load_policy(folder, arm.settings if arm.run_time else {})
        while len(self._environments) < min(fixed.WORLDS, self.protocol.trials):
            self._environments.append(self.suite.environment(self.task))
        found = {split: list(run_trials(policy, self._environments, ids, horizon, replan_steps=arm.replan_steps,
                                        seed=self.seed)) for split, ids in scenes.items()}
        rate_hz = self.suite.features(self.task).rate_hz
        return {split: self._trials(results, rate_hz) for split, results in found.items()}

    def _trials(self, results: Sequence[EpisodeResult], rate_hz: int) -> Trials:
        return Trials(tuple(result.success for result in results),
                      tuple(round(result.time_s * rate_hz) for result in results),
                      tuple(result.target_xy_m for result in results),
                      tuple(self.suite.unseen_kind(result.scene_id) for result in results))


def load_policy(folder: Path, selection: Mapping[str, Any]) -> Policy:
    """The last checkpoint of a run, with other run-time settings ``policy.selection.*`` where given."""
    checkpoints = RunFolder(folder)
    last = checkpoints.checkpoint("co_rft")
    bundle = load_checkpoint(last if last.exists() else checkpoints.checkpoint("sft"))
    changes = {key.removeprefix("policy."): value for key, value in selection.items()}
    bundle.config = override(PolicyConfig, asdict(bundle.config), changes)
    return Policy(bundle)


def curves_of(folder: Path) -> dict[str, Any]:
    """Thinned-out metrics by stage and key, and the critic's values of recorded chunks against the returns."""
    curves: dict[str, Any] = {}
    rows = RunFolder(folder).metrics()
    for stage in dict.fromkeys(row["stage"] for row in rows):
        mine = [row for row in rows if row["stage"] == stage]
        mine = mine[::max(1, -(-len(mine) // CURVE_POINTS))]
        curves[stage] = {key: [row.get(key) for row in mine] for key in mine[-1] if key not in ("stage", "seconds")}
    values = folder / "q_vs_return.json"
    if values.exists():
        data = json.loads(values.read_text())
        pick = np.linspace(0, len(data["q"]) - 1, min(VALUE_POINTS, len(data["q"]))).astype(int)
        curves["values"] = {
            "correlation": data["correlation"], "bias": data["bias"],
            "mc_return": [round(data["mc_return"][i], 3) for i in pick],
            "q": [[round(value, 3) for value in data["q"][i]] for i in pick],
        }
    return curves


def versions() -> dict[str, str]:
    """Of Python and the packages that results may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the checkout, with a + when tracked sources differ from it; "unknown" elsewhere."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True,
                          check=False).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "-uno", "--", ".."], cwd=here, capture_output=True,
                             text=True, check=False).stdout.strip()
    return head + "+" * bool(changed) if head else "unknown"


def command(arguments: Sequence[str]) -> str:
    """What to type to make a run again; folders of this machine are left out."""
    words = iter(arguments)
    kept = [word for word in words if not (word in ("--results", "--work") and next(words, "") is not None)]
    return " ".join(["python -m corft_core.evidence", *kept])


class _Clock:
    """Adds the seconds its block took to ``seconds[name]``."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(self.seconds.get(self.name, 0.0) + time.monotonic() - self.began, 2)
