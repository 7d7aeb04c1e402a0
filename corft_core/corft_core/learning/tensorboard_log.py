"""RUN/tensorboard: the rows of metrics.jsonl as TensorBoard scalars, derived from it at any time.

tensorboardX writes them: 90 kB beside protobuf, where torch's own writer wants the whole tensorboard package.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from corft_core.errors import CorftError


def require_tensorboard() -> Any:
    """tensorboardX's writer class; raises CorftError where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise CorftError(f"TensorBoard logs need tensorboardX ({error}): pip install tensorboardX, or train with "
                         "--set tensorboard=false.") from error
    return SummaryWriter


class TensorBoardLog:
    """Scalars STAGE/KEY over the stage's step."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Write `rows` of metrics.jsonl anew, so that what a resumed run repeats does not appear twice."""
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = require_tensorboard()(str(folder))
        for row in rows:
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """One row of metrics.jsonl."""
        for key, value in row.items():
            if key not in ("stage", "step") and value is not None:
                self.writer.add_scalar(f"{row['stage']}/{key}", value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()
