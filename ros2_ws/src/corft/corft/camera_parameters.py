"""camera_node's parameters. Light to import: launch files read them too."""

from __future__ import annotations

from corft.node_parameters import CONTRACT, Param

CAMERA_PARAMETERS = (
    CONTRACT,
    Param("cameras", "", "Names of the contract's cameras to serve, comma-separated; empty: all of them."),
    Param("expected_rate_hz", 0.0, "Frame rate that losses are counted against; 0: median of what is seen.",
          range=(0.0, 1000.0)),
)
