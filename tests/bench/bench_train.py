"""train: samples/s and memory of imitation and CO-RFT steps, against the same written naively and against ACT.

All contenders take turns in one run, on one thread, timed by processor time (medians), with the shapes of the cell's
tasks and a frozen backbone. A CO-RFT step is the mean step of stage 2 as it is run: critic steps with their refreshes
of the tabulated targets, the first tables, and the actor's steps. Ratios above 1 mean that ours is faster, except
co_rft_over_bc and the shares. ACT gets its picture features from a cache as well, so its ResNet is not in its time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.extend([str(Path(__file__).parent), str(Path(__file__).parents[1])])
from peer_environment import LEROBOT, PeerMissing, environ, python
from train_gpu import measure_gpu
from train_seeds import measure_seeds
from train_steps import BATCH, CAMERAS, CHANNELS, Naive, Setup, Step, loading_step

from corft_core.learning.config import TrainConfig
from corft_core.learning.memory import keep_freed_memory
from corft_core.policy.backbones import make_backbone

ROUNDS = 5
PICTURE = 128


def measure() -> dict[str, Any]:
    """One run; see the module's docstring."""
    torch.set_num_threads(1)
    keep_freed_memory()
    setup = Setup()
    bc, rl, naive = setup.imitation(), setup.reinforcement(), Naive(setup)
    joint = Setup(**{"policy.head.kind": "chunk", "co_rft.extraction": "weighted_anchor", "co_rft.warmup": 0})
    joint_bc, joint_rl = joint.imitation(), joint.reinforcement()
    uncached = Naive(setup, _encoder(setup))
    parameters = sum(p.numel() for p in bc.actor.parameters() if p.requires_grad)
    act = _Act(parameters)
    last = rl.critic_steps
    contenders: dict[str, tuple[Step, int]] = {
        "bc": (bc.step, 12), "loading": (loading_step(setup, bc.actor), 12),
        "critic": (lambda i: rl.step(1 + i % 40), 12), "actor": (lambda i: rl.step(last + i), 12),
        "refresh": (lambda i: rl.critic.refresh(), 1),
        "naive_bc": (lambda i: naive.imitation_step(), 5), "naive_critic": (lambda i: naive.critic_step(), 2),
        "naive_actor": (lambda i: naive.actor_step(), 3),
        "uncached_bc": (lambda i: uncached.imitation_step(), 1),
        "joint_bc": (joint_bc.step, 8),
        "joint_rl": (lambda i: joint_rl.step(1 + i % 40), 8),
    }
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(ROUNDS + 1):
        for name, (step, count) in contenders.items():
            times = [_timed(step, round_ * count + i) for i in range(count)]
            took[name] += times if round_ else []  # the first round warms up
        act.steps(3 if round_ else 1)
    ms = {name: float(np.median(times)) for name, times in took.items()}
    tables = _timed(lambda i: setup.reinforcement(), 0)
    uncached_critic = _timed(lambda i: uncached.critic_step(), 0)
    settings = rl.settings
    own = (settings.steps * (ms["critic"] + ms["refresh"] / settings.refresh) + settings.actor_steps * ms["actor"]
           + tables) / (settings.steps + settings.actor_steps)
    share = settings.steps / (settings.steps + settings.actor_steps)
    plain = share * ms["naive_critic"] + (1 - share) * ms["naive_actor"]
    unstored = share * uncached_critic + (1 - share) * ms["uncached_bc"]
    act_ms = act.median()
    return {
        "batch": BATCH, "parameters_trained": parameters, "clock": "processor time, one thread",
        "load_average": os.getloadavg()[0],
        "co_rft_over_bc": own / ms["bc"], "joint_step_over_bc": ms["joint_rl"] / ms["joint_bc"],
        "loading_share": ms["loading"] / ms["bc"],
        "speedup_vs_naive_bc": ms["naive_bc"] / ms["bc"], "speedup_vs_naive_co_rft": plain / own,
        "speedup_vs_uncached_bc": ms["uncached_bc"] / ms["bc"], "speedup_vs_uncached_co_rft": unstored / own,
        "act_ratio": None if act_ms is None else act_ms / ms["bc"], "act": act.note,
        "samples_per_s": {"bc": 1e3 * BATCH / ms["bc"], "co_rft": 1e3 * BATCH / own,
                          "naive_bc": 1e3 * BATCH / ms["naive_bc"], "naive_co_rft": 1e3 * BATCH / plain,
                          "act": None if act_ms is None else 1e3 * BATCH / act_ms},
        "step_ms": {**ms, "co_rft": own, "tables_once": tables, "uncached_critic": uncached_critic, "act": act_ms},
        "peak_rss_mb": {name: _peak(name) for name in ("nothing", "bc", "co_rft")},
        "quick_run_s": _default_run_s(uncached), "vmap": measure_seeds(setup),
        "gpu": measure_gpu() if torch.cuda.is_available() else None,
    }


