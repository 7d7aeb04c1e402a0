"""Five tasks of Meta-World v3 seen through states, with an imperfect operator. Importing it needs no Meta-World."""

from corft_core.benchmarks.metaworld.scenes import TASKS
from corft_core.benchmarks.metaworld.suite import MetaWorldSuite

__all__ = ["TASKS", "MetaWorldSuite"]
