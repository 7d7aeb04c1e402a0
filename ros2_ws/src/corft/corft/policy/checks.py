"""What is checked before a checkpoint may drive a robot. No ROS and no torch in here."""

from __future__ import annotations

import re
from pathlib import Path

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.execution.splice import check_rtc, delay_steps

# Where data come from and how careful to be may change between training and use; what they mean may not.
_HARMLESS = re.compile(
    r"(limits|workspace)\.|robot\.(description|home_rad|park_rad)|(instruction|episodes)$|"
    r"(streams|cameras|observations)\.[^.]+\.(topic|type|stamp|max_age_s|qos|on_stale|fields|joints|scale|offset)")
_VECTORS = ("action_space", "state_names", "action_names")


def checkpoint_folder(text: str) -> Path:
    """The folder that the `checkpoint` parameter names. CorftError when it can't be a checkpoint."""
    if not text:
        raise CorftError("parameter 'checkpoint' is empty: expected a folder written by the trainer, for example "
                         "-p checkpoint:=RUN/checkpoints/co_rft")
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise CorftError(f"parameter 'checkpoint': no folder {folder} (expected RUN/checkpoints/sft or co_rft)")
    if not (folder / "config.json").is_file():
        raise CorftError(f"parameter 'checkpoint': {folder} is no checkpoint, it has no config.json; give a folder "
                         "like RUN/checkpoints/co_rft")
    return folder


def check_one_policy(checkpoint: str, server: str) -> None:
    """CorftError when the parameters `checkpoint` and `server` name two policies."""
    if checkpoint and server:
        raise CorftError(f"both 'checkpoint' ({checkpoint}) and 'server' ({server}) are set: give the checkpoint to "
                         "the server, or leave 'server' empty to run it here")


def contract_conflicts(trained: Contract, robot: Contract) -> list[str]:
    """Differences `key: trained != robot` that change the meaning of states, images or actions.

    Topics, message types and units, ages, QoS, limits, workspace and home may differ.
    """
    vectors = [f"{name}: {getattr(trained, name)} != {getattr(robot, name)}" for name in _VECTORS
               if getattr(trained, name) != getattr(robot, name)]
    return [line for line in trained.differences(robot) if not _HARMLESS.match(line.split(":", 1)[0])] + vectors


def check_robot(trained: Contract, robot: Contract, source: Path | str) -> None:
    """CorftError listing the conflicts when the checkpoint in or at `source` was trained for another robot."""
    conflicts = contract_conflicts(trained, robot)
    if conflicts:
        raise CorftError(f"checkpoint {source} was trained for another robot (checkpoint != this contract): "
                         + "; ".join(conflicts) + ". Use a checkpoint or a contract of this robot.")


def rtc_delay(contract: Contract, horizon: int, replan_steps: int, handoff_s: float, inference_s: float) -> int:
    """Steps that are expected to pass until a chunk is followed, with real-time chunking.

    CorftError when it can't work here: it needs joint actions, and delay ≤ replan_steps ≤ horizon − delay.
    """
    if contract.action_space != "joint":
        raise CorftError(f"chunk_mode rtc goes on from joint positions; this policy's actions are "
                         f"{contract.action_space}. Use chunk_mode:=splice.")
    delay = delay_steps(inference_s, handoff_s, contract.step_ns * 1e-9)
    check_rtc(horizon, replan_steps, delay)
    return delay


def staleness(contract: Contract, name: str, age_s: float | None) -> str:
    """A stream that has no usable sample, for a person: how old, how old it may be, which topic."""
    stream = contract.stream(name)
    seen = "never received" if age_s is None else f"{age_s:.2f} s old"
    return f"{name} {seen} (limit {stream.max_age_s:g} s, topic {stream.topic})"
