"""One screen about a data set: robot, tasks, episodes, cameras, sizes, shares, provenance."""

from __future__ import annotations

from typing import Any

import numpy as np

from corft_core.data import lerobot_format as fmt
from corft_core.data.check_signals import idle_share
from corft_core.data.lerobot_meta import read_json
from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.data.video import codec_name


def describe(dataset: EpisodeDataset) -> dict[str, Any]:
    """The figures, JSON-able. Raises DatasetError or VideoError when a part cannot be read."""
    contract, steps = dataset.contract, np.diff(dataset.episode_starts)
    sizes = {part: sum(path.stat().st_size for path in (dataset.folder / part).rglob("*") if path.is_file()) / 1e6
             for part in ("data", "videos", "meta")}
    tasks: dict[str, int] = {}
    for instruction in dataset.instructions:
        tasks[instruction] = tasks.get(instruction, 0) + 1
    source_path = dataset.folder / fmt.SOURCE_PATH
    return {
        "folder": str(dataset.folder), "robot": contract.robot.name, "state": list(contract.state_names),
        "action": list(contract.action_names), "action_representation": contract.action_representation,
        "fps": dataset.fps, "episodes": dataset.num_episodes, "frames": dataset.num_frames,
        "duration_s": dataset.num_frames / dataset.fps,
        "length_s": {"min": float(steps.min()) / dataset.fps, "median": float(np.median(steps)) / dataset.fps,
                     "max": float(steps.max()) / dataset.fps},
        "tasks": tasks, "scenes": len({scene for scene in dataset.scene_ids if scene}),
        "success_share": float(dataset.episode_success.mean()), "idle_share": idle_share(dataset),
        "cameras": {c.name: {"size": list(c.size), "codec": codec_name(dataset.video_slice(c.name, 0).path),
                             "files": len(dataset.video_files(c.name))} for c in contract.cameras},
        "extra_columns": [name for name in dataset.info["features"] if name.startswith("source.")],
        "size_mb": {part: round(size, 3) for part, size in sizes.items()},
        "source": read_json(source_path) if source_path.exists() else None,
    }


def text(about: dict[str, Any]) -> str:
    """For a terminal."""
    length, size = about["length_s"], about["size_mb"]
    lines = [
        f"{about['folder']}: {about['robot']}, LeRobot {fmt.CODEBASE_VERSION}",
        f"episodes   {about['episodes']} ({100 * about['success_share']:.0f} % success), {about['frames']} steps at "
        f"{about['fps']} Hz, {about['duration_s']:.0f} s; length {length['min']:.1f} / {length['median']:.1f} / "
        f"{length['max']:.1f} s (min, median, max)",
        f"idle       {100 * about['idle_share']:.1f} % of the steps",
        f"state      {', '.join(about['state'])}",
        f"action     {', '.join(about['action'])} ({about['action_representation']} when trained)",
    ]
    for name, camera in about["cameras"].items():
        height, width = camera["size"]
        lines.append(f"camera     {name}: {width}x{height}, {camera['codec']} in {camera['files']} file(s)")
    lines += [f"task       {count} x {task}" for task, count in about["tasks"].items()]
    if about["scenes"]:
        lines.append(f"scenes     {about['scenes']}")
    lines.append(f"size       {sum(size.values()):.1f} MB: data {size['data']:.1f}, videos {size['videos']:.1f}, "
                 f"meta {size['meta']:.1f}")
    lines += [f"source     {line}" for line in _provenance(about["source"])]
    return "\n".join(lines)


def _provenance(source: dict[str, Any] | None) -> list[str]:
    if source is None:
        return ["not written by corft"]
    lines = []
    if source.get("bags"):
        lines.append(f"{len(source['bags'])} bag(s): {', '.join(map(str, source['bags'][:3]))}"
                     + (", …" if len(source["bags"]) > 3 else ""))
    if source.get("merged"):
        lines.append(f"merged from {', '.join(source['merged'])}")
    if source.get("from"):
        lines.append(f"{len(source['episodes'])} episodes of {source['from']}")
    versions = source.get("versions", {})
    lines.append("written with " + ", ".join(f"{name} {versions[name]}" for name in ("corft_core", "av", "pyarrow")
                                             if name in versions))
    return lines
