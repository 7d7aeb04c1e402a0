"""What a robot asks of a policy, here or on another machine. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.history import Spacing
from corft_core.errors import CorftError
from corft_core.prediction import ChunkPrediction


class ServerError(CorftError):
    """The server has refused; asking again changes nothing."""


class NoAnswerError(CorftError):
    """No answer in time. The next question may be answered: the connection comes back by itself."""


@dataclass(frozen=True)
class Seen:
    """What was seen for the tick `stamp_ns` [robot's time]: `images` camera → uint8 (H, W, 3), `state` float64 (S,)."""

    stamp_ns: int
    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """A chunk is wanted for what is seen `now`.

    `seed`: of the policy's noise; the same request gives the same chunk wherever it is computed. `plan`: float64 (H, A)
    absolute actions expected for the chunk's steps, None without; the first `frozen` of them are executed whatever is
    predicted. For a policy that looks back: `run` names the run whose earlier observations it remembers, `begins` says
    that none was answered yet, `past` is what else was seen since the last one.
    """

    now: Seen
    instruction: str
    seed: int
    plan: NDArray[np.float64] | None = None
    frozen: int = 0
    run: str = ""
    begins: bool = True
    past: tuple[Seen, ...] = ()


@dataclass(frozen=True)
class PolicyInfo:
    """What a robot must know of a policy.

    `checkpoint`: fingerprint of the checkpoint's files. `spacing`: the observations that a chunk depends on, in ns.
    """

    policy_id: str
    checkpoint: str
    contract: Contract
    horizon: int
    inpaints: bool
    instructions: tuple[str, ...]
    spacing: Spacing = Spacing()  # noqa: RUF009

    @property
    def rate_hz(self) -> int:
        """Steps a second."""
        return self.contract.rate_hz


class ChunkPolicy(Protocol):
    """:class:`LocalPolicy` or :class:`RemotePolicy`. One thread at a time."""

    @property
    def info(self) -> PolicyInfo: ...

    def chunk(self, request: Request) -> ChunkPrediction:
        """The chunk for one observation, a prediction of B = 1. Raises NoAnswerError when asking again may help, any
        other CorftError when not."""
        ...

    def check(self) -> None:
        """See whether :meth:`chunk` would answer; raises what it would raise."""
        ...

    def statistics(self) -> dict[str, Any]:
        """How asking went, for diagnostics."""
        ...

    def close(self) -> None:
        """Give back what is held; may be called twice."""
        ...


def noise_seed(seed: int, chunk_number: int) -> int:
    """Seed of one chunk's noise: chunks of a run differ, runs with the same `seed` don't."""
    return int(np.random.SeedSequence((seed, chunk_number)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def nothing_seen(info: PolicyInfo) -> Request:
    """Black pictures with the arm at home: to warm up and to measure."""
    robot = info.contract.robot
    state = np.zeros(len(info.contract.state_names))
    state[:len(robot.joints)] = robot.home_rad
    images = {camera.name: np.zeros((*camera.size, 3), np.uint8) for camera in info.contract.cameras}
    return Request(Seen(0, images, state), info.instructions[0] if info.instructions else "go", seed=0)
