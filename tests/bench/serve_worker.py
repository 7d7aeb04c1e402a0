"""LeRobot's ACT or SmolVLA serving one observation after the other, in an environment of its own; see bench_serve.py.

Takes a JSON request as argument, prints its number of parameters, then reads a number of calls per line and answers
with the processor milliseconds of each: pictures uint8 and a state in, a chunk as a NumPy array out. Packages that its
package imports but its networks don't need are stood in for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from act_worker import _StandIn
from peer_environment import define_torchvision_operators


def _bare_package() -> None:
    import lerobot  # type: ignore[import-untyped]

    bare = sys.modules["lerobot.policies"] = ModuleType("lerobot.policies")  # its own imports every other policy
    bare.__path__ = [str(Path(lerobot.__file__).parent / "policies")]


def _features(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    from lerobot.configs.types import FeatureType, PolicyFeature  # type: ignore[import-untyped]

    inputs = {f"observation.images.{i}": PolicyFeature(FeatureType.VISUAL, (3, *request["size"]))
              for i in range(request["cameras"])}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (request["state"],))
    return inputs, {"action": PolicyFeature(FeatureType.ACTION, (request["actions"],))}


def make_act(request: dict[str, Any]) -> Any:
    """ACT with ResNet-18 and its published depth, as wide as the number of parameters allows."""
    from lerobot.policies.act.configuration_act import ACTConfig  # type: ignore[import-untyped]
    from lerobot.policies.act.modeling_act import ACTPolicy  # type: ignore[import-untyped]

    inputs, outputs = _features(request)
    found: list[tuple[int, Any]] = []
    for width in range(64, 513, 32):
        config = ACTConfig(
            input_features=inputs, output_features=outputs, chunk_size=request["horizon"],
            n_action_steps=request["horizon"], dim_model=width, dim_feedforward=round(6.25 * width), n_heads=8,
            pretrained_backbone_weights=None, device="cpu")
        policy = ACTPolicy(config)
        found.append((abs(sum(p.numel() for p in policy.parameters()) - request["parameters"]), policy))
        if len(found) > 1 and found[-1][0] > found[-2][0]:
            break
    return min(found, key=lambda item: item[0])[1]


def make_smolvla(request: dict[str, Any]) -> Any:
    """SmolVLA over the same small vision-language model, its expert as its defaults make it."""
    from lerobot.policies.smolvla import smolvlm_with_expert  # type: ignore[import-untyped]
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig  # type: ignore[import-untyped]
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy  # type: ignore[import-untyped]

    class NoProcessor:
        """Nothing of it is used when the language comes as tokens."""

        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            from types import SimpleNamespace

            return SimpleNamespace(tokenizer=SimpleNamespace(fake_image_token_id=5, global_image_token_id=6))

    smolvlm_with_expert.AutoProcessor = NoProcessor
    inputs, outputs = _features(request)
    return SmolVLAPolicy(SmolVLAConfig(
        input_features=inputs, output_features=outputs, chunk_size=request["horizon"],
        n_action_steps=request["horizon"], vlm_model_name=request["model"], load_vlm_weights=False, num_vlm_layers=4,
        resize_imgs_with_padding=(96, 96), device="cpu"))


def main() -> None:
    """Answer requests until stdin ends."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    sys.meta_path.append(_StandIn())
    define_torchvision_operators()
    _bare_package()
    policy = (make_act if request["kind"] == "act" else make_smolvla)(request).eval()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (1, *request["size"], 3), np.uint8) for _ in range(request["cameras"])]
    state = rng.normal(size=(1, request["state"])).astype(np.float32)
    language: dict[str, torch.Tensor] = {}
    if request["kind"] == "smolvla":
        language = {"observation.language.tokens": torch.arange(10, 16)[None],
                    "observation.language.attention_mask": torch.ones(1, 6, dtype=torch.bool)}
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def call() -> np.ndarray:
        batch: dict[str, Any] = dict(language)
        for number, picture in enumerate(pictures):
            values = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255
            batch[f"observation.images.{number}"] = (values - mean) / deviation if not language else values
        batch["observation.state"] = torch.from_numpy(state)
        with torch.inference_mode():
            return policy.predict_action_chunk(batch).numpy()

    assert call().shape == (1, request["horizon"], request["actions"])
    print(json.dumps({"parameters": sum(p.numel() for p in policy.parameters())}), flush=True)
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            began = time.process_time()
            call()
            took.append(1e3 * (time.process_time() - began))
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
