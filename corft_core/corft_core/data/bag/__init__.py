"""Reads rosbag2 recordings, whole or damaged: ``with Bag(path) as bag: for item in bag.messages(topics): …``."""

from corft_core.data.bag.decoding import BagMessage
from corft_core.data.bag.reader import Bag
from corft_core.data.bag.storage import BagError

__all__ = ["Bag", "BagError", "BagMessage"]
