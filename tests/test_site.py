"""The documentation as a site: every link and anchor leads somewhere, and the reference has every name of the face."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import command
import pytest

from sqakd.face import FACE

BUILD = command.ROOT / "docs" / "site" / "build.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    places = ["--site", str(folder / "site"), "--pages", str(folder / "pages")]
    done = subprocess.run([sys.executable, str(BUILD), *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_reference_has_every_name_of_the_library(site: Path) -> None:
    page = (site / "docs" / "api" / "index.html").read_text(encoding="utf-8")
    described = re.compile(
        r'<h2 id=[^>]*>sqakd\.(\w+)</h2>\s+<div class="doc doc-object [^>]*>\s+<div class="doc doc-contents'
    )
    assert described.findall(page) == list(FACE)
    assert "&gt;&gt;&gt; " in page, "examples are shown as code"


def test_every_page_is_in_the_navigation_once(site: Path) -> None:
    nav = (BUILD.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    listed = re.findall(r"(\S+\.md)$", nav, re.MULTILINE)
    pages = site.parent / "pages"
    assert sorted(listed) == sorted(file.relative_to(pages).as_posix() for file in pages.glob("**/*.md"))


def test_pages_and_their_pictures_are_there(site: Path) -> None:
    for file in ("index.html", "docs/options/index.html", "results/index.html", "results/measured/digits16.svg"):
        assert (site / file).is_file(), file
