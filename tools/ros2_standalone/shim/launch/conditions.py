"""Conditions that this project's launch files use."""

from __future__ import annotations

from ._core import (
    Condition,
    InvalidConditionExpressionError,
    LaunchContext,
    SomeSubstitutionsType,
    module_getattr,
    normalize,
    perform,
    truth,
)

__all__ = ["IfCondition", "InvalidConditionExpressionError", "UnlessCondition"]
__getattr__ = module_getattr(__name__)


class IfCondition(Condition):
    """Holds where the text evaluates to 'true' or '1'."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        self.predicate = normalize(predicate_expression)

    def evaluate(self, context: LaunchContext) -> bool:
        return truth(perform(context, self.predicate))


class UnlessCondition(IfCondition):
    """Holds where the text evaluates to 'false' or '0'."""

    def evaluate(self, context: LaunchContext) -> bool:
        return not super().evaluate(context)