def _timed(step: Step, number: int) -> float:
    began = time.process_time()
    step(number)
    return 1e3 * (time.process_time() - began)


def _encoder(setup: Setup) -> Any:
    """The default backbone over random pictures."""
    backbone = make_backbone("effnet", cameras=CAMERAS, image_size=(PICTURE, PICTURE)).eval()
    shape = (len(setup.samples), CAMERAS, PICTURE, PICTURE, 3)

    @torch.no_grad()
    def encode(rows: torch.Tensor) -> torch.Tensor:
        return backbone.encode_images(torch.randint(256, (len(rows), *shape[1:]), dtype=torch.uint8)).float()

    return encode


def _default_run_s(uncached: Naive) -> float:
    """Processor seconds of one run with the default settings on 30 demonstrations, evaluation left out."""
    config = TrainConfig()
    defaults = Setup(**{"sft.batch": config.sft.batch, "co_rft.batch": config.co_rft.batch})
    bc, rl = defaults.imitation(), defaults.reinforcement()
    one = {
        "sft": np.median([_timed(bc.step, i) for i in range(10)]) * config.sft.steps,
        "critic": np.median([_timed(rl.step, 1 + i) for i in range(10)]) * config.co_rft.steps,
        "actor": np.median([_timed(rl.step, rl.critic_steps + i) for i in range(10)]) * config.co_rft.actor_steps,
        "refresh": _timed(lambda i: rl.critic.refresh(), 0) * config.co_rft.steps / config.co_rft.refresh,
        "features": _timed(lambda i: uncached.encode(torch.arange(32)), 0) * len(defaults.samples) / 32,
    }
    return float(sum(one.values())) / 1e3


def _peak(name: str) -> float:
    """Peak resident memory in MB of a process that only does this."""
    made = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return float(made.stdout.split()[-1])


class _Act:
    """LeRobot's ACT in its own environment and process; `note` says what it is or why it is missing."""

    def __init__(self, parameters: int) -> None:
        self.process, self.times = None, []
        shape = {"threads": 1, "batch": BATCH, "cameras": CAMERAS, "channels": CHANNELS, "state": 8, "actions": 8,
                 "horizon": 10, "parameters": parameters}
        try:
            self.process = subprocess.Popen(
                [python(LEROBOT), str(Path(__file__).parent / "act_worker.py"), json.dumps(shape)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=environ(),
            )
            self.note = {"version": LEROBOT.packages[0], **json.loads(self._line())}
        except (OSError, ValueError, PeerMissing) as error:
            wrote = self.process.stderr.read() if self.process is not None else None
            self.process, self.note = None, {"missing": (wrote or str(error)).strip()[-300:]}

    def _line(self) -> str:
        return self.process.stdout.readline()

    def steps(self, count: int) -> None:
        """Take its turn."""
        if self.process is not None:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            self.times.append(json.loads(self._line()))

    def median(self) -> float | None:
        """Milliseconds of a step, the first turn left out; ends the process."""
        if self.process is None:
            return None
        self.process.communicate()
        return float(np.median(np.concatenate(self.times[1:])))


def main() -> None:
    """Peak memory of one stage, in MB."""
    keep_freed_memory()
    torch.set_num_threads(1)
    setup = Setup()
    if sys.argv[1] != "nothing":
        stage = setup.imitation() if sys.argv[1] == "bc" else setup.reinforcement()
        for number in [*range(1, 30), *range(stage.steps - 30, stage.steps)]:
            stage.step(number)
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory before exec
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


if __name__ == "__main__":
    main()
