"""Which of the commands that were sent does the controller follow? Known by the setpoint that it publishes.

A command may be lost on its way, and another node may send one to the same controller. What is sent next must continue
what the controller really does, so :class:`Follower` compares every setpoint with the commands sent lately, at the
setpoint's own time. Until the hand-off a command repeats the one before, so both fit; after it they part, and the
setpoint tells which of them runs. What can't be told apart yet stays possible, and a new command has to be harmless
whichever of those runs. Without setpoints nothing is known and nothing is refused. A controller that says that it
scales its speed follows the same motions ever later: the commands are then as late as its setpoint.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.command import Command, standing
from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.reasons import Reason, Refusal
from corft_core.execution.scaling import FULL, expected_slip_ns, scaled, slip_ns
from corft_core.execution.watchdog import Measured
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
# A setpoint fits a command that is so near, and what the command moves within the uncertainty of the stamps.
NEAR_RAD = 1e-5
# The uncertainty is what nine tenths of the last setpoints of a moving arm keep, with a reserve; so much at first.
STAMPS_KEPT, UNKNOWN_S, PART, RESERVE, MOVING_RAD_S = 100, 0.002, 0.9, 2.0, 0.05
SCALED_RAD = 3e-4  # more, when the controller scales its speed and joins motions on its own
# Farther than this from every command it is none of ours: rounding, a speed scaling of the controller near one.
FAR_RAD, FAR_S = 2e-3, 0.010
# After so many setpoints that agree: another command runs than the last; over so long a time: none of ours.
AGREEING, FOREIGN_NS = 2, 100_000_000
LATE_NS, LOST_NS = 60_000_000, 1_000_000_000  # after its hand-off a command may be late, and is lost for good
BLIND_NS = 250_000_000  # an older setpoint says nothing
STILL_RAD, STILL_NS = 2e-4, 100_000_000
REMEMBERED = 32
SLOWEST = 0.1  # share of its speed at which a motion is taken to be passed through
ARRIVALS_S = (0.0, 0.005, 0.01)  # a command reaches the controller this long after it was sent
SAME_RAD, TOUCHING_S = 1e-5, 0.001


@dataclass(frozen=True)
class Adopt:
    """The controller follows ``command``, which is not the last one that was sent."""

    command: Command
    reason: Refusal


@dataclass(eq=False)
class _Sent:
    """A command, whether the last setpoint leaves it possible, how many since its hand-off did in a row, whether one
    ever showed that it runs, and how late it is for a scaling of the speed."""

    command: Command
    possible: bool = True
    fitted: int = 0
    followed: bool = False
    late_ns: int = 0

    def slip(self, by_ns: int) -> None:
        """The controller follows it later."""
        if by_ns:
            self.command, self.late_ns = self.command.later(by_ns), self.late_ns + by_ns


class Follower:
    """Tell it what was :meth:`sent` and :meth:`heard`; times are nanoseconds of one clock. Not safe for threads."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._stamps_s: deque[float] = deque([UNKNOWN_S], maxlen=STAMPS_KEPT)
        self._tells_scaling = False  # a message's field that nobody fills in is zero
        self.forget()

    def forget(self) -> None:
        """Nothing that was sent runs any more, and what was heard is of no use."""
        self._sent: list[_Sent] = []  # the last one is what others think that runs
        self._best: _Sent | None = None
        self._agreeing = 0
        self._vague = False  # the last setpoint moves near one of them and fits none
        self._foreign_since_ns: int | None = None
        self._last: Measured | None = None
        self._still_since_ns = 0

    def sent(self, command: Command) -> None:
        """``command`` is on its way to the controller."""
        if not self._sent and self._last is not None:
            self._sent.append(_Sent(standing(self._names, self._last.position, self._last.stamp_ns)))
        self._sent = [*self._sent[1 - REMEMBERED:], _Sent(command)]
        self._agreeing = 0

    def heard(self, setpoint: Measured) -> Adopt | Refusal | None:
        """What a setpoint shows: that another command runs than the last, that none of ours does, or nothing new.

        With Adopt the follower goes on as if that command had been the last.
        """
        last = self._last
        if last is not None and setpoint.stamp_ns <= last.stamp_ns:
            return None
        self._tells_scaling |= setpoint.scaling > 0
        setpoint = setpoint if self._tells_scaling else replace(setpoint, scaling=1.0)
        if last is None or np.max(np.abs(setpoint.position - last.position)) > STILL_RAD:
            self._still_since_ns = setpoint.stamp_ns
        self._last = setpoint
        begun = [sent for sent in self._sent if sent.command.start_ns <= setpoint.stamp_ns]
        if not begun:
            return None
        slows = last is not None and scaled(last, setpoint)
        slips = [slip_ns(sent.command, sent.late_ns, sent.fitted >= AGREEING, last, setpoint)
                 if last is not None and slows else 0 for sent in begun]
        states = [sent.command.state(setpoint.stamp_ns - slip) for sent, slip in zip(begun, slips, strict=True)]
        away = np.array([np.max(np.abs(state.position - setpoint.position)) for state in states])
        speed = np.array([np.max(np.abs(state.velocity)) for state in states])
        nearest = int(np.argmin(away))
        if np.all(away > FAR_RAD + FAR_S * speed):
            return self._unknown(setpoint, states[-1].position)
        self._foreign_since_ns = None
        near = NEAR_RAD + RESERVE * float(np.quantile(self._stamps_s, PART)) * speed + SCALED_RAD * slows
        stands = setpoint.stamp_ns - self._still_since_ns >= STILL_NS
        self._vague = bool(away[nearest] > near[nearest]) and not stands
        if speed[nearest] > MOVING_RAD_S:
            self._stamps_s.append(float(away[nearest] / speed[nearest]))
        for sent, fits, slip in zip(begun, away <= away[nearest] + near, slips, strict=True):
            sent.possible = bool(fits)
            sent.slip(slip if fits or last is None else expected_slip_ns(last, setpoint))
            sent.fitted = sent.fitted + (setpoint.stamp_ns >= sent.command.handoff_ns) if fits else 0
        return self._judge(begun, setpoint.stamp_ns, float(away[-1]))

    def _judge(self, begun: list[_Sent], stamp_ns: int, away_rad: float) -> Adopt | None:
        best = next(sent for sent in reversed(begun) if sent.possible)
        self._agreeing = self._agreeing + 1 if best is self._best else 1
        self._best, newest = best, self._sent[-1]
        best.followed |= sum(sent.possible for sent in begun) == 1
        self._sent = [sent for sent in self._sent if sent.possible or sent is newest
                      or (not sent.followed and stamp_ns < sent.command.handoff_ns + LOST_NS)]
        if self._agreeing < AGREEING or stamp_ns < newest.command.handoff_ns + LATE_NS:
            return None
        command = self.instead(stamp_ns)
        return None if command is None else Adopt(command, _lost(newest.command, away_rad))

    @property
    def newest(self) -> Command | None:
        """The last command, as late as the controller is with it; None when nothing was sent."""
        return self._sent[-1].command if self._sent else None

    @property
    def scaling(self) -> float:
        """The factor by which the controller said last that it scales its speed."""
        return 1.0 if self._last is None else self._last.scaling

    def scales(self, now_ns: int) -> bool:
        """Whether the controller says that it scales its speed."""
        return self._last is not None and self._last.scaling < FULL and not self._blind(now_ns)

    def behind_ns(self, now_ns: int) -> int:
        """How much later than at the last setpoint a controller that scales its speed is at ``now_ns``."""
        if self._last is None or not self.scales(now_ns):
            return 0
        return round((1.0 - self._last.scaling) * max(now_ns - self._last.stamp_ns, 0))

    def resting(self, now_ns: int) -> Array | None:
        """(J,) where the controller has held the arm for a while; None when it moves it, or is not heard."""
        last = self._last
        still = last is not None and last.stamp_ns - self._still_since_ns >= STILL_NS
        return last.position if last is not None and still and not self._blind(now_ns) else None

    def moved(self, now_ns: int) -> bool:
        """Whether the controller is known not to rest."""
        return self._last is not None and not self._blind(now_ns) and self.resting(now_ns) is None

    def astray(self, now_ns: int) -> bool:
        """Whether the controller follows none of what was sent."""
        return self._foreign_since_ns is not None and not self._blind(now_ns)

    def instead(self, now_ns: int) -> Command | None:
        """What the controller follows instead of the last command; from now on that counts as the last.

        None when the last may run, or nothing is known.
        """
        best = self._best
        if best is None or self._blind(now_ns) or self.astray(now_ns) or self._sent[-1].possible:
            return None
        self._sent = [*(sent for sent in self._sent if sent is not best), best]
        return best.command

    def against(self, command: Command, now_ns: int, limits: MotionLimits) -> Refusal | None:
        """Why ``command``, which continues the last one, must not be sent: it might break ``limits``, since the
        controller may follow another (COMMAND_LOST), or follows none of them (FOREIGN_COMMAND)."""
        if self._last is None or not self._sent:
            return None
        if self._blind(now_ns):
            silent_s = (now_ns - self._last.stamp_ns) * 1e-9
            return Refusal(Reason.COMMAND_LOST, f"the controller's setpoint is {silent_s:.2f} s old: which motion it "
                                                "follows now is not known (state_publish_rate, clocks, "
                                                "follow_setpoint)")
        if self.astray(now_ns):
            return Refusal(Reason.FOREIGN_COMMAND, "the controller's setpoint belongs to none of the last motions")
        if self._vague:
            return Refusal(Reason.COMMAND_LOST, "the controller's setpoint is near the last motion and not on it; "
                                                "chunks are taken again when it shows which motion it follows")
        limits = limits.at_speed(max(self._last.scaling, SLOWEST)) if self._last is not None else limits
        *others, newest = self._sent
        for other in reversed(others):
            if newest.fitted >= AGREEING:  # nothing before it runs any more
                break
            if other.possible and any(_jolts(other.command, command, now_ns + round(1e9 * delay_s), limits,
                                             self.behind_ns(now_ns + round(1e9 * delay_s))) for delay_s in ARRIVALS_S):
                return Refusal(Reason.COMMAND_LOST, "the controller may still follow the motion before the last one; "
                                                    "chunks are taken again when its setpoint shows which")
            newest = other
        return None

    def _blind(self, now_ns: int) -> bool:
        return self._last is None or now_ns - self._last.stamp_ns > BLIND_NS

    def _unknown(self, setpoint: Measured, commanded: Array) -> Refusal | None:
        since_ns = self._foreign_since_ns = self._foreign_since_ns or setpoint.stamp_ns
        if setpoint.stamp_ns - since_ns < FOREIGN_NS:
            return None
        gap = np.abs(setpoint.position - commanded)
        joint = int(np.argmax(gap))
        return Refusal(Reason.FOREIGN_COMMAND,
                       f"the controller's setpoint of {self._names[joint]} is {gap[joint]:.3f} rad from its command: "
                       "does another node command the arm, did the controller restart or give up, does it scale the "
                       "speed, or are the clocks apart?")


