"""A demonstration in the running cell, recorded with `ros2 bag record`, becomes a data set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph import CONTRACT, PATIENCE_S, ROOT, running

from corft.bag_to_dataset import main
from corft_core.cell import make_scene
from corft_core.data import EpisodeDataset

pytestmark = pytest.mark.ros
TOPICS = ("/clock", "/joint_states", "/front_camera/image_raw", "/wrist_camera/image_raw",
          "/arm_controller/joint_trajectory", "/gripper_controller/commands", "/episode_event")


def record(bag: Path) -> subprocess.Popen[bytes]:
    """`ros2 bag record` of this machine: the installation's, or tools/ros2_standalone from its sources."""
    installed = bool(os.environ.get("ROS_DISTRO")) and os.environ.get("CORFT_STANDALONE") != "1"
    command = ["ros2"] if installed else [sys.executable, "-m", "ros2_standalone"]
    path = os.pathsep.join([str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([*command, "bag", "record", "-s", "mcap", "--use-sim-time", "-o", str(bag),
                             "--topics", *TOPICS], env={**os.environ, "PYTHONPATH": path})


def test_a_recorded_demonstration_becomes_an_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = record(tmp_path / "bag")
    try:
        with running("cell_node", {"real_time_factor": 3.0, "contract": CONTRACT}), \
             running("teleop_node", {"episodes": 1, "wait_for_recorder": True, "use_sim_time": True,
                                     "contract": CONTRACT}) as operator:
            assert operator.wait(2 * PATIENCE_S) == 0
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(PATIENCE_S)

    code = main([str(tmp_path / "bag"), str(tmp_path / "out"), "--contract", str(CONTRACT), "--quiet"])
    assert code == 0, capsys.readouterr()
    dataset = EpisodeDataset.open(tmp_path / "out")
    assert dataset.num_episodes == 1 and dataset.episode_success.all()
    assert dataset.instructions == [make_scene(dataset.scene_ids[0]).instruction]
    ticks = dataset.column("source.tick_ns")
    assert np.all(np.diff(ticks) == dataset.contract.step_ns)
    for stream in ("joint_state", "front", "wrist"):
        assert np.all(dataset.column(f"source.{stream}.stamp_ns") <= ticks)
    # The command of a tick is where the arm is one step later, but for its lag.
    assert np.abs(dataset.action[:-1, :7] - dataset.state[1:, :7]).max() < 0.1
    assert dataset.action[0, 7] > 0.9 > 0.1 > dataset.action[:, 7].min()  # it opens, and closes on the cube
    frames = dataset.images()
    assert all(np.ptp(images[0]) > 50 and not np.array_equal(images[0], images[-1]) for images in frames.values())
