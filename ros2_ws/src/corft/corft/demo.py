"""The whole loop in the simulated cell: record, convert, train, evaluate, drive through the graph, report.

Each step is the command a user would type; what a step wrote is reused when the program is run again with
``--continue``. The protocol is fixed here before anything is measured: the time limit is the mean length of the
demonstrations, the checkpoints are the last ones, scenes and seeds are the constants below.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from corft.bag_to_dataset import EXIT_LOSSES
from corft.processes import Child, MemoryWatch, announce, running, stopwatch
from corft.recording.command import command_for_this_machine, recorded_topics, write_qos
from corft_core import files
from corft_core.cli import EXIT_OK, run_main
from corft_core.contract import Contract
from corft_core.errors import CorftError

DEMONSTRATIONS = 40
SCENES_IN_CELL = 60
SCENES_LIVE = 10
RECORD_REAL_TIME_FACTOR = 4.0
LIVE_REAL_TIME_FACTOR = 2.0
VIDEO_SCENES = 2
DOMAIN_ID = "87"
POLICIES = ("sft", "co_rft")


class Progress:
    """Seconds of every step and the largest memory seen, kept across ``--continue``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"seconds": {}, "peak_mb": 0}
        self.seconds: dict[str, float] = kept["seconds"]
        self.peak_mb: int = kept["peak_mb"]

    @contextmanager
    def step(self, name: str, memory: MemoryWatch) -> Iterator[None]:
        """Add the time that the block takes, also when it fails."""
        clock = stopwatch()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + clock(), 1)
            self.peak_mb = max(self.peak_mb, memory.peak_mb)
            files.write_json(self.path, {"seconds": self.seconds, "peak_mb": self.peak_mb})


