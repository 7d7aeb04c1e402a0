"""The cell's gripper in a contract."""

from __future__ import annotations

from corft_core.contract import Contract, Gripper
from corft_core.errors import ContractError


def cell_gripper(contract: Contract) -> Gripper:
    """The contract's gripper, which the cell's robot has. Raises ContractError when the contract has none."""
    if contract.gripper is None:
        raise ContractError("the cell's robot has a gripper, the contract has none: add the keys gripper and "
                            "streams.gripper_command as in config/panda_cell/contract.yaml")
    return contract.gripper
