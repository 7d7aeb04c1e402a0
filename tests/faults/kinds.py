"""What a kind of fault is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from faults.rig import Rig

Inject = Callable[[Rig, random.Random], None]


@dataclass(frozen=True)
class FaultKind:
    """``holds``: the arm has to come to rest because of it. ``silent``: the executor itself is gone or hangs, so that
    no reason can be published. ``ends``: what ends with it and is started anew, ``cell`` or ``graph``. ``cost_s``:
    about how long one takes.

    ``goal``: the policy drives the arm. Its goal has to be aborted with this in the reason, or to go on where that is
    empty; None: the campaign's chunks drive it. A policy may rest, so standing still needs no reason then.
    """

    name: str
    family: str
    inject: Inject
    holds: bool = False
    silent: bool = False
    ends: str = ""
    cost_s: float = 3.0
    goal: str | None = None
