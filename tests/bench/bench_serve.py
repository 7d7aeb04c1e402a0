"""serve: observation in → chunk out, for every backbone, against the bare forward pass and LeRobot's ACT and SmolVLA.

One observation at a time, as for a robot: two cameras of 128 × 128, the default experts (sixteen chunks of ten steps
drawn and ranked). `act` is Policy.act, NumPy in and out. The floor is the same networks on inputs that lie ready in
memory: model inputs of the pictures, text vector or prompt, normalised state. For effnet and tiny, whose first layers
take uint8, it begins with these. Both take turns; a ratio is the median over pairs, by processor time on one thread,
on a GPU by wall time to the result. Weights are random: they decide nothing here. Peers run in processes and an
environment of their own, with about the same number of parameters and the same cameras, state, and chunk.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.extend([str(Path(__file__).parent), str(Path(__file__).parents[1])])
from peer_environment import LEROBOT_SERVE, PeerMissing, environ, python
from serve_models import FAMILIES, REAL_NAMES, make_model

from corft_core.contract import Contract
from corft_core.data.statistics import Statistics
from corft_core.policy.actor import Actor, Critic, Observation
from corft_core.policy.backbones import make_backbone
from corft_core.policy.backbones.hf import HFBackbone
from corft_core.policy.checkpoint import Bundle, network_shapes
from corft_core.policy.config import PolicyConfig
from corft_core.policy.policy import Policy
from corft_core.policy.selection import choose_chunk

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "ros2_ws" / "src" / "corft" / "config" / "panda_cell" / "contract.yaml"
INSTRUCTION = "pick up the red cube"
PAIRS, WARM_UP = 40, 4
ROUNDS, CALLS = 5, 6
OPTIONS: dict[str, dict[str, Any]] = {"effnet": {}, "tiny": {}}


def measure() -> dict[str, Any]:
    """One run; see the module's docstring."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (*OPTIONS, *FAMILIES):
            rows[name] = {**_measured(name, Path(folder)), "peak_rss_mb": _peak(name)}
        rows_gpu = _on_gpu(Path(folder)) if torch.cuda.is_available() else None
        act = _peer("act", "effnet", Path(folder))
        vla = _peer("smolvla", "smolvlm", Path(folder))
    return {"overhead_ratio": max(row["overhead_ratio"] for row in rows.values()), "backbones": rows,
            "gpu": rows_gpu, "lerobot_act": act, "lerobot_smolvla": vla, "pairs": PAIRS,
            "clock": "processor time, one thread; gpu: wall time"}


def make_policy(backbone: Any, device: str = "cpu") -> Policy:
    """A policy with random weights over this backbone, for the cell's robot."""
    contract = Contract.load(CONTRACT)
    config = PolicyConfig(backbone=backbone.name)
    shapes = network_shapes(backbone, contract)
    chunk, width = (config.horizon, len(contract.action_names)), len(contract.state_names)
    statistics = Statistics(
        representation=contract.action_representation, state_gripper=contract.state_gripper,
        action_gripper=contract.action_gripper, state_mean=np.zeros(width), state_scale=np.ones(width),
        action_mean=np.zeros(chunk), action_scale=np.ones(chunk), action_low=-np.ones(chunk),
        action_high=np.ones(chunk), samples=1)
    return Policy(Bundle(config=config, contract=contract, statistics=statistics, backbone=backbone,
                         actor=Actor(shapes, config), critic=Critic(shapes, config), policy_id="bench",
                         stage="co_rft", instructions=(INSTRUCTION,)), device)


def _backbone(name: str, folder: Path, real: bool = False) -> Any:
    contract = Contract.load(CONTRACT)
    shape = {"cameras": len(contract.cameras), "image_size": contract.cameras[0].size}
    if name in OPTIONS:
        return make_backbone(name, **shape, **OPTIONS[name])
    place = folder / f"{name}{'-real' if real else ''}"
    if not place.exists():
        make_model(place, name, real)
    return make_backbone(f"hf:{place}", **shape, **({"dtype": "bfloat16"} if real else {}))


def _calls(policy: Policy) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Policy.act on one observation, and the networks alone on inputs that are ready."""
    contract, backbone, device = policy.contract, policy.bundle.backbone, policy.device
    rng = np.random.default_rng(0)
    images = {camera.name: rng.integers(0, 256, (1, *camera.size, 3), np.uint8) for camera in contract.cameras}
    state = rng.normal(size=(1, len(contract.state_names)))
    generator = torch.Generator().manual_seed(0)
    stacked = torch.from_numpy(np.stack(list(images.values()), 1)).to(device)
    normalised = torch.from_numpy(policy.bundle.statistics.encode_state(state)).to(device)
    with torch.inference_mode():
        if isinstance(backbone, HFBackbone):
            pixels, prompts = backbone.pixels(stacked), backbone.prompts([INSTRUCTION])
            see: Callable[[], Any] = lambda: backbone.features(pixels, prompts)  # noqa: E731
        else:
            text = backbone.encode_text([INSTRUCTION])
            see = lambda: (backbone.encode_images(stacked), text)  # noqa: E731

    @torch.inference_mode()
    def bare() -> Any:
        return choose_chunk(policy.bundle.actor, policy.bundle.critic, Observation(*see(), normalised),
                            policy.bundle.config.selection)

    return lambda: policy.act(images, state, [INSTRUCTION], generator), bare


def _measured(name: str, folder: Path) -> dict[str, Any]:
    backbone = _backbone(name, folder)
    policy = make_policy(backbone)
    act, bare = _calls(policy)
    with _stages(policy) as stages:
        row = _pairs(act, bare, time.process_time)
    parts = {f"{stage}_ms": round(1e3 * float(np.median(times[WARM_UP:])), 3) for stage, times in stages.items()}
    return {**row, **parts, "parameters": _parameters(policy)}


def _pairs(act: Callable[[], Any], bare: Callable[[], Any], clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of both, and the median ratio of the pairs; who is first changes from pair to pair."""
    took: dict[str, list[float]] = {"act": [], "bare": []}
    for number in range(PAIRS + WARM_UP):
        for name, call in (("act", act), ("bare", bare))[:: 1 if number % 2 else -1]:
            began = clock()
            call()
            if number >= WARM_UP:
                took[name].append(1e3 * (clock() - began))
    return {"p50_ms": round(float(np.median(took["act"])), 3),
            "p95_ms": round(float(np.quantile(took["act"], 0.95)), 3),
            "floor_p50_ms": round(float(np.median(took["bare"])), 3),
            "overhead_ratio": round(float(np.median(np.array(took["act"]) / np.array(took["bare"]))), 4)}


