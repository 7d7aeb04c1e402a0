"""planning: collision check of a path by sweeping and sample by sample, and planned moves, embedded planner, Panda.

A chunk of 60 points with its tail near the cell's table and bin (6 boxes), motions from home to a grasp and just above
it, and random paths; both checks on the same paths in one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.contract import Contract
from corft_core.planning import load_scene, pose_matrix
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.interface import COLLISION_STEP_RAD, Array, densify
from corft_core.planning.moves import home, plan_between

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
DIRECTION = np.array([1.0, 0.3, -0.5, 0.4, 0.6, 0.5, -1.0])
RANDOM_PATHS, REPEATS = 100, 30


def measure() -> dict[str, Any]:
    """Processor times in ms (median); ``mismatches`` counts random paths on which the checks differ."""
    contract = Contract.load(CELL / "contract.yaml")
    planner = EmbeddedPlanner(contract, scene=load_scene(CELL / "scene.yaml", contract.robot.base_frame))
    rest = np.array(contract.robot.home_rad)
    grasp = planner.inverse_kinematics(pose_matrix([0.5, 0.0, 0.03], [np.pi, 0.0, 0.0]), rest)
    assert grasp is not None
    shares = np.linspace(0.0, 1.0, 60)[:, None]
    paths = {"chunk": rest + 0.3 * (1 - np.cos(1.5 * shares)) * DIRECTION, "reach": rest + shares * (grasp - rest),
             "near_table": grasp + 0.15 * shares * (rest - grasp)}

    def every_sample(path: Array) -> int | None:
        samples, segments = densify(path, COLLISION_STEP_RAD)
        return next((int(segments[k]) for k, q in enumerate(samples) if planner._arm.collides(q)), None)

    result: dict[str, Any] = {}
    for name, path in paths.items():
        sweep_ms, brute_ms = _ms(lambda p=path: planner.first_collision(p)), _ms(lambda p=path: every_sample(p))
        result |= {f"{name}_sweep_ms": sweep_ms, f"{name}_every_sample_ms": brute_ms,
                   f"{name}_ratio": brute_ms / sweep_ms}
    random = np.random.default_rng(0)
    low, high = planner.position_limits
    mismatches = hits = 0
    for _ in range(RANDOM_PATHS):
        path = np.clip(rest + np.cumsum(np.vstack([np.zeros(7), random.normal(0, 0.15, (12, 7))]), axis=0), low, high)
        found, expected = planner.first_collision(path), every_sample(path)
        mismatches, hits = mismatches + (found != expected), hits + (expected is not None)
    aside = rest + np.array([0.9, 0, 0, 0, 0, 0, 0])
    result |= {"random_paths": RANDOM_PATHS, "random_hits": hits, "mismatches": mismatches,
               "home_ms": _ms(lambda: home(planner, contract, aside), 10),
               "plan_between_moving_ms": _ms(lambda: plan_between(planner, aside, rest, np.full(7, 0.2)), 10),
               "set_scene_ms": _ms(lambda: planner.set_scene(planner.scene), 10)}
    return result


def _ms(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    took = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        took.append((time.process_time() - begin) * 1e3)
    return float(np.median(took))
