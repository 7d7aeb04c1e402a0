"""How chunks are executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ChunkMode = Literal["splice", "rtc", "receding_horizon", "open_loop", "temporal_ensemble"]
CHUNK_MODES: tuple[ChunkMode, ...] = get_args(ChunkMode)
OnCollision = Literal["truncate", "replan"]
ON_COLLISION: tuple[OnCollision, ...] = get_args(OnCollision)


@dataclass(frozen=True)
class ExecutorOptions:
    """Times in s, lengths in rad. Raises ValueError on a value that means nothing."""

    mode: ChunkMode = "splice"
    speed_scale: float = 1.0  # 1: as predicted; 0.5: at half the speed
    handoff_s: float = 0.06  # from receiving a chunk to following it: covers computing and the way to the controller
    blend_s: float = 0.2  # over how long the running motion fades out (splice, temporal_ensemble)
    lag_rad: float = 0.05  # an arm that lags farther behind a chunk than this does not hurry after
    max_splice_rad: float = 0.3  # larger differences within the blend are refused
    on_collision: OnCollision = "truncate"  # stop before what is hit, or then also plan a way around it
    press_rad: float = 0.05  # an action this little beyond contact is held back, a farther one ends the chunk
    max_deviation_rad: float = 0.08  # of the spline from an action, else the chunk is slowed down
    max_gap_rad: float = 0.5  # from the commanded position to a chunk's first action
    steepest: float = 2.0  # an action that needs more than so many times the velocity limit is a jump
    slowest: float = 6.0  # a chunk that needs even more time than so many times its own is refused
    min_actions: int = 2  # fewer left: refused
    execute_steps: int = 5  # actions taken from a chunk (receding_horizon), between two chunks (rtc)
    ensemble_decay: float = 0.01  # temporal_ensemble
    horizon_s: float = 3.0  # of a chunk, more is cut off
    knot_s: float = 0.05  # of the spline
    smoothing_s: float = 0.04  # details of a chunk shorter than this are smoothed

    def __post_init__(self) -> None:
        if self.mode not in CHUNK_MODES:
            raise ValueError(f"mode must be one of {', '.join(CHUNK_MODES)}, got {self.mode!r}")
        if self.on_collision not in ON_COLLISION:
            raise ValueError(f"on_collision must be one of {', '.join(ON_COLLISION)}, got {self.on_collision!r}")
        if not 0.0 < self.speed_scale <= 1.0:
            raise ValueError(f"speed_scale must be in (0, 1], got {self.speed_scale}")
