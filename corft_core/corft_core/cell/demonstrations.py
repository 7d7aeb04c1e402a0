"""Demonstrations made in the process itself, without ROS: the same operator and cell, on the contract's time grid."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np

from corft_core.cell.grip import cell_gripper
from corft_core.cell.kinematics import ArmKinematics
from corft_core.cell.scene import make_scene
from corft_core.cell.simulation import Cell
from corft_core.cell.teleoperator import Habits, ImperfectOperator
from corft_core.contract import Contract
from corft_core.data.episode import Episode


def demonstrate(contract: Contract, scene_ids: Iterable[str], seed: int = 0, *, habits: Habits | None = None,
                time_limit_s: float | None = None) -> Generator[Episode, None, None]:
    """Yield an episode a scene, failures included (``success`` tells); an equal seed gives equal episodes.

    At tick t the operator sees the cell and commands; that command, reached at t + one step, is the tick's action.
    The episode ends with the tick whose command led to success, or at ``time_limit_s``. Habits and limit are the
    task's unless given.
    """
    sizes = {camera.size for camera in contract.cameras}
    kinematics = ArmKinematics(contract.robot.home_rad)
    cell: Cell | None = None
    try:
        for number, scene_id in enumerate(scene_ids):
            task = make_scene(scene_id).task
            if cell is None or cell.task.name != task:
                if cell is not None:
                    cell.close()
                cell = Cell(image_size=next(iter(sizes)), home_rad=contract.robot.home_rad, task=task)
            operator = ImperfectOperator(seed * 1_000_003 + number, rate_hz=contract.rate_hz,
                                         habits=habits or cell.task.habits, kinematics=kinematics)
            yield record_episode(contract, cell, operator, scene_id, time_limit_s or cell.task.time_limit_s)
    finally:
        if cell is not None:
            cell.close()


def record_episode(contract: Contract, cell: Cell, operator: ImperfectOperator, scene_id: str,
                   time_limit_s: float) -> Episode:
    """Reset ``cell`` to a scene, let ``operator`` do it, and return what the contract records of it."""
    scene, gripper = make_scene(scene_id), cell_gripper(contract)
    cell.reset(scene)
    step_s = 1.0 / contract.rate_hz
    images: dict[str, list[np.ndarray]] = {camera.name: [] for camera in contract.cameras}
    states: list[list[float]] = []
    actions: list[list[float]] = []
    while not (cell.success or operator.done) and len(states) < time_limit_s * contract.rate_hz:
        for camera in contract.cameras:
            images[camera.name].append(cell.render(camera.name, camera.size))
        joints, finger = cell.joint_positions, cell.finger_position_m
        states.append([*joints, gripper.to_opening(finger)])
        path, gripper_m = operator.command(cell.time_s, joints, finger, cell.objects(), scene)
        cell.command_trajectory(path)
        cell.command_gripper(gripper_m)
        actions.append([*path.positions[-1], gripper.to_opening(gripper_m)])
        cell.step(step_s)
    return Episode(images={name: np.stack(frames) for name, frames in images.items()},
                   state=np.asarray(states, np.float32), action=np.asarray(actions, np.float32),
                   instruction=scene.instruction, success=cell.success, scene_id=scene_id,
                   origin={"operator_speed": operator.speed})
