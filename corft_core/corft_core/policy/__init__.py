"""The vision-language-action policy: backbones, action expert, critic expert, checkpoints."""

from __future__ import annotations

from corft_core.policy.checkpoint import Bundle, CheckpointError, load_checkpoint, save_checkpoint
from corft_core.policy.policy import ChunkPrediction, Policy

__all__ = ["Bundle", "CheckpointError", "ChunkPrediction", "Policy", "load_checkpoint", "save_checkpoint"]
