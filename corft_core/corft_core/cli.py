"""Exit codes and error printing shared by all command-line programs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from corft_core.errors import CorftError
from corft_core.files import FULL_DISK

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run_main(main: Callable[[], int | None]) -> int:
    """Run ``main`` and turn expected failures into one message and an exit code.

    Returns 0 on success, the error's code for a :class:`CorftError` (2 unless it says otherwise), 2 for a full disk,
    130 on Ctrl-C.
    Programming errors keep their traceback.
    """
    try:
        return main() or EXIT_OK
    except CorftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        print(f"error: no space left while writing {error.filename or 'the output'}: {error.strerror}. "
              "Free some space or choose another output folder, then run the same command again.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
