"""Console script ``policy_server``: a checkpoint for robots without a GPU. The work is in ``corft_core.serving``."""

from __future__ import annotations

import sys

from corft_core.serving.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
