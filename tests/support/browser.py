"""A headless Chromium for tests that look at a page; it downloads nothing and talks to nobody."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
MISSING = (
    f"{CHROMIUM} or {DRIVER} is missing: apt-get install -y --no-install-recommends chromium chromium-driver"
    " (make test does it where it may)"
)


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser with an empty profile; skips where there is none, unless SQAKD_REQUIRE_BROWSER=1 says there must be."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        if os.environ.get("SQAKD_REQUIRE_BROWSER") == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=Service(str(DRIVER)))
        try:
            driver.get("about:blank")
            requests(driver)  # those of the page that a new browser shows are its own
            yield driver
        finally:
            driver.quit()


def show(driver: Chrome, page: Path, *, width: int, scheme: str) -> None:
    """Open a page from disk on a screen so many pixels wide, for someone who prefers `light` or `dark`."""
    device = {"width": width, "height": 900, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.resolve().as_uri())


def screenshot(driver: Chrome, file: Path, *, width: int, most: int = 4000) -> None:
    """The page from its top, at most so many pixels of it."""
    height = min(most, driver.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    file.write_bytes(base64.b64decode(shot["data"]))


def console(driver: Chrome) -> list[str]:
    """What the page has complained about since it was last asked."""
    log: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [str(entry["message"]) for entry in log]


def requests(driver: Chrome) -> list[str]:
    """Addresses that were asked for since it was last asked."""
    log: list[dict[str, Any]] = driver.get_log("performance")  # type: ignore[no-untyped-call]
    events = [json.loads(entry["message"])["message"] for entry in log]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
