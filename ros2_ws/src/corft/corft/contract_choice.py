"""The contract of programs that are started without one: the Panda cell's, and never silently."""

from __future__ import annotations

import sys
from pathlib import Path

HINT = "\nThe contract was the Panda cell's. Give your robot's: --contract FILE"


def panda_contract_path() -> Path:
    """The Panda cell's contract as installed with the package."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("corft")) / "config" / "panda_cell" / "contract.yaml"


def chosen_contract_path(given: str | None, reason: str = "no --contract is given") -> tuple[Path, str]:
    """The contract's file, and what to add to an error when nobody chose it; says on stderr when that is so."""
    if given:
        return Path(given).expanduser(), ""
    print(f"contract: the Panda cell's, as {reason}", file=sys.stderr)
    return panda_contract_path(), HINT
