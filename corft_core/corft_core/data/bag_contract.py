"""The contract that a recording was made with, kept beside it by ``ros2 run corft record``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corft_core import files
from corft_core.contract import Contract
from corft_core.data.bag import BagError

NAME = "contract.json"


def keep_contract(bag: Path, contract: Contract) -> None:
    """Put ``contract`` into the bag's folder."""
    files.write_json(bag / NAME, contract.to_dict())


def recorded_contract(bags: Sequence[Path]) -> Contract | None:
    """The contract that ``bags`` were recorded with; None when none of them tells.

    Raises BagError when they were recorded with different ones, and ContractError when one cannot be used.
    """
    found: dict[Path, Contract] = {}
    for bag in bags:
        file = (bag if bag.is_dir() else bag.parent) / NAME
        if file.is_file():
            found[bag] = Contract.load(file)
    first = next(iter(found), None)
    for bag, contract in found.items():
        if first is not None and contract.to_dict() != found[first].to_dict():
            raise BagError(f"{first} and {bag} were recorded with different contracts. Say which one counts for all: "
                           f"--contract FILE, such as {bag if bag.is_dir() else bag.parent}/{NAME}; or convert them "
                           "one by one")
    return None if first is None else found[first]
