"""Bags, episodes and LeRobot v3 data sets."""

from __future__ import annotations

from corft_core.data.align import AlignedObservation, Aligner
from corft_core.data.episode import Episode
from corft_core.data.images import camera_image, decode_image, prepare_image
from corft_core.data.lerobot_reader import EpisodeDataset
from corft_core.data.messages import joint_vector
from corft_core.data.store import write_dataset

__all__ = ["AlignedObservation", "Aligner", "Episode", "EpisodeDataset", "camera_image", "decode_image", "joint_vector",
           "prepare_image", "write_dataset"]
