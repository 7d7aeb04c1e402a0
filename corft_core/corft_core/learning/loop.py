"""The step loop shared by both stages: progress, metrics, saves, SIGTERM, alarm on NaN."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from corft_core.errors import CorftError
from corft_core.learning import processes
from corft_core.learning.run_folder import RunFolder

logger = logging.getLogger(__name__)


class Interrupted(CorftError):
    """Training was asked to stop; everything is saved."""

    exit_code = 130


class Diverged(CorftError):
    """A loss or value left its feasible range."""


class Stage(Protocol):
    """One training stage."""

    name: str
    steps: int

    def step(self, step: int) -> dict[str, float]:
        """Do optimiser step `step` (from 0) and return what to log."""
        ...

    def phase(self, step: int) -> tuple[str, int]:
        """Name under which step `step` is logged, and the phase's first step."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """State to save."""
        ...

    def extra(self) -> dict[str, Any]:
        """JSON state to save."""
        ...


class StopRequest:
    """Remembers SIGTERM or SIGINT until the loop reaches a step border."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catch the signals inside the block (main thread only; elsewhere nothing is changed)."""
        previous: dict[int, Any] = {}
        try:
            for caught in (signal.SIGTERM, signal.SIGINT):
                previous[caught] = signal.signal(caught, self._note)
        except ValueError:  # not in the main thread: its owner handles signals
            pass
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.signal == number == signal.SIGINT:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.signal = number

    def check(self, run: RunFolder) -> None:
        """Raise Interrupted when asked to stop outside a stage, where nothing needs saving."""
        if self.signal is not None and processes.count() == 1:
            raise Interrupted(f"stopped by a signal; continue with ros2 run corft trainer --resume {run.folder}")


def run_stage(
    stage: Stage, run: RunFolder, start: int, log_every: int, save_every: int, stop: StopRequest, quiet: bool = False
) -> None:
    """Run steps start … stage.steps − 1. Raises Interrupted after saving, Diverged when a value is not finite."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    began = time.monotonic()
    bar = tqdm(range(start, stage.steps), initial=start, total=stage.steps, desc=stage.name, disable=quiet,
               mininterval=1.0, unit="step")
    for step in bar:
        info = stage.step(step)
        for key, value in info.items():
            if not math.isfinite(value):
                raise Diverged(_not_finite(stage.name, step, key, value, run))
            sums[key] = sums.get(key, 0.0) + value
            counts[key] = counts.get(key, 0) + 1
        done = step + 1
        phase, first = stage.phase(step)
        ends = done == stage.steps or stage.phase(done)[0] != phase
        if (done - first) % log_every == 0 or ends:
            row = _over_processes({key: sums[key] / counts[key] for key in sums})
            run.log(phase, done - first, row | {"seconds": time.monotonic() - began})
            bar.set_postfix({key: f"{value:.3g}" for key, value in list(row.items())[:3]})
            sums, counts = {}, {}
        stopped = processes.any_of(stop.signal is not None)
        if stopped or (done % save_every == 0 and done < stage.steps):
            run.save_state(stage.name, done, stage.tensors(), stage.extra() | {"sums": sums, "counts": counts})
        if stopped:
            bar.close()
            raise Interrupted(
                f"stopped at {stage.name} step {done} by a signal; continue with "
                f"ros2 run corft trainer --resume {run.folder}"
            )


def _not_finite(stage: str, step: int, key: str, value: float, run: RunFolder) -> str:
    saved = f"The last good state is in {run.resume_path}." if run.saved() else "Nothing had been saved yet."
    hint = "the learning rate (sft.lr, sft.backbone_lr)" if stage == "sft" else "co_rft.lr or co_rft.actor_lr"
    return (f"{stage} step {step}: {key} is {value}. Lower {hint} in a new run; if it happens at the first steps, look "
            f"for odd values in bag_to_dataset's report. {saved}")


def _over_processes(row: dict[str, float]) -> dict[str, float]:
    """Mean of every value over the processes."""
    if processes.count() == 1:
        return row
    means = processes.mean(torch.tensor(list(row.values()), dtype=torch.float64))
    return dict(zip(row, means.tolist(), strict=True))