def _lost(command: Command, away_rad: float) -> Refusal:
    what = f"chunk {command.number}" if command.kind == "chunk" else f"the last {command.kind}"
    return Refusal(Reason.COMMAND_LOST, f"the controller follows the motion before {what}, which it never got or got "
                                        f"too late; its setpoint is {away_rad:.4f} rad off")


def _jolts(running: Command, command: Command, arrival_ns: int, limits: MotionLimits, behind_ns: int) -> bool:
    """Whether ``command`` would break ``limits`` on its first way, from what ``running``, so much later than it says,
    does when it arrives."""
    running = running.later(behind_ns) if behind_ns else running
    arrival_s = (arrival_ns - command.start_ns) * 1e-9
    coming = command.path.times_s[command.path.times_s > max(arrival_s + TOUCHING_S, command.unsent_s)]
    apart_rad = np.max(np.abs(running.state(arrival_ns).position - command.state(arrival_ns).position))
    if len(coming) == 0:  # what goes on from there begins at rest
        return bool(apart_rad > STILL_RAD)
    if apart_rad < SAME_RAD:
        return False
    begin, end = running.state(arrival_ns), command.path.sample(float(coming[0]))
    way = JointPath(command.path.names, np.array([0.0, coming[0] - arrival_s]),
                    *(np.stack(pair) for pair in zip((begin.position, begin.velocity, begin.acceleration), end,
                                                     strict=True)))
    return worst_excess(way, limits) is not None
