"""Errors that a user can act on."""


class CorftError(Exception):
    """A user-facing failure: says what was expected, what was seen, and what to do next.

    Command-line programs print it without a traceback and exit with ``exit_code``.
    """

    exit_code = 2


class ContractError(CorftError):
    """A robot contract that is invalid, or that disagrees with another one."""