class Demo:
    """The steps, in order. Every path lies under ``out``."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from ament_index_python.packages import get_package_share_directory

        self.arguments = arguments
        self.out = Path(arguments.out).resolve()
        self.bag = self.out / "bag"
        self.dataset = self.out / "dataset"
        self.run = self.out / "run"
        self.checkpoints = {name: self.run / "checkpoints" / name for name in POLICIES}
        self.share = Path(get_package_share_directory("corft"))
        self.commands: list[str] = []
        self.progress = Progress(self.out / "progress.json")

    def child(self, command: list[str], log: str, show: str = "") -> Child:
        """Start a command; lines that hold ``show`` go to the terminal when it is given."""
        def on_line(line: str) -> None:
            if show and show in line:
                print("  " + line[line.index(show):], file=sys.stderr, flush=True)

        child = Child(command, self.out / "logs" / f"{log}.log", on_line)
        self.note(child.command)
        return child

    def note(self, command: str) -> None:
        """Keep a command for the report and show it."""
        command = command.replace(str(self.out), str(self.arguments.out))
        self.commands.append(command)
        print(f"  $ {command}", file=sys.stderr, flush=True)

    def foreground(self, command: list[str], accepted: tuple[int, ...] = (EXIT_OK,)) -> None:
        """Run a command whose output, with its progress bar, belongs on the terminal."""
        self.note(" ".join(command))
        status = subprocess.run(command, check=False).returncode
        if status not in accepted:
            raise CorftError(f"`{' '.join(command)}` ended with status {status}; its message stands above.")

    def record(self) -> None:
        """40 demonstrations of the imperfect operator, recorded with `ros2 bag record`."""
        if (self.bag / "metadata.yaml").exists():
            return
        shutil.rmtree(self.bag, ignore_errors=True)
        contract = Contract.load(self.share / "config" / "panda_cell" / "contract.yaml")
        topics = recorded_topics(contract, use_sim_time=True)
        overrides = self.out / "qos_overrides.yaml"
        # All of the cell's publishers are reliable.
        write_qos(overrides, contract, topics, reliable={topic.topic for topic in topics})
        recorder = self.child(command_for_this_machine(topics, self.bag, overrides, "none", True), "record")
        try:
            cell = self.child(["ros2", "launch", "-n", "corft", "demo.launch.py",
                               f"episodes:={self.arguments.episodes}",
                               f"real_time_factor:={RECORD_REAL_TIME_FACTOR}", f"seed:={self.arguments.seed}"],
                              "demo_cell", show="demo ")
            try:
                cell.wait(timeout_s=1200)
            finally:
                cell.stop()
        finally:
            recorder.stop()
        if not (self.bag / "metadata.yaml").exists():
            raise CorftError(f"the recorder left no {self.bag / 'metadata.yaml'}; see {recorder.log}")

    def convert(self) -> None:
        """Bag to LeRobot v3."""
        if not self.dataset.exists():
            self.foreground(["ros2", "run", "corft", "bag_to_dataset", str(self.bag), str(self.dataset),
                             "--contract", str(self.share / "config" / "panda_cell" / "contract.yaml")],
                            accepted=(EXIT_OK, EXIT_LOSSES))  # a busy machine costs an episode now and then

    def train(self) -> None:
        """Stage 1 imitation, stage 2 CO-RFT."""
        if all((folder / "config.json").exists() for folder in self.checkpoints.values()):
            return
        if (self.run / "config.json").exists():
            self.foreground(["ros2", "run", "corft", "trainer", "--resume", str(self.run)])
        else:
            self.foreground(["ros2", "run", "corft", "trainer", str(self.dataset), str(self.run),
                             "--backbone", self.arguments.backbone, "--set", f"seed={self.arguments.seed}",
                             *(word for pair in self.arguments.set for word in ("--set", pair))])

    def demonstrations(self) -> tuple[list[float], list[tuple[float, float]]]:
        """Length [s] and target position of every demonstration."""
        from corft_core.cell import make_scene
        from corft_core.data import EpisodeDataset

        dataset = EpisodeDataset.open(self.dataset)
        lengths = np.bincount(dataset.episode_index) / dataset.fps
        targets = []
        for scene_id in dataset.scene_ids:
            scene = make_scene(scene_id)
            x, y = scene.target_xy_m
            targets.append((float(x), float(y)))
        return [float(length) for length in lengths], targets

    def evaluate_in_cell(self, limit_s: float) -> dict[str, dict[str, list[Any]]]:
        """Both checkpoints on the same held-out scenes, in distribution and unseen, without ROS."""
        from tqdm import tqdm

        from corft_core.evaluation.results import EpisodeResult, scene_ids, to_json
        from corft_core.evaluation.rollout import evaluate

        path = self.out / "trials.json"
        if not path.exists():
            scenes = [*scene_ids("ind", self.arguments.scenes), *scene_ids("ood", self.arguments.scenes)]
            with tqdm(total=len(scenes) * len(POLICIES), desc="trials in the cell", unit="trial") as bar:
                rows = evaluate(self.checkpoints, scenes, 1.5 * limit_s, progress=bar.update)
            files.write_json(path, to_json(rows))
        rows = {name: [EpisodeResult(**{**row, "target_xy_m": tuple(row["target_xy_m"])}) for row in found]
                for name, found in json.loads(path.read_text()).items()}
        return {split: {name: [row for row in rows[name] if row.scene_id.startswith(split)] for name in POLICIES}
                for split in ("ind", "ood")}

    def evaluate_live(self, limit_s: float) -> dict[str, list[Any]]:
        """The same policies through the graph: camera_node, policy_node, executor_node and the cell over DDS."""
        from corft_core.evaluation.results import read_results

        results = {}
        for name, checkpoint in self.checkpoints.items():
            path = self.out / f"live_{name}.jsonl"
            if not path.exists():
                self._drive(name, checkpoint, path, limit_s)
            results[name] = read_results(path)
        return results

    def _drive(self, name: str, checkpoint: Path, path: Path, limit_s: float) -> None:
        logs = self.out / "logs"
        cell = ["ros2", "launch", "-n", "corft", "cell.launch.py", f"real_time_factor:={LIVE_REAL_TIME_FACTOR}"]
        bringup = ["ros2", "launch", "-n", "corft", "bringup.launch.py", f"checkpoint:={checkpoint}",
                   "use_sim_time:=true"]
        partial = path.with_suffix(".part")
        partial.unlink(missing_ok=True)
        with running(cell, logs / f"live_{name}_cell.log") as simulation, \
                running(bringup, logs / f"live_{name}_bringup.log") as graph:
            self.note(simulation.command)
            self.note(graph.command)
            self.child(["ros2", "run", "corft", "evaluate_live", "--scenes", f"ind:{self.arguments.live_scenes}",
                        "--timeout", f"{1.5 * limit_s:.1f}", "--out", str(partial)],
                       f"live_{name}", show="scene ").wait(900)
        os.replace(partial, path)

    def videos(self, horizon_s: float) -> dict[str, str]:
        """Both policies side by side on the first scenes of both splits, as data URIs; the very first as a file, too,
        which `make publish` keeps."""
        from corft_core.evaluation.video import policy_videos, save_webp, to_data_uri

        titles = {"ind": "In distribution", "ood": "Unseen position"}
        scenes = {f"{title}, scene {index}": f"{split}/{index}"
                  for split, title in titles.items() for index in range(VIDEO_SCENES)}
        videos, fps = policy_videos(self.checkpoints, scenes, horizon_s)
        save_webp(next(iter(videos.values())), fps, self.out / "policies.webp")
        return {title: to_data_uri(frames, fps) for title, frames in videos.items()}

    def report(self, limit_s: float, times: list[float], targets: list[tuple[float, float]],
               results: dict[str, dict[str, list[Any]]], videos: dict[str, str]) -> dict[str, Any]:
        """summary.json and report.html."""
        from corft_core.evaluation.report import ReportData, write_report
        from corft_core.evaluation.results import compare, summarise, to_json

        comparisons = {split: compare(rows["sft"], rows["co_rft"], limit_s) for split, rows in results.items()}
        summary = {
            "seconds": round(sum(self.progress.seconds.values()), 1), "peak_rss_mb": self.progress.peak_mb,
            "demos": len(times), "limit_s": round(limit_s, 3), "seed": self.arguments.seed,
            "step_seconds": self.progress.seconds,
            **{name: {split: summarise(rows[name], limit_s) for split, rows in results.items()} for name in POLICIES},
            "comparison": {split: to_json(value) for split, value in comparisons.items()},
            "command": " ".join(["ros2 run corft demo", *sys.argv[1:]]),
            "commit": _commit(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "versions": {name: version(name) for name in ("torch", "mujoco", "numpy", "transformers")},
        }
        values = json.loads((self.run / "q_vs_return.json").read_text())
        metrics = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        write_report(self.out / "report.html", ReportData(
            summary=summary, results=results, comparisons=comparisons, limit_s=limit_s, demo_times_s=times,
            demo_targets_m=targets, metrics=metrics, q_values=[row[-1] for row in values["q"]],
            returns=values["mc_return"],
            videos=videos, data_report=_data_rows(self.dataset / "meta" / "corft" / "report.json"),
            commands=self.commands))
        files.write_json(self.out / "summary.json", summary)
        return summary

    def __call__(self) -> None:
        """Run every step and print the table."""
        from corft_core.evaluation.report import text_table

        with MemoryWatch() as memory:
            for title, step in (("Recording demonstrations", self.record), ("Converting the bag", self.convert),
                                ("Training", self.train)):
                announce(title)
                with self.progress.step(step.__name__, memory):
                    step()
            times, targets = self.demonstrations()
            limit_s = float(np.mean(times))
            announce(f"Evaluating; time limit {limit_s:.1f} s, the mean length of the demonstrations")
            with self.progress.step("evaluate", memory):
                results: dict[str, dict[str, list[Any]]] = self.evaluate_in_cell(limit_s)
            announce("Driving the cell through the ROS 2 graph")
            with self.progress.step("live", memory):
                results["live"] = self.evaluate_live(limit_s)
            announce("Rendering videos and writing the report")
            with self.progress.step("report", memory):
                videos = self.videos(1.5 * limit_s)
        summary = self.report(limit_s, times, targets, results, videos)
        print(f"\n{text_table(summary)}\n")
        print(f"{self.arguments.out}/report.html   {self.arguments.out}/summary.json   "
              f"{summary['seconds'] / 60:.1f} min, {summary['peak_rss_mb']} MB")


def _data_rows(path: Path) -> dict[str, Any]:
    """The converter's report as the page shows it."""
    report = json.loads(path.read_text())
    topics = [{"topic": stream["topic"], "messages": stream["messages"],
               "rate": f"{stream['rate_hz']:.1f} Hz" if "rate_hz" in stream else "–",
               "gap": f"{stream['largest_gap_s']:.2f} s" if "largest_gap_s" in stream else "–",
               "dropped": stream.get("dropped", "–")} for stream in report["streams"].values()]
    text = (f"{report['episodes_kept']} of {report['episodes_seen']} recorded episodes kept, {report['steps']} steps, "
            f"{100 * report['idle_share_trimmed']:.1f} % of steps trimmed as leading idle time. Gaps between commands "
            "are the operator's breaks between episodes.")
    return {"topics": topics, "text": text}


