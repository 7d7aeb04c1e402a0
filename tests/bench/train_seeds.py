"""Five training seeds in one vectorised step (torch.func, vmap) against five ordinary steps one after another."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from train_steps import BATCH, Setup

from corft_core.learning.memory import keep_freed_memory
from corft_core.learning.noise import gaussian_like
from corft_core.policy import observation as observation_module
from corft_core.policy.actor import Actor, Observation

SEEDS, REPEATS = 5, 8
CLEARLY_FASTER = 0.95  # ratios nearer to 1 come out on either side of it from run to run


class Joint:
    """Stage 1 of five actors at once: stacked parameters, one fused optimiser, clipping per seed."""

    def __init__(self, setup: Setup) -> None:
        self.setup, config = setup, setup.config.sft
        actors = [setup.actor() for _ in range(SEEDS)]
        parameters, self.buffers = torch.func.stack_module_state(actors)
        self.parameters = {k: v.detach().requires_grad_(v.is_floating_point() and "positions" not in k)
                           for k, v in parameters.items()}
        self.moved = [p for p in self.parameters.values() if p.requires_grad]
        self.base = copy.deepcopy(actors[0]).to("meta")
        self.optimizer = torch.optim.AdamW(self.moved, config.lr, weight_decay=config.weight_decay, fused=True)
        self.average = [p.detach().clone() for p in self.moved]
        self.scale = config.token_noise * self.buffers["encoder.token_scale"][:, None, :, None]

    def _loss(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor) -> Tensor:
        tokens, text, state, actions, valid, keyframe = batch
        error, aside = torch.func.functional_call(
            _Losses(self.base), ({f"actor.{k}": v for k, v in parameters.items()},
                                 {f"actor.{k}": v for k, v in buffers.items()}),
            (Observation(tokens, text, state), actions, valid, keyframe),
        )
        return error.mean() + aside.mean()

    def step(self, number: int) -> None:
        """One update of every seed, each with a batch of its own."""
        torch.default_generator.manual_seed(number)
        setup, samples = self.setup, self.setup.samples
        index = setup.index[torch.randint(len(setup.index), (SEEDS * BATCH,))]
        seen = setup.frames.observe(index)
        noise = torch.cat([gaussian_like(part) for part in seen.tokens.chunk(SEEDS)])
        shape = (SEEDS, BATCH)
        tokens = torch.addcmul(seen.tokens.unflatten(0, shape), self.scale, noise.unflatten(0, shape))
        rest = (seen.text, seen.state + setup.config.sft.state_noise * torch.randn_like(seen.state),
                samples.actions[index], samples.valid[index], samples.keyframe[index])
        loss = torch.vmap(self._loss, randomness="different")(
            self.parameters, self.buffers, tokens, *(part.unflatten(0, shape) for part in rest)
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        squares = [p.grad.flatten(1).square().sum(1) for p in self.moved if p.grad is not None]
        factor = (setup.config.sft.clip_norm / torch.stack(squares).sum(0).sqrt()).clamp_max(1.0)
        for parameter in self.moved:
            if parameter.grad is not None:
                parameter.grad.mul_(factor.view(-1, *[1] * (parameter.dim() - 1)))
        self.optimizer.step()
        torch._foreach_lerp_(self.average, [p.detach() for p in self.moved], 0.005)


class _Losses(nn.Module):
    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, seen: Observation, actions: Tensor, valid: Tensor, keyframe: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor.losses(seen, actions, valid, keyframe)


def plain_locate(weight: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """The keypoints by autograd, which vmap needs."""
    return (weight @ tokens.transpose(-1, -2)).softmax(-1) @ positions


def measure_seeds(setup: Setup) -> dict[str, Any]:
    """`vmap_ratio`: time of the joint step over five ordinary ones, one thread; and both on two cores."""
    joint, single = Joint(setup), setup.imitation()
    took: dict[str, list[float]] = {"joint": [], "one_after_another": []}
    fast = observation_module.locate
    for number in range(REPEATS):
        observation_module.locate = plain_locate
        began = time.process_time()
        joint.step(number)
        middle = time.process_time()
        observation_module.locate = fast
        for k in range(SEEDS):
            single.step(SEEDS * number + k)
        took["joint"].append(middle - began)
        took["one_after_another"].append(time.process_time() - middle)
    ms = {name: 1e3 * float(np.median(times[2:])) for name, times in took.items()}
    both = 0.5 * float(np.mean(_side_by_side(["single", "single"])))
    two_threads = _side_by_side(["joint"])[0]
    ratio, ratio_two = ms["joint"] / ms["one_after_another"], two_threads / both
    return {"vmap_ratio": ratio, "vmap_ratio_two_cores": ratio_two, "seeds": SEEDS, "step_ms": ms,
            "two_cores_wall_ms": {"joint_two_threads": two_threads, "two_processes": both},
            "verdict": "faster" if max(ratio, ratio_two) < CLEARLY_FASTER else "not faster on both counts; not used"}


def _side_by_side(roles: list[str]) -> list[float]:
    """Wall time in ms of a step of all five seeds, in processes that run at the same time."""
    running = [subprocess.Popen([sys.executable, __file__, role], stdout=subprocess.PIPE, text=True) for role in roles]
    return [float(process.communicate()[0].split()[-1]) for process in running]


def main() -> None:
    """`joint`: five seeds in one step on two threads; `single`: five steps one after another on one."""
    joint = sys.argv[1] == "joint"
    torch.set_num_threads(2 if joint else 1)
    keep_freed_memory()
    setup = Setup()
    if joint:
        observation_module.locate = plain_locate
        together = Joint(setup)
    else:
        single = setup.imitation()
    times = []
    for number in range(REPEATS):
        began = time.perf_counter()
        if joint:
            together.step(number)
        else:
            for k in range(SEEDS):
                single.step(SEEDS * number + k)
        times.append(1e3 * (time.perf_counter() - began))
    print(float(np.median(times[2:])))


if __name__ == "__main__":
    main()
