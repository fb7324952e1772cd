"""The table of a campaign: per family the number of cases, their endings and their faults, then each fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.reliability.case import Fault


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown, followed by the cases that ended badly."""
    families = list(dict.fromkeys(row["family"] for row in rows))
    head = ["family", "cases", "refused", "accepted", "skipped", *Fault]
    lines = [head, ["---"] * len(head)]
    for family in [*families, "all"]:
        chosen = [row for row in rows if family in (row["family"], "all")]
        tried = [row for row in chosen if not row["skipped"]]
        refused = sum(row["refused"] for row in tried)
        faults = Counter(fault for row in tried for fault in {fault for fault, _ in row["faults"]})
        numbers = [len(chosen), refused, len(tried) - refused, len(chosen) - len(tried), *(faults[f] for f in Fault)]
        lines.append([family, *map(str, numbers)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([text, *(_bad(row) for row in rows if row["faults"])])


def _bad(row: dict[str, Any]) -> str:
    faults = "; ".join(f"{fault}: {what}" for fault, what in row["faults"])
    return "\n".join(
        [
            f"{row['family']}/{row['kind']}/{row['name']}",
            f"  {faults}",
            f"  {row['command']}",
            *(f"  > {line}" for line in row["lines"]),
        ]
    )
