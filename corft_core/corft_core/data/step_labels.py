"""Reward and ends of episodes where a data set does not carry them: LeRobot's recorder for demonstrations writes none.

Nothing is invented: without a word on success an episode was cut off, and its reward is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.data import lerobot_format as fmt

COLUMNS = (fmt.REWARD, fmt.DONE, fmt.TRUNCATED, fmt.SUCCESS)


def step_labels(stored: Mapping[str, NDArray[Any]], starts: NDArray[np.int64], succeeded: bool
                ) -> dict[str, NDArray[Any]]:
    """All of ``COLUMNS``, each (N,): the ``stored`` ones, and for those that lack

    success: on the last step when its stored reward is above 0, or when no reward is stored and ``succeeded``;
    done: on the last step of a success; truncated: on the last step that is not done; reward: 1 on a success's last
    step, else 0. ``starts`` (E + 1,) are the episodes' first rows and N.
    """
    last = np.zeros(starts[-1], np.bool_)
    last[starts[1:] - 1] = True

    def column(name: str, other: NDArray[Any], kind: type) -> NDArray[Any]:
        return np.asarray(stored.get(name, other)).astype(kind)

    rewarded = stored[fmt.REWARD] > 0 if fmt.REWARD in stored else np.full(len(last), succeeded)
    success = column(fmt.SUCCESS, last & rewarded, np.bool_)
    done = column(fmt.DONE, last & success, np.bool_)
    return {fmt.SUCCESS: success, fmt.DONE: done, fmt.TRUNCATED: column(fmt.TRUNCATED, last & ~done, np.bool_),
            fmt.REWARD: column(fmt.REWARD, last & success, np.float32)}