def _commit() -> str:
    """Commit of the checkout this runs from, or "unknown"."""
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Record demonstrations in the simulated cell, fine-tune a policy on them and "
        "evaluate it. About 15 minutes on 2 cores.", formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  make demo\n  ros2 run corft demo --out out/demo --continue\n"
        "  ros2 run corft demo --out out/small --episodes 10 --scenes 10")
    parser.add_argument("--out", default="out/demo",
                        help="folder for everything the demo writes (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=DEMONSTRATIONS, help="demonstrations (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=SCENES_IN_CELL,
                        help="held-out scenes a split in the cell (default: %(default)s)")
    parser.add_argument("--live-scenes", type=int, default=SCENES_LIVE,
                        help="held-out scenes driven through the ROS 2 graph (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="training option, passed to the trainer; may be repeated")
    parser.add_argument("--backbone", default="effnet", help="effnet, tiny or hf:<folder> (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of operator and training (default: %(default)s)")
    parser.add_argument("--continue", dest="resume", action="store_true",
                        help="reuse what earlier runs finished in --out")
    parser.add_argument("--domain-id", default=DOMAIN_ID,
                        help="ROS_DOMAIN_ID, apart from any real robot's (default: %(default)s)")
    return parser.parse_args(argv)


def main() -> int:
    """Console entry point."""
    arguments = parse()
    # The demo must never be heard by a robot: a domain of its own, on this machine only.
    os.environ["ROS_DOMAIN_ID"] = arguments.domain_id
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

    def body() -> None:
        demo = Demo(arguments)
        if not arguments.resume:
            shutil.rmtree(demo.out, ignore_errors=True)
        demo()

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
