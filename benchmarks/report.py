"""Benchmark of the report: time to write the report of 500 runs, and time to open its page in Chromium.

    python benchmarks/report.py [--runs 500] [--epochs 200] [--rounds 7]

The runs are not trained (`made_runs.py`): five networks, four quantizers, three bit widths, three training methods and
three seeds, and the float runs; the first `--runs` of them are kept. The browser itself measures the time from the
start of the navigation until the load event and until the first paint, in a new browser each time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_runs import make_grid
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parents[1]
NETWORKS = tuple((dataset, "resnet20") for dataset in ("cifar10", "cifar100", "digits", "digits16", "tiny_imagenet"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-quic"]
TIMES = """
const page = performance.getEntriesByType("navigation")[0];
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return [page.loadEventEnd, paint ? paint.startTime : null];
"""


def make(runs: Path, count: int, epochs: int) -> int:
    """Make `count` runs, or all if there are fewer, and return their number."""
    make_grid(
        runs,
        networks=NETWORKS,
        quantizers=("dorefa", "ewgs", "lsq", "pact"),
        bits=(1, 2, 4),
        kds=("none", "sqakd", "squat"),
        seeds=3,
        epochs=epochs,
    )
    folders = sorted(runs.glob("*/seed*"))
    for folder in folders[count:]:
        shutil.rmtree(folder)
    return min(count, len(folders))


def write(runs: Path, results: Path) -> float:
    """Return the seconds of one report, with the start of Python."""
    command = [sys.executable, "-m", "sqakd.report", "--runs", str(runs), "--results", str(results)]
    start = time.perf_counter()
    subprocess.run(command, cwd=results, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return time.perf_counter() - start


def load(page: Path) -> tuple[float, float]:
    """Return the seconds until the load event and until the first paint, in a new browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            browser.get(page.as_uri())
            until = time.monotonic() + 20
            while True:
                loaded, painted = browser.execute_script(TIMES)
                if loaded and painted:
                    return loaded / 1000, painted / 1000
                if time.monotonic() > until:
                    raise SystemExit(f"error: {page} was not painted within 20 s")
                time.sleep(0.05)
        finally:
            browser.quit()


def show(seconds: list[float]) -> str:
    """Return the median with the smallest and the largest value."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} - {max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, results = Path(folder) / "runs", Path(folder) / "results"
        results.mkdir()
        shutil.copy(ROOT / "results" / "paper.csv", results)
        count = make(runs, options.runs, options.epochs)
        written = [write(runs, results) for _ in range(options.rounds)]
        page = results / "report.html"
        opened = [load(page) for _ in range(options.rounds)]
        size = page.stat().st_size / 1e6
    print(
        f"{count} runs of {options.epochs} epochs, {size:.1f} MB, n = {options.rounds}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"written     {show(written)}")
    print(f"loaded      {show([seconds for seconds, _ in opened])}")
    print(f"painted     {show([seconds for _, seconds in opened])}")


if __name__ == "__main__":
    main()
