"""The robot contract: one YAML file that says what a robot's topics mean.

Recording, conversion, training and control all read the same contract; it is embedded in every data set and
checkpoint, and :meth:`Contract.differences` compares two of them. ``docs/contract.md`` explains every key.
"""

from __future__ import annotations

from corft_core.contract.calibration import Calibration
from corft_core.contract.robot_contract import Contract, load_features
from corft_core.contract.schema import (
    IMAGE_TYPES,
    CameraStream,
    Gripper,
    JointSource,
    Limits,
    ObservationStream,
    Robot,
    Stream,
    Workspace,
)

__all__ = ["IMAGE_TYPES", "Calibration", "CameraStream", "Contract", "Gripper", "JointSource", "Limits",
           "ObservationStream", "Robot", "Stream", "Workspace", "load_features"]
