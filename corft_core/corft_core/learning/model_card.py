"""README.md of an exported policy: what it is for, what it was made from, what was measured, how to run it."""

from __future__ import annotations

import json
from typing import Any

from corft_core.contract import Contract
from corft_core.learning.offline_check import lines
from corft_core.policy.checkpoint import Bundle

UNKNOWN = "unknown"


def model_card(bundle: Bundle, backbone: dict[str, Any], run: dict[str, Any]) -> str:
    """Markdown with the hub's front matter.

    backbone: its config as stored; run: `data_digest`, `train`, `check` of the run it comes from, {} when unknown.
    """
    weights = backbone["provenance"]
    front = {
        "license": weights["license"] or UNKNOWN, "library_name": "corft", "pipeline_tag": "robotics",
        "tags": ["robotics", "vision-language-action", "corft", bundle.stage],
    }
    # JSON values are YAML too; json.dumps keeps odd text of a foreign card from breaking the front matter.
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    return f"""---
{head}
---
# {bundle.policy_id}

{_purpose(bundle)}

## Instructions

{_list(bundle.instructions)}

## Made from

{_list(_origin(bundle, backbone, run))}

## Measured

{_measured(run)}

## Files

- `model.safetensors`: action expert{' and critic' if bundle.critic is not None else ''}, and what was trained of the \
backbone where `backbone/` is absent
- `config.json`: networks, backbone, stage; `contract.json`: the robot; `statistics.json`: normalisation
{_backbone_file(backbone)}
Loading is strict: a missing, unknown or differently shaped tensor, other backbone weights and another robot are errors.

## Run

{_usage(bundle)}
"""


def _purpose(bundle: Bundle) -> str:
    features, config = bundle.contract, bundle.config
    cameras = ", ".join(f"`{camera.name}` {camera.size[0]}×{camera.size[1]}" for camera in features.cameras)
    robot = f"robot `{features.robot.name}`" if isinstance(features, Contract) else "a simulated benchmark"
    stage = "imitation and chunked offline reinforcement learning (CO-RFT)" if bundle.critic is not None else (
        "imitation" if bundle.stage == "sft" else "imitation and offline reinforcement learning, critic left out")
    return (
        f"A policy for {robot}, trained by {stage}. It sees {f'the cameras {cameras}' if cameras else 'no camera'}, "
        f"{len(features.state_names)} values of state and an instruction, and answers with {config.horizon} actions of "
        f"{len(features.action_names)} values at {features.rate_hz} Hz: "
        f"{', '.join(f'`{name}`' for name in features.action_names)}."
    )


def _origin(bundle: Bundle, backbone: dict[str, Any], run: dict[str, Any]) -> list[str]:
    weights, train = backbone["provenance"], run.get("train", {})
    found = [
        f"backbone `{backbone['name']}`, source {weights['source']}, revision {weights.get('revision') or UNKNOWN}, "
        f"licence {weights['license'] or UNKNOWN}",
        f"action head `{bundle.config.head.kind}`, normalisation over {bundle.statistics.samples} chunks",
        f"data digest {run.get('data_digest') or UNKNOWN}",
    ]
    if train:
        rl = train["co_rft"]
        found.append(f"{train['sft']['steps']} steps of imitation, {rl['steps'] if bundle.stage != 'sft' else 0} of "
                     f"offline reinforcement learning (extraction `{rl['extraction']}`), seed {train['seed']}")
    return found


def _measured(run: dict[str, Any]) -> str:
    if run.get("check") is None:
        return "Nothing is known: the offline check was not run, or the checkpoint was exported without its run."
    return _list(line.strip() for line in lines(run["check"]))


def _backbone_file(backbone: dict[str, Any]) -> str:
    if "folder" not in backbone:
        return f"\nThe backbone `{backbone['name']}` comes with corft's installation.\n"
    return (f"- `{backbone['folder']}/`: the vision-language model as trained, with tokenizer and image processor, in "
            "transformers' own format\n")


def _usage(bundle: Bundle) -> str:
    node = """On the robot:

```
ros2 launch corft bringup.launch.py checkpoint:=FOLDER
```

""" if isinstance(bundle.contract, Contract) else ""
    return node + """In Python:

```python
from corft_core.policy import Policy

policy = Policy.from_pretrained("FOLDER")  # or the hub id it was uploaded to
prediction = policy.act(images, state, instructions)  # see its docstring; prediction.actions: (B, steps, actions)
```"""


def _list(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items) or "- none"
