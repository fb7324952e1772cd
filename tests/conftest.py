"""Before any test imports torch: threads that wait by spinning make a busy machine several times slower."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
