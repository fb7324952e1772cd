"""Before any test imports torch: files run side by side, so each gets one thread, and waiting threads do not spin."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
