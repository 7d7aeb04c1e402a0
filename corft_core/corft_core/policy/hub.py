"""Exported policies on the hub."""

from __future__ import annotations

from pathlib import Path

from corft_core.policy.checkpoint import CheckpointError


def policy_folder(name: Path | str, revision: str | None = None) -> Path:
    """The folder `name`, or where the policy of this hub id lies after downloading it.

    A folder never causes a request to the network. Raises CheckpointError saying why an id could not be fetched.
    """
    folder = Path(name).expanduser()
    text = str(name)
    if folder.exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{text} is no folder here, and cannot be fetched from the hub: {reason} Check its spelling, accept its "
            f"licence and `hf auth login` where it is gated, or `hf download {text} --local-dir FOLDER` elsewhere."
        ) from error
