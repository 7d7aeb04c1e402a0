"""Frames of a data set as memory maps, decoded once.

They lie in ``.corft_cache`` beside the data set, named after its content: a changed data set is decoded again, outdated
frames are removed, and an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corft_core.data import lerobot_format as fmt
from corft_core.data.lerobot_meta import DatasetError
from corft_core.files import FULL_DISK, atomic_folder

if TYPE_CHECKING:
    from corft_core.data.lerobot_reader import EpisodeDataset

logger = logging.getLogger(__name__)


def decoded_frames(dataset: EpisodeDataset, cache: str | Path | None = None) -> dict[str, NDArray[np.uint8]]:
    """Camera → read-only memory map uint8 (N, H, W, 3); ``cache`` is used instead of the folder beside the data set.

    Decoded on first use, one thread a camera. Raises VideoError, or DatasetError when the disk is full.
    """
    parent = Path(cache) if cache is not None else dataset.folder.resolve().parent / ".corft_cache"
    name = f"{dataset.folder.resolve().name}-"
    target = parent / (name + _content_key(dataset))
    if not target.exists():
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _decode(dataset, target)
        except PermissionError as error:
            if cache is not None:
                raise
            fallback = Path(tempfile.gettempdir()) / "corft_cache"
            logger.warning("%s is not writable (%s), frames are cached in %s", parent, error, fallback)
            return decoded_frames(dataset, fallback)
        for old in parent.glob(f"{name}{'?' * 16}"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return {camera.name: np.load(target / f"{camera.name}.npy", mmap_mode="r", allow_pickle=False)
            for camera in dataset.contract.cameras}


def _decode(dataset: EpisodeDataset, target: Path) -> None:
    cameras = dataset.contract.cameras
    try:
        with atomic_folder(target) as temporary, ThreadPoolExecutor(max(1, len(cameras))) as pool:
            for job in [pool.submit(_decode_camera, dataset, c.name, temporary) for c in cameras]:
                job.result()
    except OSError as error:
        if target.exists():  # another process decoded the same content first
            return
        if error.errno in FULL_DISK:
            shapes = [dataset.info["features"][fmt.image_key(c.name)]["shape"] for c in cameras]
            size_mb = sum(dataset.num_frames * int(np.prod(shape)) for shape in shapes) / 1e6
            raise DatasetError(f"no space left in {target.parent} for the decoded frames ({size_mb:.0f} MB). Free "
                               "some space, or move the data set to another disk.") from error
        raise


def _decode_camera(dataset: EpisodeDataset, camera: str, folder: Path) -> None:
    height, width, channels = dataset.info["features"][fmt.image_key(camera)]["shape"]
    shape = (dataset.num_frames, height, width, channels)
    with (folder / f"{camera}.npy").open("wb") as file:  # a memory map would die of SIGBUS on a full disk
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for frame in dataset.frames(camera):
            file.write(frame.tobytes())


def _content_key(dataset: EpisodeDataset) -> str:
    digest = hashlib.sha256((dataset.folder / fmt.INFO_PATH).read_bytes())
    for camera in dataset.contract.cameras:
        for path in dataset.video_files(camera.name):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        for episode in range(dataset.num_episodes):
            piece = dataset.video_slice(camera.name, episode)
            digest.update(f"{piece.path.name} {piece.first_frame} {piece.frames}".encode())
    return digest.hexdigest()[:16]