@contextmanager
def _stages(policy: Policy) -> Iterator[dict[str, list[float]]]:
    """Processor seconds of seeing (pictures made ready, backbone) and of choosing (experts) inside of `act`."""
    runner, found = policy._runner, {"see": [], "choose": []}  # type: ignore[var-annotated]

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began = time.process_time()
            result = call(*arguments)
            found[stage].append(time.process_time() - began)
            return result
        return run

    for stage in found:
        setattr(runner, stage, timed(stage, getattr(runner, stage)))
    yield found
    for stage in found:
        delattr(runner, stage)


def _parameters(policy: Policy) -> int:
    parts = (policy.bundle.backbone, policy.bundle.actor, policy.bundle.critic)
    return sum(p.numel() for part in parts if part is not None for p in part.parameters())


def _on_gpu(folder: Path) -> dict[str, Any]:
    """Small and real sizes: act with CUDA graphs against the floor launched kernel by kernel, and what graphs save."""
    rows: dict[str, Any] = {}
    for name, real in [*((name, False) for name in (*OPTIONS, *FAMILIES)), *((name, True) for name in FAMILIES)]:
        torch.cuda.reset_peak_memory_stats()
        policy = make_policy(_backbone(name, folder, real), "cuda")
        act, bare = _calls(policy)

        def waited(bare: Callable[[], Any] = bare) -> None:
            bare()
            torch.cuda.synchronize()

        row = _pairs(act, waited, time.perf_counter)
        rows[REAL_NAMES[name] if real else name] = {
            **row, "parameters": _parameters(policy), "peak_mb": round(torch.cuda.max_memory_allocated() / 2**20)}
        del policy, act, bare, waited
        gc.collect()
        torch.cuda.empty_cache()
    return {"card": torch.cuda.get_device_name(), "backbones": rows}


def _peak(name: str) -> float:
    """Peak resident memory in MB of a process that only serves this backbone."""
    made = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return float(made.stdout.split()[-1])


def _peer(kind: str, ours: str, folder: Path) -> dict[str, Any]:
    """A policy of LeRobot in its own process, taking turns with ours; {"missing": why} where it can't be had."""
    policy = make_policy(_backbone(ours, folder))
    act, contract = _calls(policy)[0], policy.contract
    request = {"kind": kind, "parameters": _parameters(policy), "cameras": len(contract.cameras),
               "size": contract.cameras[0].size, "state": len(contract.state_names),
               "actions": len(contract.action_names), "horizon": policy.horizon, "model": str(folder / "smolvlm")}
    process = None
    try:
        process = subprocess.Popen(
            [python(LEROBOT_SERVE), str(Path(__file__).parent / "serve_worker.py"), json.dumps(request)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ())
        lines = filter(lambda line: line.startswith(("{", "[")), process.stdout)  # type: ignore[arg-type]
        answer = json.loads(next(lines))
        took: dict[str, list[list[float]]] = {"theirs": [], "ours": []}
        for _ in range(ROUNDS + 1):
            process.stdin.write(f"{CALLS}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            took["theirs"].append(json.loads(next(lines)))
            took["ours"].append([_milliseconds(act) for _ in range(CALLS)])
        process.communicate()
    except (PeerMissing, OSError, StopIteration) as error:
        wrote = process.communicate()[1] if process is not None else ""
        return {"missing": (wrote or str(error)).strip()[-300:]}
    theirs, own = (np.array(took[name][1:]) for name in ("theirs", "ours"))  # the first round warms up
    return {"version": LEROBOT_SERVE.packages[0], **answer, "p50_ms": round(float(np.median(theirs)), 3),
            "p95_ms": round(float(np.quantile(theirs, 0.95)), 3), "ours": ours,
            "ratio_to_ours": round(float(np.median(np.median(theirs, 1) / np.median(own, 1))), 3)}


def _milliseconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return 1e3 * (time.process_time() - began)


def main() -> None:
    """Peak memory of serving one backbone, in MB."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1] in FAMILIES:  # made by another process, whose memory does not count
            subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; "
                            "from serve_models import make_model; "
                            f"make_model(Path({folder!r}) / {sys.argv[1]!r}, {sys.argv[1]!r})"],
                           check=True, capture_output=True)
        act, _ = _calls(make_policy(_backbone(sys.argv[1], Path(folder))))
        for _ in range(WARM_UP):
            act()
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


if __name__ == "__main__":
    main()
