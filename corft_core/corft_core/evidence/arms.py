"""The recipes that are compared: each is a plain TrainConfig on one kind of demonstrations.

``RECIPES`` is the recipe of each suite with a scalar critic, the arm ``co_rft``; every other arm, the headline ``c51``
too, states only where it departs from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from corft_core.errors import CorftError
from corft_core.evidence.protocol import (
    DEMONSTRATIONS,
    HORIZON,
    LONGER,
    LOW_NOISE,
    MANY_DEMONSTRATIONS,
    REPLAN_STEPS,
    WORLDS,
    Protocol,
)
from corft_core.evidence.records import flat
from corft_core.learning.config import TrainConfig
from corft_core.policy.options import override

_SCALAR = {"policy.critic.head": "scalar", "co_rft.lr": 5e-4}
RECIPES: dict[str, dict[str, Any]] = {
    "cell": _SCALAR | {"policy.backbone": "effnet", "sft.steps": 2000},
    "metaworld": _SCALAR | {"policy.backbone": "none", "sft.steps": 2000},
}


Kind = Literal["headline", "control", "lever"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they run."""


@dataclass(frozen=True)
class Arm:
    """One recipe. ``parent``: the arm whose stage 1, and critic where its settings agree, this one starts from.

    ``run_time``: not trained, the parent's checkpoint used with other ``policy.selection`` settings.
    ``kind``: "headline" arms run on every task with every seed, "control" arms on every task with the protocol's
    ``control_seeds``, "lever" arms on LEVER_TASKS with ``lever_seeds``. ``suites``: empty = all.
    ``replan_steps``: how many actions of a chunk are executed.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    kind: Kind = "lever"
    run_time: bool = False
    demonstrations: int = DEMONSTRATIONS
    start: str = "random"
    failures: bool = False
    suites: tuple[str, ...] = ()
    replan_steps: int = REPLAN_STEPS

    @property
    def main(self) -> bool:
        """Whether it runs on every task."""
        return self.kind != "lever"


def _arms() -> Iterable[Arm]:
    full_noise = {"policy.selection.noise_scale": 1.0}  # as flow matching is sampled elsewhere
    low_noise = {"policy.selection.noise_scale": LOW_NOISE}
    imitation = {"co_rft.steps": 0, "co_rft.warmup": 0} | full_noise
    extra = {"co_rft.extraction": "imitation"} | full_noise
    awr = {"co_rft.extraction": "awr"} | low_noise
    ranked = {"co_rft.extraction": "best_of_n"} | low_noise
    c51 = {"policy.critic.head": "c51", "co_rft.lr": 2e-3}
    chunk = {"policy.head.kind": "chunk"}
    cell = ("cell",)

    yield Arm("sft", "SFT (flow, N = 1)", imitation, kind="headline")
    yield Arm("sft_extra", "SFT with the extra steps of stage 2", extra, "sft", kind="headline")
    yield Arm("co_rft", "CO-RFT, scalar critic", awr, "sft", kind="headline")
    yield Arm("c51", f"CO-RFT (C51 critic, AWR + best of 16, noise × {LOW_NOISE})", awr | c51, "sft", kind="headline")
    yield Arm("sft_low_noise", f"SFT, noise × {LOW_NOISE}", low_noise, "sft", kind="headline", run_time=True)
    yield Arm("co_rft_full_noise", "CO-RFT, scalar critic, noise × 1", full_noise, "co_rft", kind="headline",
              run_time=True)
    yield Arm("sft_extra_low_noise", f"SFT with the extra steps of stage 2, noise × {LOW_NOISE}", low_noise,
              "sft_extra", kind="control", run_time=True)
    yield Arm("best_of_n", "SFT + best of 16 by the prefix critic", ranked, "co_rft", kind="control")
    yield Arm("no_ops", "SFT on data without pauses", imitation | {"sft.filter": "no_ops"}, kind="control")
    yield Arm("no_ops_low_noise", f"SFT on data without pauses, noise × {LOW_NOISE}", low_noise, "no_ops",
              kind="control", run_time=True)
    yield Arm("no_ops_c51", "CO-RFT on data without pauses", awr | c51 | {"sft.filter": "no_ops"}, "no_ops",
              kind="control")
    yield Arm("sft_fixed", "SFT, fixed start", imitation, kind="control", start="fixed", suites=cell)
    yield Arm("co_rft_fixed", "CO-RFT, scalar critic, fixed start", awr, "sft_fixed", kind="control", start="fixed",
              suites=cell)
    yield Arm("bc100", "SFT on 100 demonstrations", imitation, kind="headline", demonstrations=MANY_DEMONSTRATIONS)
    yield Arm("bc100_low_noise", f"SFT on 100 demonstrations, noise × {LOW_NOISE}", low_noise, "bc100", kind="control",
              run_time=True, demonstrations=MANY_DEMONSTRATIONS)

    # What the policy does with the critic
    yield Arm("awr_n1", "AWR, N = 1", {"policy.selection.samples": 1}, "co_rft", run_time=True)
    yield Arm("best_of_4", "SFT + best of 4", {"policy.selection.samples": 4}, "best_of_n", run_time=True)
    yield Arm("best_of_64", "SFT + best of 64", {"policy.selection.samples": 64}, "best_of_n", run_time=True)
    yield Arm("rank_mean", "ranked by the mean over prefixes", {"policy.selection.rank": "mean"}, "co_rft",
              run_time=True)
    yield Arm("gradient", "run-time gradient, 5 × 0.1", {"policy.selection.gradient_steps": 5}, "co_rft",
              run_time=True)
    yield Arm("adaptive", "execution length from the prefix values", {"policy.selection.adaptive": True}, "co_rft",
              run_time=True)
    for steps in (1, 3, HORIZON):
        yield Arm(f"replan_{steps}", f"{steps} of {HORIZON} actions executed", {}, "co_rft", run_time=True,
                  replan_steps=steps)
    yield Arm("v_only", "AWR from a state value, no action critic, N = 1",
              awr | {"co_rft.advantage": "value", "policy.selection.samples": 1}, "sft")
    yield Arm("temperature_1", "AWR temperature 1", awr | {"co_rft.temperature": 1.0}, "co_rft")

    # Data filters
    yield Arm("no_ops_best_of_n", "no pauses + best of 16", ranked | {"sft.filter": "no_ops"}, "no_ops")
    yield Arm("fastest", "SFT on the fastest third", imitation | {"sft.filter": "fastest", "sft.keep_share": 0.33})
    yield Arm("failures_sft", "SFT, failures recorded but not imitated", imitation, failures=True)
    yield Arm("failures_sft_all", "SFT, failures imitated too", imitation | {"sft.successes_only": False},
              failures=True)
    yield Arm("failures_co_rft", "CO-RFT, failures recorded, for critic and policy",
              awr | {"co_rft.successes_only": False}, "failures_sft", failures=True)
    yield Arm("failures_critic", "CO-RFT, failures recorded, for the critic only", awr, "failures_sft", failures=True)

    # Deterministic chunk head
    yield Arm("chunk_sft", "chunk head: SFT", chunk | imitation, kind="control")
    yield Arm("chunk_extra", "chunk head: SFT with extra steps", chunk | extra, "chunk_sft")
    yield Arm("chunk_no_ops", "chunk head: SFT without pauses", chunk | imitation | {"sft.filter": "no_ops"})
    yield Arm("chunk_paper", "chunk head: the paper's actor, no anchor", chunk | {"co_rft.extraction": "paper"},
              "chunk_sft")
    yield Arm("chunk_anchored", "chunk head: −Q with BC anchor", chunk | {"co_rft.extraction": "anchored"},
              "chunk_sft")
    yield Arm("chunk_weighted", "chunk head: −Q with advantage-weighted anchor",
              chunk | {"co_rft.extraction": "weighted_anchor"}, "chunk_sft")
    yield Arm("chunk_awr", "chunk head: AWR", chunk | awr, "chunk_sft")
    yield Arm("td3_bc", "chunk head: TD3+BC, 1-step critic", chunk | {
        "co_rft.extraction": "anchored", "policy.critic.horizon": 1, "co_rft.target_source": "network",
        "co_rft.target_noise": 0.2, "co_rft.policy_delay": 2, "co_rft.q_weight": 2.5, "co_rft.alpha": 0.0,
    }, "chunk_sft")

    # The critic, with the headline's extraction
    for name, title, settings in (
        ("one_step", "1-step TD: the critic reads the first action", {"policy.critic.horizon": 1}),
        ("no_prefixes", "critic without prefixes", {"policy.critic.prefixes": False}),
        ("uncalibrated", "conservative term without calibration", {"co_rft.calibrated": False}),
        ("alpha_0", "no conservative term", {"co_rft.alpha": 0.0}),
        ("alpha_5", "five times the conservative term", {"co_rft.alpha": 0.5}),
        ("logsumexp", "log-sum-exp conservative term", {"co_rft.conservative": "logsumexp"}),
        ("no_upsampling", "reward counted once", {"co_rft.reward_copies": 1}),
        ("shared_targets", "one target for all prefixes", {"co_rft.targets": "shared"}),
        ("mc_returns", "Monte-Carlo returns, no bootstrap", {"co_rft.value": "mc"}),
        ("iql", "IQL value, expectile 0.7", {"co_rft.value": "iql"}),
        ("max_bootstrap", "bootstrap from the best of the policy's chunks", {"co_rft.bootstrap": "max"}),
        ("network_targets", "EMA target networks, no table", {"co_rft.target_source": "network"}),
        ("hl_gauss", "distributional critic, HL-Gauss", {"policy.critic.head": "hl_gauss", "co_rft.lr": 2e-3}),
        ("transformer", "transformer critic", {"policy.critic.kind": "transformer"}),
        ("ensemble_5", "five critics", {"policy.critic.ensemble": 5}),
        ("gamma_95", "discount 0.95", {"co_rft.gamma": 0.95}),
        ("gamma_99", "discount 0.99", {"co_rft.gamma": 0.99}),
    ):
        yield Arm(name, title, awr | settings, "sft")
    yield Arm("q_chunking", "Q-chunking: best of N in bootstrap and at run time", ranked | {
        "policy.critic.prefixes": False, "co_rft.bootstrap": "max", "co_rft.policy_samples": 16,
        "co_rft.alpha": 0.0,
    }, "sft")

    # Chunk length and augmentation change stage 1 as well
    for horizon in (1, 5, 20):
        length, executed = {"policy.horizon": horizon}, min(horizon, REPLAN_STEPS)
        yield Arm(f"h{horizon}_sft", f"SFT, h = {horizon}", imitation | length, replan_steps=executed)
        yield Arm(f"h{horizon}", f"CO-RFT, h = {horizon}", awr | length, f"h{horizon}_sft", replan_steps=executed)
    plain = {"sft.token_noise": 0.0, "sft.state_noise": 0.0}
    yield Arm("no_noise_sft", "SFT without input noise", imitation | plain)
    yield Arm("no_noise", "CO-RFT without input noise", awr | plain, "no_noise_sft")

    # Nothing learned beforehand
    tiny = {"policy.backbone": "tiny"}
    yield Arm("trained_sft", "SFT, small backbone trained from scratch", imitation | tiny, suites=cell)
    yield Arm("trained", "CO-RFT, small backbone trained from scratch", awr | tiny, "trained_sft", suites=cell)

    # The pretrained backbone, frozen and fully trained with equally few steps: a full one takes a hundred times as long
    short = {"sft.steps": 500, "sft.batch": 32}
    full = short | {"policy.backbone_options.trainable": "all"}
    for name, title, own in (("frozen", "frozen backbone", short), ("full", "fully trained backbone", full)):
        yield Arm(f"{name}_sft", f"SFT, {title}, 500 steps", imitation | own, suites=cell)
        yield Arm(name, f"CO-RFT, {title}, 500 steps", awr | own, f"{name}_sft", suites=cell)


ARMS: dict[str, Arm] = {arm.name: arm for arm in _arms()}


def configure(arm: Arm, recipe: Mapping[str, Any], seed: int) -> TrainConfig:
    """The run's settings: defaults, then the suite's recipe, then the arm's own."""
    fixed = {"seed": seed, "threads": 1, "save_every": 1_000_000, "tensorboard": False, "check_frames": 0,
             "policy.horizon": HORIZON}
    return override(TrainConfig, {}, fixed | dict(recipe) | dict(arm.settings))


def settings_of(arm: Arm, seed: int, protocol: Protocol, recipe: Mapping[str, Any],
                arms: Mapping[str, Arm] = ARMS) -> dict[str, Any]:
    """Everything the arm's result depends on, dotted key → value."""
    inherited = arms[arm.parent].settings if arm.run_time and arm.parent else {}
    config = configure(replace(arm, settings={**inherited, **arm.settings}), recipe, seed)
    own = {"demonstrations": arm.demonstrations, "start": arm.start, "failures": arm.failures,
           "run_time": arm.run_time, "trials": protocol.trials, "first_scene": protocol.first_scene,
           "replan_steps": arm.replan_steps, "longer": LONGER, "worlds": WORLDS}
    return flat(asdict(config)) | {f"protocol.{key}": value for key, value in own.items()}


def chosen(names: Iterable[str], arms: Mapping[str, Arm] = ARMS) -> list[Arm]:
    """Arms by name, all when there is none; raises CorftError on an unknown one."""
    names = list(names) or list(arms)
    unknown = [name for name in names if name not in arms]
    if unknown:
        raise CorftError(f"no arm {', '.join(unknown)}; known: {', '.join(arms)}.")
    return [arm for arm in arms.values() if arm.name in names]
