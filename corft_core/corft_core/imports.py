"""Whether a package can be imported, asked of another process: one built for another NumPy may crash its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

PROBE_S = 60.0


def import_trouble(statements: str) -> str:
    """Why Python ``statements`` (imports) fail in a process of their own, in words; empty when they succeed."""
    try:
        probe = subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, timeout=PROBE_S,
                               check=False)
    except subprocess.TimeoutExpired:
        return f"cannot be loaded with NumPy {np.__version__}: importing it took more than {PROBE_S:g} s"
    if probe.returncode == 0:
        return ""
    why = (probe.stderr.strip().splitlines() or [f"its process ended with status {probe.returncode}"])[-1]
    return f"cannot be loaded with NumPy {np.__version__}: {why}"
