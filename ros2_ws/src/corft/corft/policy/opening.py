"""The policy that policy_node's parameters name: a checkpoint in this process, or one behind a policy server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from corft.policy.checks import check_one_policy, checkpoint_folder
from corft_core.serving.interface import ChunkPolicy


def open_policy(param: Callable[[str], Any], robot: str) -> tuple[ChunkPolicy, str]:
    """The policy, and its folder or address. `robot` is what the server's log calls this one.

    CorftError when both or neither are named, and what the policy itself raises.
    """
    check_one_policy(param("checkpoint"), param("server"))
    if not param("server"):
        folder = checkpoint_folder(param("checkpoint"))
        # torch takes seconds to import: a wrong folder is refused before.
        import torch

        from corft_core.serving.local import LocalPolicy

        torch.set_num_threads(param("torch_threads") or max(1, (torch.get_num_threads() + 1) // 2))
        return LocalPolicy(folder, param("device")), str(folder)
    from corft_core.serving.client import RemotePolicy

    policy = RemotePolicy(
        param("server"), robot=robot, timeout_s=param("server_timeout_s"), images=param("server_images"),
        server_key=Path(param("server_key")) if param("server_key") else None)
    return policy, policy.address
