"""One finished run as a file: results/evidence/<folder>/<suite>/<task>/<seed>/<arm>.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.errors import CorftError
from corft_core.evidence.protocol import ADDED_SETTINGS, VERSION


@dataclass(frozen=True)
class Trials:
    """Trials of one split in the order of their scenes, N of them.

    ``steps``: to success, or the horizon. ``xy_m``: where the target started. ``kind``: see Suite.unseen_kind.
    """

    success: tuple[bool, ...]
    steps: tuple[int, ...]
    xy_m: tuple[tuple[float, float], ...] = ()
    kind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One arm, trained and tried on one task with one seed. Steps are those of ``rate_hz``.

    ``settings``: everything the result depends on, as dotted key → value. ``diverged``: why training stopped early;
    its trials then count as failures. ``curves``: thinned-out training metrics and critic values, for the plots.
    ``relabelled_from``: the arm's name in ``command``, where its recipe got another name afterwards. ``data``: how many
    steps there were, how many stage 1 imitated, and the share that a filter removed; ``stage_one``: digest of the
    weights that stage 1 ended with. Both are empty in runs made before these fields, and where training diverged.
    """

    suite: str
    task: str
    seed: int
    arm: str
    limit: int
    horizon: int
    rate_hz: int
    splits: dict[str, Trials]
    settings: dict[str, Any]
    seconds: dict[str, float]
    diverged: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    command: str = ""
    curves: dict[str, Any] = field(default_factory=dict)
    protocol: int = VERSION
    relabelled_from: str = ""
    data: dict[str, float] = field(default_factory=dict)
    stage_one: str = ""


def path(results: Path, suite: str, task: str, seed: int, arm: str) -> Path:
    """The file of a run."""
    return results / suite / task / str(seed) / f"{arm}.json"


def write(results: Path, run: Run) -> None:
    """Keep a run; a reader never sees half of it."""
    text = json.dumps(asdict(run), allow_nan=False, separators=(",", ":"))
    files.write_text(path(results, run.suite, run.task, run.seed, run.arm), text + "\n")


def read(file: Path) -> Run:
    """Inverse of :func:`write`. Raises CorftError naming a file that is no run."""
    try:
        data = json.loads(file.read_text())
        splits = {name: Trials(tuple(map(bool, part["success"])), tuple(map(int, part["steps"])),
                               tuple((float(x), float(y)) for x, y in part["xy_m"]), tuple(part["kind"]))
                  for name, part in data.pop("splits").items()}
        return Run(splits=splits, **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorftError(f"{file} is no run of the evidence ({error!r}): remove it and run make evidence.") from error


def read_all(results: Path) -> Iterator[Run]:
    """Every run below a folder."""
    yield from map(read, sorted(results.glob("*/*/*/*.json")))


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted key → value."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        result |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return result


def outdated(run: Run, settings: Mapping[str, Any]) -> list[str]:
    """Settings in which a kept run differs from what is asked for now, as ``key: kept, wanted``.

    A setting that did not exist when the run was made counts as what the code did then (ADDED_SETTINGS).
    """
    differences = [] if run.protocol == VERSION else [f"protocol: {run.protocol}, {VERSION}"]
    for key, wanted in settings.items():
        kept = run.settings.get(key, ADDED_SETTINGS.get(key))
        if json.dumps(kept) != json.dumps(wanted):
            differences.append(f"{key}: {kept}, {wanted}")
    return differences
