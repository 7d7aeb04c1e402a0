"""Type of arguments that take text or substitutions."""

from ._core import SomeSubstitutionsType, module_getattr

__all__ = ["SomeSubstitutionsType"]
__getattr__ = module_getattr(__name__)
