"""Training steps of LeRobot's ACT in an environment of its own; started by bench_train.py, not by hand.

Reads a number of steps per line and answers with the processor time of each in ms. ACT's image maps come from a cache
as ours do, in the size that its ResNet-18 would hand over for 128 × 128 pictures; packages that its package imports but
its networks don't need are stood in for.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import nn

STOOD_IN = ("datasets", "torchvision", "av", "diffusers", "torchcodec", "jsonlines", "deepdiff", "gymnasium", "serial",
            "accelerate", "wandb", "imageio", "cv2", "pynput", "transformers", "pandas", "pyarrow", "PIL")


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Whatever is asked of a package that is not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name.split(".")[0] in STOOD_IN:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__version__ = [], spec, "0.0.0"
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Maps(nn.Module):
    """Hands cached maps on where ACT expects a ResNet."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"feature_map": maps}


def policy(parameters: int, cameras: int, channels: int, side: int, state: int, actions: int, horizon: int) -> Any:
    """ACT with its published depth, as wide as `parameters` allows."""
    import lerobot  # type: ignore[import-untyped]
    import torchvision  # type: ignore[import-untyped]

    bare = sys.modules["lerobot.policies"] = ModuleType("lerobot.policies")  # its own imports every other policy
    bare.__path__ = [str(Path(lerobot.__file__).parent / "policies")]
    from lerobot.configs.types import FeatureType, PolicyFeature  # type: ignore[import-untyped]
    from lerobot.policies.act import modeling_act  # type: ignore[import-untyped]

    modeling_act.IntermediateLayerGetter = _Maps
    torchvision.models.resnet18.return_value.fc.in_features = channels
    inputs = {f"observation.images.{i}": PolicyFeature(FeatureType.VISUAL, (channels, side, side))
              for i in range(cameras)}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
    found = []
    for width in range(16, 513, 16):
        config = modeling_act.ACTConfig(
            input_features=inputs, output_features={"action": PolicyFeature(FeatureType.ACTION, (actions,))},
            chunk_size=horizon, n_action_steps=horizon, dim_model=width, dim_feedforward=round(6.25 * width),
            n_heads=8, pretrained_backbone_weights=None, device="cpu",
        )
        made = modeling_act.ACTPolicy(config)
        found.append((abs(sum(p.numel() for p in made.parameters()) - parameters), width, made))
        if len(found) > 1 and found[-1][0] > found[-2][0]:
            break
    return min(found, key=lambda item: item[0])[2]


def main() -> None:
    """Answer requests until stdin ends."""
    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    sys.meta_path.append(_StandIn())
    batch, frames = shape["batch"], 2400
    act = policy(shape["parameters"], shape["cameras"], shape["channels"], 4, shape["state"], shape["actions"],
                 shape["horizon"])
    act.train()
    data = {f"observation.images.{i}": torch.randn(frames, shape["channels"], 4, 4) for i in range(shape["cameras"])}
    data |= {"observation.state": torch.randn(frames, shape["state"]),
             "action": torch.randn(frames, shape["horizon"], shape["actions"]),
             "action_is_pad": torch.zeros(frames, shape["horizon"], dtype=torch.bool)}
    optimizer = torch.optim.AdamW(act.parameters(), 1e-5, weight_decay=1e-4)

    def step() -> float:
        began = time.process_time()
        index = torch.randint(frames, (batch,))
        loss, _ = act({key: value[index] for key, value in data.items()})
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(act.parameters(), 10.0)
        optimizer.step()
        return 1e3 * (time.process_time() - began)

    step()
    print(json.dumps({"parameters": sum(p.numel() for p in act.parameters()), "width": act.config.dim_model}))
    sys.stdout.flush()
    for line in sys.stdin:
        print(json.dumps([step() for _ in range(int(line))]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
