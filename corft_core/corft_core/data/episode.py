"""One demonstration on the policy's time grid, the unit that every writer and reader of data sets exchanges."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Episode:
    """Steps t = 0 … T−1 at the contract's rate.

    ``images``: camera name → uint8 (T, H, W, 3) rgb; empty where the frames went to the encoders one by one.
    ``state`` float32 (T, S): measured joints [rad], gripper opening 0…1, extra observations, from the latest samples
    not newer than tick t. ``action`` float32 (T, A): what was commanded at tick t + 1, as ``contract.action_names``
    says: absolute joints [rad], tool pose or twist, and gripper opening. The last step of a success carries reward 1.
    ``columns``: further scalar columns of the data set, each (T,), such as source stamps and ages.
    ``origin``: JSON-able notes on where the episode comes from.
    """

    images: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    instruction: str
    success: bool
    scene_id: str
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    origin: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.state)

    def validate(self) -> None:
        """Raise ValueError when lengths, dtypes or values do not fit together."""
        steps = len(self.state)
        if steps == 0:
            raise ValueError("an episode needs at least one step")
        for name, vector in (("state", self.state), ("action", self.action)):
            if vector.ndim != 2 or len(vector) != steps:
                raise ValueError(f"{name} must be ({steps}, D), got {vector.shape}")
            if not np.all(np.isfinite(vector)):
                raise ValueError(f"{name} holds values that are not finite")
        for camera, images in self.images.items():
            if images.dtype != np.uint8 or images.ndim != 4 or len(images) != steps or images.shape[3] != 3:
                raise ValueError(f"images of {camera} must be uint8 ({steps}, H, W, 3), "
                                 f"got {images.dtype} {images.shape}")
        for name, column in self.columns.items():
            if column.shape != (steps,):
                raise ValueError(f"column {name} must be ({steps},), got {column.shape}")

    @property
    def reward(self) -> NDArray[np.float32]:
        """Sparse reward (T,): 1 on the last step of a success, else 0."""
        reward = np.zeros(len(self), np.float32)
        reward[-1] = float(self.success)
        return reward

    @property
    def done(self) -> NDArray[np.bool_]:
        """True (T,) on the last step when the task ended there (a success)."""
        return self._last(self.success)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """True (T,) on the last step when the recording ended without success."""
        return self._last(not self.success)

    def _last(self, value: bool) -> NDArray[np.bool_]:
        flags = np.zeros(len(self), np.bool_)
        flags[-1] = value
        return flags
