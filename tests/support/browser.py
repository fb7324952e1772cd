"""A headless Chromium for tests that open a page. It makes no network connection of its own."""

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
    " (make test installs them where it may)"
)


@contextmanager
def chromium() -> Iterator[Chrome]:
    """Start a browser with an empty profile.

    The test is skipped if no browser is installed, and fails instead if SQAKD_REQUIRE_BROWSER=1.
    """
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
            requests(driver)  # discard the requests of the browser's own start page
            yield driver
        finally:
            driver.quit()


def show(driver: Chrome, page: Path, *, width: int, scheme: str) -> None:
    """Open a page from disk.

    Args:
        driver: the browser.
        page: HTML file.
        width: of the screen, in pixels; below 600 the browser behaves like a phone.
        scheme: the reader's preferred colours, `light` or `dark`.
    """
    device = {"width": width, "height": 900, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.resolve().as_uri())


def screenshot(driver: Chrome, file: Path, *, width: int, most: int = 4000) -> None:
    """Write a picture of the first `most` pixels of the page, from its top."""
    height = min(most, driver.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    file.write_bytes(base64.b64decode(shot["data"]))


def console(driver: Chrome) -> list[str]:
    """Return the page's errors and warnings since the last call."""
    log: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [str(entry["message"]) for entry in log]


def requests(driver: Chrome) -> list[str]:
    """Return the addresses that the page requested since the last call."""
    log: list[dict[str, Any]] = driver.get_log("performance")  # type: ignore[no-untyped-call]
    events = [json.loads(entry["message"])["message"] for entry in log]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
