"""Training samples by frame number: observations from cached backbone tokens or live images, chunks as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corft_core.data.chunks import ChunkTable
from corft_core.data.history import Spacing, past_rows
from corft_core.data.statistics import Statistics
from corft_core.policy.actor import Observation
from corft_core.policy.backbones import Backbone
from corft_core.policy.memory import Past

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Samples:
    """All frames' states, chunks and instructions on the training device."""

    state: Tensor
    """(N, S) normalised."""
    actions: Tensor
    """(N, H, A) normalised."""
    valid: Tensor
    """(N, H)."""
    imitation_actions: Tensor
    """(N, H, A) normalised chunks that imitation learns: `actions`, or those of a filter that skips pauses."""
    imitation_valid: Tensor
    """(N, H)."""
    keyframe: Tensor
    """(N, S without opening) motion of the state up to the next change of the gripper command, see `keyframes`."""
    text_index: Tensor
    """(N,) number of the frame's instruction."""
    instructions: tuple[str, ...]
    """Distinct instructions."""
    past: Past | None = None
    """Rows (N, k) that each frame's observation consists of; None without memory."""

    @classmethod
    def build(
        cls, dataset: Any, table: ChunkTable, statistics: Statistics, device: torch.device,
        imitation_action: np.ndarray | None = None, imitation_valid: np.ndarray | None = None,
        spacing: Spacing | None = None,
    ) -> Samples:
        """From a data set with .state, .instructions (per episode), its chunk table and chunks to imitate instead.

        spacing: of the rows that an observation consists of; None: of one.
        """
        state = np.asarray(dataset.state, np.float64)
        distinct = tuple(sorted(set(dataset.instructions)))
        by_episode = np.array([distinct.index(text) for text in dataset.instructions])
        actions = torch.from_numpy(statistics.encode_actions(table.action, state)).to(device)
        valid = torch.from_numpy(table.valid).to(device)
        imitated, imitated_valid = actions, valid
        if imitation_action is not None and imitation_action is not table.action:
            imitated = torch.from_numpy(statistics.encode_actions(imitation_action, state)).to(device)
            imitated_valid = torch.from_numpy(imitation_valid).to(device)
        return cls(
            state=torch.from_numpy(statistics.encode_state(state)).to(device),
            actions=actions,
            valid=valid,
            imitation_actions=imitated,
            imitation_valid=imitated_valid,
            keyframe=torch.from_numpy(keyframes(state, table, statistics)).to(device),
            text_index=torch.from_numpy(by_episode[table.episode]).to(device),
            instructions=distinct,
            past=_past(table.episode, spacing, device),
        )

    def __len__(self) -> int:
        return len(self.state)

    def look_back(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The frames that observations of `index` (B,) consist of: row numbers (B,) and None, or with memory (B, k)
        and which of them were seen (B, k)."""
        return (index, None) if self.past is None else (self.past.frame[index], self.past.seen[index])


def _past(episode: np.ndarray, spacing: Spacing | None, device: torch.device) -> Past | None:
    if spacing is None or spacing.steps == 1:
        return None
    rows, seen = past_rows(episode, spacing)
    return Past(torch.from_numpy(rows).to(device), torch.from_numpy(seen).to(device))


def keyframes(state: np.ndarray, table: ChunkTable, statistics: Statistics) -> np.ndarray:
    """State (without opening) when the gripper command changes next or the episode ends, minus the state now.

    In units of a relative chunk's last step where the value is one of its joints, else of the state's own deviation.
    Without a gripper the episode's end alone counts.
    """
    gripper = statistics.action_gripper
    closed = np.zeros(len(table), bool) if gripper is None else table.action[:, 0, gripper] < 0.5
    target = np.arange(len(table))
    for row in range(len(table) - 2, -1, -1):
        if table.episode[row] == table.episode[row + 1]:
            target[row] = row + 1 if closed[row] != closed[row + 1] else target[row + 1]
    scale = statistics.state_scale.copy()
    if statistics.representation == "relative":
        arm = statistics.action_scale.shape[1] - (gripper is not None)
        scale[:arm] = statistics.action_scale[-1, :arm]
    kept = np.arange(len(scale)) != statistics.state_gripper
    return ((state[target] - state) / scale)[:, kept].astype(np.float32)


class CachedFrames:
    """Observations from tokens computed once by a backbone that no longer changes; half precision in memory."""

    def __init__(self, samples: Samples, tokens: Tensor, text: Tensor, text_row: Tensor) -> None:
        self.samples, self.tokens, self.text, self.text_row = samples, tokens, text, text_row

    @classmethod
    @torch.no_grad()
    def compute(
        cls, backbone: Backbone, images: list[np.ndarray], samples: Samples, device: torch.device,
        progress: Progress = lambda n: None, batch: int = 32,
    ) -> CachedFrames:
        """Run the backbone over all frames; images: one (N, H, W, 3) array per camera."""
        backbone.eval()
        count = len(samples)
        tokens = torch.empty((count, len(images), *backbone.vision_shape), dtype=torch.float16)
        texts: list[Tensor] = []
        for rows in _pieces(count, batch):
            stacked = stack_images(images, rows).to(device)
            if backbone.separable:
                vision = backbone.encode_images(stacked)
            else:
                words = [samples.instructions[i] for i in samples.text_index[rows.to(device)].tolist()]
                vision, text = backbone.encode(stacked, words)
                texts.append(text)
            tokens[rows] = vision.to("cpu", torch.float16)
            progress(len(rows))
        if backbone.separable:
            return cls(samples, tokens.to(device), backbone.encode_text(list(samples.instructions)), samples.text_index)
        return cls(samples, tokens.to(device), torch.cat(texts), torch.arange(count, device=device))

    def observe(self, index: Tensor, train: bool = False) -> Observation:
        """Observations of these frames. Frames that several of them look back at are there once."""
        rows, seen = self.samples.look_back(index)
        past = None
        if seen is not None:
            rows, place = rows.unique(return_inverse=True)
            past = Past(place, seen)
        tokens = self.tokens.index_select(0, rows).float()  # copies whole rows, five times faster than [rows]
        return Observation(tokens, self.text[self.text_row[rows]], self.samples.state[rows], past)

    def input_sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of these frames and all instruction embeddings, to fit the encoder's input scaling."""
        return self.tokens[index], self.text


class LiveFrames:
    """Observations through a backbone that is being trained, with random image shifts."""

    def __init__(
        self, backbone: Backbone, images: list[np.ndarray], samples: Samples, device: torch.device, shift_px: int
    ) -> None:
        self.backbone, self.images, self.samples = backbone, images, samples
        self.device, self.shift_px = device, shift_px

    def observe(self, index: Tensor, train: bool = False) -> Observation:
        """Observations of these frames; `train` shifts the images, those of one observation alike, and keeps the
        graph."""
        rows, seen = self.samples.look_back(index)
        images = stack_images(self.images, rows.flatten().cpu()).to(self.device)
        if train and self.shift_px:
            images = random_shift(images, self.shift_px, 1 if seen is None else seen.shape[1])
        tokens, text = self._encode(images, rows.flatten())
        past = None if seen is None else Past(torch.arange(seen.numel(), device=self.device).view(seen.shape), seen)
        return Observation(tokens, text, self.samples.state[rows.flatten()], past)

    @torch.no_grad()
    def input_sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of these frames and their instructions' embeddings."""
        return self._encode(stack_images(self.images, index.cpu()).to(self.device), index)

    def _encode(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        words = [self.samples.instructions[i] for i in self.samples.text_index[rows].tolist()]
        return self.backbone.encode(images, words)


def stack_images(images: list[np.ndarray], rows: Tensor) -> Tensor:
    """Rows of every camera's (N, H, W, 3) array → uint8 (B, cameras, H, W, 3)."""
    picked = rows.numpy()
    if not images:
        return torch.zeros((len(picked), 0, 0, 0, 3), dtype=torch.uint8)
    return torch.from_numpy(np.stack([np.asarray(camera[picked]) for camera in images], 1))


def random_shift(images: Tensor, reach_px: int, together: int = 1) -> Tensor:
    """Shift every image by up to `reach_px` pixels in x and y, edge pixels repeated; (B, cams, H, W, 3).

    Each camera's images of `together` rows in a row are shifted alike: a camera that stands still does so in a history.
    """
    batch, cameras, height, width, _ = images.shape
    if together > 1:
        side_by_side = images.unflatten(0, (-1, together)).permute(0, 2, 3, 4, 5, 1)
        shifted = random_shift(side_by_side.flatten(4), reach_px).unflatten(4, (3, together))
        return shifted.permute(0, 5, 1, 2, 3, 4).flatten(0, 1)
    dy, dx = torch.randint(-reach_px, reach_px + 1, (2, batch * cameras, 1))
    rows = (torch.arange(height) + dy).clamp(0, height - 1).to(images.device)
    columns = (torch.arange(width) + dx).clamp(0, width - 1).to(images.device)
    flat = images.flatten(0, 1)
    each = torch.arange(len(flat), device=images.device)[:, None, None]
    return flat[each, rows[:, :, None], columns[:, None, :]].unflatten(0, (batch, cameras))


def _pieces(count: int, size: int) -> Iterator[Tensor]:
    return iter(torch.arange(count).split(size))
