"""The reliability campaign: odd commands, damaged files, kills and hostile data, each with the ending it must have.

    python -m tests.reliability [--family options ...] [--only REGEX] [--output FILE]

docs/reliability.md says what the campaign promises and how each promise is tested.
"""

import sys
from pathlib import Path

SUPPORT = str(Path(__file__).parents[1] / "support")
if SUPPORT not in sys.path:  # pytest has it already
    sys.path.append(SUPPORT)
