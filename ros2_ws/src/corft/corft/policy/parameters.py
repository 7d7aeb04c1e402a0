"""policy_node's parameters. Light to import: launch files read them too."""

from __future__ import annotations

from corft.executor.parameters import SHARED_OPTIONS
from corft.node_parameters import Param
from corft_core.devices import DEVICE_HELP

POLICY_PARAMETERS = (
    Param("checkpoint", "", "Checkpoint folder written by the trainer; horizon, rates and joints come from it."),
    Param("server", "", "Policy server that runs the checkpoint instead of this node, tcp://host:port."),
    Param("server_key", "", "The server's public key file, if it was started with --key."),
    Param("server_timeout_s", 1.0, "Wall seconds to wait for a chunk from the server; then the newest is asked for.",
          (0.05, 5.0)),
    Param("server_patience_s", 5.0, "Wall seconds without any chunk from the server until a goal is aborted.",
          (0.1, 3600.0)),
    Param("server_images", "raw", "Images on their way to the server; jpeg takes a tenth of the bytes, not exact.",
          choices=("raw", "jpeg")),
    Param("contract", "", "The robot's contract, compared with the checkpoint's at start-up; empty: no check."),
    Param("replan_steps", 5, "Policy steps between two chunks; at most the checkpoint's horizon.", (1, 200)),
    *SHARED_OPTIONS,  # as executor_node's: rtc goes on from what the executor is committed to
    Param("device", "auto", f"{DEVICE_HELP}."),
    Param("torch_threads", 0, "Threads for inference; 0: half of the machine's cores.", (0, 256)),
    Param("seed", 0, "Seed of the policy's noise, set anew for every goal.", (0, 2**31 - 1)),
    Param("image_topic", "camera_node/{camera}/image", "Topic of a camera's prepared images."),
    Param("frozen_image_rad", 1.0, "A joint's motion [rad] without a changed pixel that aborts a goal; 0: never.",
          (0.0, 10.0)),
    Param("stall_timeout", 10.0, "Wall seconds without any progress of ROS time until a goal is aborted.",
          (0.1, 3600.0)),
)
