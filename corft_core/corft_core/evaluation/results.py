"""What an evaluation yields, and how a list of episodes becomes a row of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corft_core.errors import CorftError
from corft_core.evaluation.intervals import Estimate, bootstrap_mean, success_rate


@dataclass(frozen=True)
class EpisodeResult:
    """One trial. ``time_s`` is the time to success, or the horizon when the trial failed.

    ``target_xy_m`` is where the target object started, in the base frame.
    """

    scene_id: str
    success: bool
    time_s: float
    target_xy_m: tuple[float, float]
    chunks: int

    def within(self, limit_s: float) -> bool:
        """True when the trial succeeded before ``limit_s``."""
        return self.success and self.time_s <= limit_s


@dataclass(frozen=True)
class Comparison:
    """B against A on the scenes that both tried: means of paired differences with intervals."""

    success: Estimate
    cycle_time_ratio: Estimate


def summarise(results: Sequence[EpisodeResult], limit_s: float) -> dict[str, Any]:
    """Success within ``limit_s`` with its interval, cycle time of the successes, and the rate at 1.5 × the limit.

    ``cycle_time_s`` is null when no trial succeeded.
    """
    rate = success_rate([result.within(limit_s) for result in results])
    longer = success_rate([result.within(1.5 * limit_s) for result in results])
    times = [result.time_s for result in results if result.within(1.5 * limit_s)]
    cycle = bootstrap_mean(times)
    failed_at_horizon = [result.time_s if result.within(1.5 * limit_s) else 1.5 * limit_s for result in results]
    return {
        "success": _number(rate.value), "low": _number(rate.low), "high": _number(rate.high), "n": rate.n,
        "cycle_time_s": _number(cycle.value), "cycle_time_low_s": _number(cycle.low),
        "cycle_time_high_s": _number(cycle.high),
        "cycle_time_failures_at_horizon_s": _number(bootstrap_mean(failed_at_horizon).value),
        "success_at_1_5x_limit": _number(longer.value),
        "limit_s": limit_s,
    }


def compare(a: Sequence[EpisodeResult], b: Sequence[EpisodeResult], limit_s: float) -> Comparison:
    """Paired comparison of B with A: difference in success, and ratio of times where both succeeded."""
    by_scene = {result.scene_id: result for result in a}
    pairs = [(by_scene[result.scene_id], result) for result in b if result.scene_id in by_scene]
    difference = bootstrap_mean([float(y.within(limit_s)) - float(x.within(limit_s)) for x, y in pairs])
    ratio = bootstrap_mean([math.log(y.time_s / x.time_s) for x, y in pairs
                            if x.within(1.5 * limit_s) and y.within(1.5 * limit_s)])
    return Comparison(difference, Estimate(math.exp(ratio.value), math.exp(ratio.low), math.exp(ratio.high), ratio.n))


def to_json(value: Any) -> Any:
    """Plain data of a dataclass with NaN as null, since JSON has none."""
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def read_results(path: Path | str) -> list[EpisodeResult]:
    """Episodes from a JSON-lines file as ``evaluate_live`` writes it. Raises CorftError naming a bad line."""
    results = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            results.append(EpisodeResult(row["scene_id"], bool(row["success"]), float(row["time_s"]),
                                         tuple(row["target_xy_m"]), int(row["chunks"])))
        except (ValueError, KeyError, TypeError) as error:
            raise CorftError(f"{path}:{number} is not an episode result: {error!r}") from error
    return results


def scene_ids(split: str, count: int, first: int = 0) -> list[str]:
    """Ids ``split/first`` … of ``count`` scenes."""
    return [f"{split}/{index}" for index in range(first, first + count)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
