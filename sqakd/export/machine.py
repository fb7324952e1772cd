"""The machine that a measurement runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# Instruction sets that make integer or float kernels fast; x86 first, then ARM.
ISAS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


def machine() -> dict[str, Any]:
    """Return the processor, its relevant instruction sets, cores, load, system and Python version."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "isa": [isa for isa in ISAS if isa in flags],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
