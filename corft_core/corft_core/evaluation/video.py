"""Short videos for the report: the policies side by side on the same scene."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corft_core import files

if TYPE_CHECKING:
    from corft_core.cell.suite import CellEnvironment

Image = NDArray[np.uint8]
VIDEO_SIZE = (240, 320)


def enlarge(image: Image, height: int) -> Image:
    """Resize (H, W, 3) to ``height`` rows, keeping the aspect ratio; even sizes, as video needs."""
    from PIL import Image as pillow

    width = round(image.shape[1] * height / image.shape[0] / 2) * 2
    return np.asarray(pillow.fromarray(image).resize((width, height), pillow.Resampling.LANCZOS))


def side_by_side(columns: Mapping[str, Sequence[Image]], height: int = 256) -> list[Image]:
    """Frames with one labelled column a policy; a policy that finished early keeps its last frame."""
    from PIL import Image as pillow
    from PIL import ImageDraw, ImageFont

    length = max(len(frames) for frames in columns.values())
    font = ImageFont.load_default(size=max(12, height // 14))
    frames = []
    for step in range(length):
        parts = []
        for label, column in columns.items():
            picture = pillow.fromarray(enlarge(column[min(step, len(column) - 1)], height))
            draw = ImageDraw.Draw(picture)
            text = label if step < len(column) else f"{label}: ended"
            draw.text((8, 6), text, fill="white", font=font, stroke_width=2, stroke_fill="black")
            parts.append(np.asarray(picture))
        frames.append(np.concatenate(parts, axis=1))
    return frames


def policy_videos(checkpoints: Mapping[str, Path], scenes: Mapping[str, str],
                  horizon_s: float) -> tuple[dict[str, list[Image]], int]:
    """A video a scene with one column a checkpoint, by the title that ``scenes`` maps to a scene id; and their frames a
    second, which show them twice as fast as they were."""
    from corft_core.cell.suite import CellEnvironment
    from corft_core.evaluation.plots import LABELS
    from corft_core.evaluation.rollout import run_trials
    from corft_core.policy import Policy

    recorded: dict[str, dict[str, list[Image]]] = {title: {} for title in scenes}
    rate_hz = 10
    for name, folder in checkpoints.items():
        policy = Policy.load(folder)
        rate_hz = policy.rate_hz
        environment = CellEnvironment(policy.contract)
        for title, scene_id in scenes.items():
            frames: list[Image] = []

            def keep(environment: CellEnvironment, frames: list[Image] = frames) -> None:
                frames.append(environment.cell.render("overview", VIDEO_SIZE))

            for result in run_trials(policy, [environment], [scene_id], round(horizon_s * rate_hz), on_step=keep):
                outcome = f"success after {result.time_s:.1f} s" if result.success else "not in time"
                recorded[title][f"{LABELS.get(name, name)}, {outcome}"] = frames
        environment.close()
    return {title: side_by_side(columns) for title, columns in recorded.items()}, 2 * rate_hz


def to_data_uri(frames: Sequence[Image], fps: int) -> str:
    """Frames (H, W, 3) as an H.264 MP4 that an HTML page can hold."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "26", "preset": "veryfast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        out.mux(stream.encode())
    return "data:video/mp4;base64," + base64.b64encode(buffer.getvalue()).decode()


def save_webp(frames: Sequence[Image], fps: int, path: Path) -> None:
    """Frames (H, W, 3) as an animated WebP, which Markdown pages show like any picture; written atomically."""
    from PIL import Image as pillow

    buffer = io.BytesIO()
    first, *others = (pillow.fromarray(frame) for frame in frames)
    # The last frame stays for two seconds, so that the outcome can be read.
    durations = [1000 // fps] * len(others) + [2000]
    first.save(buffer, "webp", save_all=True, append_images=others, duration=durations, loop=0, quality=60, method=4)
    files.write_bytes(path, buffer.getvalue())
