"""Start the simulator alone: `python -m simulators run ...`, without loading the rest of the platform."""

from __future__ import annotations

import sys

from simulators.cli import main

sys.exit(main(sys.argv[1:]))
