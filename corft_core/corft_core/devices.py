"""The torch device that a word like `auto` means."""

from __future__ import annotations

from corft_core.errors import CorftError

DEVICE_HELP = "torch device: auto (a GPU where torch can use one), cpu, cuda, cuda:0 …"


def usable_device(name: str) -> str:
    """`cuda` or `cpu` for `auto`, else `name`. Raises CorftError when torch cannot use it here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CorftError(f"device {name!r} cannot be used here ({reason}); choose auto or cpu.") from error
    return name
