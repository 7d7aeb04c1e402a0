"""What a task of the cell is: objects, scenes, the judgement of success, and the operator's script."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from corft_core.cell.habits import Habits
from corft_core.cell.scene import Scene

if TYPE_CHECKING:
    from corft_core.cell.simulation import Cell
    from corft_core.cell.teleoperator import ImperfectOperator


class Task(ABC):
    """A task. Objects hold no state: the same one serves every cell and operator."""

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    bodies: ClassVar[tuple[str, ...]]
    """Bodies that ``Cell.objects()`` reports."""
    clear_m: ClassVar[float] = 0.115
    """Height of the tool above which the hand moves freely over the objects."""
    hold_s: ClassVar[float] = 0.0
    """How long :meth:`achieved` must stay true until the trial is a success."""
    habits: ClassVar[Habits] = Habits()
    """The operator's faults in this task's demonstrations."""
    faulty_habits: ClassVar[Habits] = Habits(miss=0.2, give_up=0.5)
    """Faults of demonstrations that include failures: about half of them fail."""
    time_limit_s: ClassVar[float] = 40.0
    """A demonstration that takes longer is a failure."""

    @abstractmethod
    def add_objects(self, spec: Any) -> None:
        """Add the task's bodies to the cell's ``MjSpec``; those of a scene's ``places`` have a free joint of their
        name and the height of their origin at rest."""

    @abstractmethod
    def make_scene(self, split: str, number: int) -> Scene:
        """The scene of a split and a number, by these alone."""

    @abstractmethod
    def achieved(self, cell: Cell) -> bool:
        """Whether the cell's present state is the task's goal."""

    @abstractmethod
    def work(self, hand: ImperfectOperator, scene: Scene) -> Iterator[None]:
        """The operator's script: a generator of the hand's motions, one ``yield`` a step."""
