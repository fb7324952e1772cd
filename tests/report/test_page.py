"""The page in a browser, on a desktop and a phone: nothing overflows, no console message, nothing is fetched.

SQAKD_SCREENSHOTS=FOLDER keeps the screenshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from made_runs import Made, make_export, make_grid, make_run
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from sqakd.report.page import Section, write_page
from sqakd.report.panels import PANELS
from sqakd.report.write import write_report

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table8,digits16,resnet20,ewgs,2,sqakd,98.00,,paper,here
table9,cifar10,resnet20,ewgs,2,sqakd,91.00,,paper,here
"""
DESKTOP, PHONE = 1280, 390
RUNS = 26
# Elements beyond the right edge of the window that are not in a box that scrolls.
STICKING_OUT = """
const boxes = ".scroll, nav div";
return [...document.querySelectorAll("body *")]
  .filter((e) => !e.parentElement.closest(boxes) && !e.closest("svg svg") && e.getClientRects().length)
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 100));
"""
LETTERS = """
return [...document.querySelectorAll("svg[role=img]")].filter((svg) => svg.clientWidth && svg.querySelector("text"))
  .map((svg) => parseFloat(getComputedStyle(svg.querySelector("text")).fontSize) * svg.clientWidth
    / svg.viewBox.baseVal.width);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_grid(folder / "runs")
    made = Made("cifar10", "a-network-with-a-name-that-is-far-too-long", "ewgs", 2, "sqakd+cutmix+ema+bn", 0)
    make_export(make_run(folder / "runs", made, changes={"recipe.optimizer.weight_decay": 0.0001}), made)
    (folder / "paper.csv").write_text(PAPER)
    write_report(folder / "runs", folder, title="A title that is long enough to need two lines on a phone")
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser.chromium() as driver:
        yield driver


def lightness(driver: Chrome) -> int:
    """Return the lightness of the page's background, 0 to 255."""
    colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) // 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_fits_the_window_quietly(width: int, scheme: str, page: Path, driver: Chrome, tmp_path: Path) -> None:
    browser.requests(driver)
    browser.show(driver, page, width=width, scheme=scheme)
    assert driver.execute_script("return innerWidth") == width
    driver.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; });")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script(STICKING_OUT) == []
    assert min(driver.execute_script(LETTERS)) >= 10, "letters of a chart, in pixels"
    assert (lightness(driver) < 60) == (scheme == "dark")
    folder = Path(os.environ.get("SQAKD_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"report-{width}-{scheme}.png"
    browser.screenshot(driver, file, width=width)
    with Image.open(file) as picture:
        assert picture.width == width * (2 if width == PHONE else 1)
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 200, "something is drawn"
    assert browser.console(driver) == []
    fetched = [address for address in browser.requests(driver) if not address.startswith(("data:", "about:"))]
    assert fetched == [page.resolve().as_uri()], "nothing but the page itself"


def test_the_theme_can_be_switched_and_is_kept(page: Path, driver: Chrome) -> None:
    browser.show(driver, page, width=DESKTOP, scheme="light")
    button = driver.find_element(By.ID, "theme")
    assert (button.text, lightness(driver) > 200) == ("Dark", True)
    button.click()
    assert (button.text, lightness(driver) < 60) == ("Light", True)
    driver.refresh()
    assert lightness(driver) < 60
    driver.find_element(By.ID, "theme").click()
    assert lightness(driver) > 200
    driver.execute_script("localStorage.clear()")


def test_a_button_copies_the_command(page: Path, driver: Chrome) -> None:
    browser.show(driver, page, width=DESKTOP, scheme="light")
    driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)));"
    row = driver.find_elements(By.CSS_SELECTOR, ".runs tbody tr")[1]
    command = row.find_element(By.CSS_SELECTOR, "td code").text
    assert command.startswith("python train.py seed=")
    button = row.find_element(By.CSS_SELECTOR, "button.copy")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert driver.execute_async_script(read) == command
    assert button.text == "Copied"


def test_the_commands_of_filtered_runs_are_copied_together(page: Path, driver: Chrome) -> None:
    browser.show(driver, page, width=PHONE, scheme="light")
    shown = driver.find_element(By.ID, "shown")
    assert shown.text == f"{RUNS} of {RUNS} runs"
    driver.find_element(By.ID, "filter").send_keys("LSQ w1a1 sqakd")
    assert shown.text == f"3 of {RUNS} runs"
    driver.execute_script(
        "navigator.clipboard.writeText = (words) => { window.copied = words; return Promise.resolve(); };"
    )
    driver.find_element(By.ID, "copy-all").click()
    copied = driver.execute_script("return window.copied").splitlines()
    assert len(copied) == 3
    assert all("quantizer=lsq kd=sqakd" in line for line in copied)


def test_a_number_links_to_its_runs(page: Path, driver: Chrome) -> None:
    browser.show(driver, page, width=DESKTOP, scheme="light")
    driver.find_element(By.ID, "filter").send_keys("nothing like it")
    link = driver.find_element(By.XPATH, "//section[@id='summary']//td/a[contains(., '(3)')]")
    driver.execute_script("arguments[0].click()", link)
    runs = driver.find_elements(By.CSS_SELECTOR, "tbody:target tr")
    assert len(runs) == 3
    assert all(run.is_displayed() for run in runs), "a filter does not hide what was asked for"
    numbers = [float(run.find_elements(By.TAG_NAME, "td")[1].text) for run in runs]
    assert link.text.startswith(f"{sum(numbers) / 3:.2f}")


def test_every_link_has_a_target(page: Path, driver: Chrome) -> None:
    browser.show(driver, page, width=DESKTOP, scheme="light")
    script = """
    return [...document.querySelectorAll("a")].map((a) => a.getAttribute("href"))
      .filter((href) => !href.startsWith("#") || !document.getElementById(href.slice(1)));
    """
    assert driver.execute_script(script) == []
    twice = (
        "const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length - new Set(ids).size;"
    )
    assert driver.execute_script(twice) == 0


def test_a_page_without_a_table_of_runs_works(tmp_path: Path, driver: Chrome) -> None:
    """Such as the dashboard's page; title and heading are escaped."""
    file = tmp_path / "other.html"
    write_page(file, title="<b>&", sections=[Section("one", "First <part>", "<p>body</p>")])
    browser.console(driver)
    browser.show(driver, file, width=PHONE, scheme="dark")
    assert driver.title == "<b>&"
    assert driver.find_element(By.TAG_NAME, "h2").text == "First <part>"
    assert browser.console(driver) == []


def test_the_page_needs_no_other_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "://" not in text.replace(page.resolve().as_uri(), "")
    assert "src=" not in text
    assert "@import" not in text
    assert str(page.parent) not in text, "a path of this machine"
    for name in PANELS:
        assert f'<section id="{name}">' in text
