"""A motion to be sent, and how it is joined to the one that runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.reasons import Refusal
from corft_core.execution.spline import State
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
KNOT_APART_NS = 2_000_000


@dataclass(frozen=True)
class Command:
    """A motion to send at once: ``path`` starts at ``start_ns`` and replaces what runs.

    Up to ``handoff_ns`` it repeats the running motion, so the controller may take it over at any moment until then;
    it starts at a knot of the running motion, at or before the moment of sending. ``gripper`` holds
    ``(due_ns, opening)``, replacing what is scheduled from ``handoff_ns`` on. ``delay_steps``: actions of the chunk
    whose time had passed at the hand-off. ``content_end_ns``: when the last action is due; then comes the stop.
    ``detour`` (J,): the first action behind the obstacle that cut the chunk, where a planned way around may lead.
    ``bridged``: the points before the hand-off are not sent, since where exactly the controller is when it gets them
    is not known; it joins what it does to the hand-off.
    """

    kind: Literal["chunk", "hold", "move"]
    path: JointPath
    start_ns: int
    handoff_ns: int
    content_end_ns: int
    gripper: tuple[tuple[int, float], ...] = ()
    number: int = 0
    delay_steps: int = 0
    used: int = 0
    stretch: float = 1.0
    splice_offset_rad: float = 0.0
    deviation_rad: float = 0.0
    truncated: Refusal | None = None
    detour: Array | None = None
    bridged: bool = False

    @property
    def unsent_s(self) -> float:
        """Points up to this time of the path are not sent: a controller takes none at time 0."""
        return max((self.handoff_ns - self.start_ns) * 1e-9 - 1e-6, 0.0) if self.bridged else 0.0

    @property
    def sent(self) -> JointPath:
        """The path as it is sent."""
        path, later = self.path, self.path.times_s > self.unsent_s
        return JointPath(path.names, path.times_s[later], path.positions[later],
                         None if path.velocities is None else path.velocities[later],
                         None if path.accelerations is None else path.accelerations[later])

    @property
    def end_ns(self) -> int:
        """When the motion is at rest."""
        return self.start_ns + round(self.path.duration_s * 1e9)

    def later(self, by_ns: int) -> Command:
        """The same motion, ``by_ns`` later."""
        return replace(self, start_ns=self.start_ns + by_ns, handoff_ns=self.handoff_ns + by_ns,
                       content_end_ns=self.content_end_ns + by_ns,
                       gripper=tuple((due_ns + by_ns, opening) for due_ns, opening in self.gripper))

    def state(self, time_ns: int) -> State:
        """Commanded state at an absolute time, at rest after the end."""
        return State(*self.path.sample((time_ns - self.start_ns) * 1e-9))

    def states(self, times_ns: NDArray[np.int64]) -> Array:
        """Commanded positions (N, J) at absolute times (N,)."""
        times_s: Array = ((times_ns - self.start_ns) * 1e-9).astype(np.float64)
        return self.path.positions_at(times_s)


@dataclass(frozen=True)
class Committed:
    """What is executed whatever a policy answers: ``positions`` (K, J) and openings ``gripper`` (K,), or None, at
    ``stamp_ns + (j + 1) * dt_s``. A chunk from an observation at ``stamp_ns`` takes over after about ``frozen`` steps,
    the longest of the delays measured lately."""

    stamp_ns: int
    dt_s: float
    positions: Array
    gripper: Array | None
    frozen: int


def standing(names: tuple[str, ...], position: Array, now_ns: int) -> Command:
    """Standing still at ``position`` (J,)."""
    zeros = np.zeros((2, len(names)))
    path = JointPath(names, np.array([0.0, 0.01]), np.stack([position, position]), zeros, zeros)
    return Command("hold", path, now_ns, now_ns, now_ns)


def handoff_time(anchor: Command, now_ns: int, lead_s: float) -> int:
    """When to hand over from ``anchor``, about ``lead_s`` from now: at one of its knots where one is near.

    Between two knots that nearly coincide an interpolation would amplify what the knots leave open.
    """
    handoff_ns = now_ns + round(lead_s * 1e9)
    knots_ns = anchor.start_ns + np.round(anchor.path.times_s * 1e9).astype(np.int64)
    nearest = int(knots_ns[np.argmin(np.abs(knots_ns - handoff_ns))])
    if abs(nearest - handoff_ns) >= KNOT_APART_NS:
        return handoff_ns
    return nearest if nearest >= now_ns else nearest + KNOT_APART_NS


def joined(anchor: Command, now_ns: int, handoff_ns: int, path: JointPath) -> tuple[int, JointPath]:
    """``path`` from the hand-off on, preceded by the knots of what the anchor does until then; and its start [ns].

    The anchor's own knots are kept, from the last one at or before now, so the joined path is exactly what ran.
    """
    before = anchor.path
    if now_ns >= anchor.end_ns:
        start_ns, knots = now_ns, np.zeros(1)
        states = [value[None] for value in before.sample(before.duration_s)]
    else:
        begin_s, end_s = (now_ns - anchor.start_ns) * 1e-9 + 1e-9, (handoff_ns - anchor.start_ns) * 1e-9 - 1e-9
        first, until = (int(k) for k in np.searchsorted(before.times_s, (begin_s, end_s), side="right"))
        part = slice(max(first - 1, 0), max(until, 1))
        start_ns = anchor.start_ns + round(float(before.times_s[part.start]) * 1e9)
        knots = before.times_s[part] - before.times_s[part.start]
        states = [value[part] for value in _states(before)]
    lead_s = (handoff_ns - start_ns) * 1e-9
    if lead_s <= 0:
        return handoff_ns, path
    return start_ns, JointPath(path.names, np.concatenate([knots, path.times_s + lead_s]),
                               *(np.concatenate(pair) for pair in zip(states, _states(path), strict=True)))


def _states(path: JointPath) -> tuple[Array, Array, Array]:
    if path.velocities is None or path.accelerations is None:
        raise ValueError("a path to be joined needs velocities and accelerations")
    return path.positions, path.velocities, path.accelerations
