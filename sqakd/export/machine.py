"""The machine that a measurement runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere the instruction sets are unknown
# Instruction sets that make integer or float kernels fast; x86 first, then ARM.
ISAS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


# Those that multiply 8-bit integers and add the products in 32 bits, the fastest first, and where they are missing.
DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
WITHOUT = {"avx512f": "avx512f without VNNI", "avx2": "avx2 without VNNI", "asimd": "asimd without dot products"}


def int8_instructions(isa: object) -> str:
    """Return the instructions that compute 8-bit layers on a processor, in a few words.

    Args:
        isa: entry "isa" of `machine`; None or empty if it is not known.

    Example:
        >>> int8_instructions(["avx2", "avx512f", "avx512_vnni"]), int8_instructions(["avx2"]), int8_instructions(None)
        ('avx512_vnni', 'avx2 without VNNI', 'unknown instructions')
    """
    known = isa if isinstance(isa, list | tuple) else ()
    found = [name for name in DOT_PRODUCTS if name in known] or [name for key, name in WITHOUT.items() if key in known]
    return found[0] if found else "unknown instructions"


def machine() -> dict[str, Any]:
    """Return the processor, its relevant instruction sets, cores, load, system and Python version."""
    text = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.exists() else ""
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
