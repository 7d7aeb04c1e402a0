"""A checkpoint in this process, asked as a server is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from corft_core.policy.policy import Policy
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import PolicyInfo, Request

_FINGERPRINT_DIGITS = 16


class LocalPolicy:
    """See :class:`corft_core.serving.interface.ChunkPolicy`. Raises CorftError when the checkpoint can't be used."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._policy = Policy.load(folder, device=device)
        self._generator = torch.Generator(device="cpu")
        self.info = PolicyInfo(
            policy_id=self._policy.policy_id, checkpoint=fingerprint(folder), contract=self._policy.contract,
            horizon=self._policy.horizon, inpaints=self._policy.inpaints, instructions=self._policy.instructions)

    def chunk(self, request: Request) -> ChunkPrediction:
        """Run the network."""
        return self._policy.act(
            {name: image[None] for name, image in request.images.items()}, request.state[None], [request.instruction],
            self._generator.manual_seed(request.seed), plan=None if request.plan is None else request.plan[None],
            frozen=request.frozen)

    def statistics(self) -> dict[str, Any]:
        """Nothing that the caller would not know."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


def fingerprint(folder: Path) -> str:
    """Hexadecimal digest of a checkpoint's files, names included."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]
