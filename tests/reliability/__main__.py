"""The command line of the campaign."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import warm_process
from tqdm import tqdm

from sqakd.runs.environment import commit, device_name, training_versions
from tests.reliability import (
    data,
    disks,
    files,
    image_folders,
    input_files,
    kills,
    option_programs,
    option_words,
    options,
    sweeps,
)
from tests.reliability.case import Case, Ending, Fault, unique
from tests.reliability.samples import Samples
from tests.reliability.table import table

FAMILIES = {
    "options": [options.cases, option_words.cases, option_programs.cases],
    "files": [files.cases, input_files.cases],
    "kills": [kills.cases, disks.cases, sweeps.cases],
    "data": [data.cases, image_folders.cases],
}
# Imported once in the process that the commands are forked from: each refused command is then twice as fast.
PRELOADED = [*warm_process.PRELOADED, "torchvision", "sqakd.app.train", "sqakd.app.export", "sqakd.app.plan"]


def all_cases(families: Iterable[str], samples: Samples) -> Iterator[Case]:
    """Yield the cases of some families."""
    for family in families:
        for make in FAMILIES[family]:
            yield from make(samples)


def play(case: Case) -> dict[str, Any]:
    """Play a case in a new folder and return its row of the output."""
    start = time.perf_counter()
    if case.skip:
        ending = Ending(False, (), "", (case.skip,))
    else:
        with tempfile.TemporaryDirectory(prefix="reliability-", ignore_cleanup_errors=True) as folder:
            try:
                ending = case.play(Path(folder).resolve())
            except Exception as error:  # a mistake in one case must not lose the hour that the others took
                ending = Ending(False, ((Fault.BROKEN, f"{type(error).__name__}: {error}"),), "")
    return {
        "family": case.family,
        "kind": case.kind,
        "name": case.name,
        "skipped": case.skip,
        "refused": ending.refused,
        "faults": [[str(fault), what] for fault, what in ending.faults],
        "command": ending.command,
        "lines": list(ending.lines),
        "seconds": round(time.perf_counter() - start, 2),
    }


def main() -> int:
    """Run the command line and return the exit status: 1 if any case ended badly."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose family/kind/name matches")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one case of N, chosen at random")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--output", type=Path, default=Path("build/reliability.json"))
    options_ = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the running command is ended too
    warm_process.SERVER.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="reliability-samples-") as scratch:
        os.environ["HOME"] = scratch  # "~" in a command must not be the home folder of whoever runs the campaign
        samples = Samples(Path(scratch) / "samples")
        cases = [case for case in unique(all_cases(options_.family, samples)) if re.search(options_.only, case.title)]
        # Not each Nth case in order, because the order is regular too.
        chosen = random.Random(0).sample(range(len(cases)), math.ceil(len(cases) / options_.every))
        cases = [cases[i] for i in sorted(chosen)]
        if options_.list:
            print("\n".join(case.title for case in cases))
            return 0
        rows = []
        for case in tqdm(cases, unit="case", smoothing=0.05):
            rows.append(play(case))
            if rows[-1]["faults"]:
                tqdm.write(f"{case.title}: {'; '.join(': '.join(fault) for fault in rows[-1]['faults'])}")
            if len(rows) % 25 == 0:
                write(options_.output, rows)
    write(options_.output, rows)
    print(table(rows))
    return 1 if any(row["faults"] for row in rows) else 0


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "command": shlex.join(["python", "-m", "tests.reliability", *sys.argv[1:]]),
        "commit": commit(),
        "versions": training_versions(),
        "machine": f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores, {platform.platform()}",
        "faults": [str(fault) for fault in Fault],
        "cases": rows,
    }
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
