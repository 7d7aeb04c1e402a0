"""Pictures of the cell for documents: what the cameras see during an episode, and the cell from outside."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corft_core.cell.habits import STEADY
from corft_core.cell.scene import make_scene
from corft_core.cell.simulation import Cell
from corft_core.cell.teleoperator import ImperfectOperator
from corft_core.data.episode import Episode
from corft_core.files import write_bytes

Picture = NDArray[np.uint8]

def contact_sheet(episode: Episode, columns: int = 8) -> Picture:
    """An episode's images at equal intervals, one row a camera: uint8 (cameras·H, columns·W, 3)."""
    ticks = np.linspace(0, len(episode) - 1, columns).round().astype(int)
    return np.vstack([np.hstack(list(frames[ticks])) for frames in episode.images.values()])


def cell_picture(scene_id: str = "demo/2", steps: int = 22, size: tuple[int, int] = (720, 960)) -> Picture:
    """The cell from outside, ``steps`` steps of 0.1 s into an episode of a steady operator."""
    cell, operator, scene = Cell(), ImperfectOperator(0, habits=STEADY), make_scene(scene_id)
    try:
        cell.reset(scene)
        for _ in range(steps):
            path, gripper_m = operator.command(cell.time_s, cell.joint_positions, cell.finger_position_m,
                                               cell.objects(), scene)
            cell.command_trajectory(path)
            cell.command_gripper(gripper_m)
            cell.step(0.1)
        # Rendered at twice the size and averaged: the renderer itself has no anti-aliasing.
        large = Image.fromarray(cell.render("overview", (2 * size[0], 2 * size[1]), shadows=True))
        return np.asarray(large.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    finally:
        cell.close()


def save_png(picture: Picture, path: Path | str) -> None:
    """Write a picture as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    write_bytes(path, buffer.getvalue())
