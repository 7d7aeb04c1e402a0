"""`python -m ros2_standalone` with `tools/` on the path."""

import sys

from .cli import main

sys.exit(main())
