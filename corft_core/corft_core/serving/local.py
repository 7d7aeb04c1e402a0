"""A checkpoint in this process, asked as a server is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corft_core.data.history import History
from corft_core.devices import usable_device
from corft_core.errors import CorftError
from corft_core.policy.policy import Policy
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import PolicyInfo, Request, Seen

_FINGERPRINT_DIGITS, _MAX_RUNS = 16, 64


class LocalPolicy:
    """See :class:`corft_core.serving.interface.ChunkPolicy`. Raises CorftError when the checkpoint can't be used."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.device = usable_device(device)
        self._policy = Policy.load(folder, device=self.device)
        self._generator = torch.Generator(device="cpu")
        self._histories: OrderedDict[str, History] = OrderedDict()
        self.info = PolicyInfo(
            policy_id=self._policy.policy_id, checkpoint=fingerprint(folder), contract=self._policy.contract,
            horizon=self._policy.horizon, inpaints=self._policy.inpaints, instructions=self._policy.instructions,
            spacing=self._policy.spacing)

    def chunk(self, request: Request) -> ChunkPrediction:
        """Run the network. CorftError also when it looks back at a run that it does not remember."""
        policy, histories = self._policy, self._memory(request)
        if histories is not None and request.past:
            count = len(request.past)
            policy.remember(*_batch(request.past), [request.instruction] * count, histories * count,
                            [seen.stamp_ns for seen in request.past])
        return policy.act(
            *_batch([request.now]), [request.instruction], self._generator.manual_seed(request.seed),
            None if request.plan is None else request.plan[None], request.frozen, histories, [request.now.stamp_ns])

    def _memory(self, request: Request) -> list[History] | None:
        """The run's history; None for a policy without memory."""
        if not self._policy.remembers:
            return None
        if request.run not in self._histories:
            if not request.begins:
                raise CorftError("this policy looks back at earlier observations and those of this run are lost "
                                 "(was the policy server restarted?): send the goal again")
            self._histories[request.run] = self._policy.new_history()
        self._histories.move_to_end(request.run)
        while len(self._histories) > _MAX_RUNS:
            self._histories.popitem(last=False)
        return [self._histories[request.run]]

    def check(self) -> None:
        """It is there."""

    def statistics(self) -> dict[str, Any]:
        """Nothing that the caller would not know."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


def _batch(seen: Sequence[Seen]) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float64]]:
    """Images and states of B observations as the policy takes them."""
    images = {name: np.stack([each.images[name] for each in seen]) for name in seen[0].images}
    return images, np.stack([each.state for each in seen])


def fingerprint(folder: Path) -> str:
    """Hexadecimal digest of a checkpoint's files, names included."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]
