"""Builds the documentation as a site: all pages of the repository, and the reference of `import sqakd`.

    python docs/site/build.py [--site build/site]

The pages stay as they are in the repository. They are copied with everything that they link to, at the same relative
places. The reference is written from `sqakd.face.FACE` and the docstrings. A broken link or anchor ends the build.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mkdocs.commands.build import build  # noqa: E402
from mkdocs.config import load_config  # noqa: E402
from mkdocs.exceptions import Abort  # noqa: E402

from sqakd.face import FACE  # noqa: E402

FOLDERS = (".", "docs", "benchmarks", "results", "results/measured")
LINK = re.compile(r"\]\(([^)#\s]+)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python docs/site/build.py", description="Build the documentation as a site.")
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site", help="folder of the site, replaced")
    parser.add_argument("--pages", type=Path, default=ROOT / "build" / "pages", help="folder of the copies, replaced")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # mkdocs reports broken links this way
    shutil.rmtree(arguments.pages, ignore_errors=True)
    for page in pages():
        copy(page, arguments.pages)
    (arguments.pages / "docs" / "api.md").write_text(reference(), encoding="utf-8")
    config = load_config(
        str(Path(__file__).with_name("mkdocs.yml")),
        docs_dir=str(arguments.pages),
        site_dir=str(arguments.site),
        strict=True,
    )
    try:
        build(config)
    except Abort as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments.site / 'index.html'}\n")
    return 0


def pages() -> Iterator[Path]:
    """Yield the Markdown files of the documentation."""
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).glob("*.md"))


def copy(page: Path, place: Path) -> None:
    """Copy a page with the files that it links to, pictures among them."""
    files = [page]
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / link).resolve()
        if "://" not in link and file.is_file() and file.is_relative_to(ROOT):
            files.append(file)
    for file in files:
        target = place / file.resolve().relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def reference() -> str:
    """Return the page of the names that `import sqakd` offers, for mkdocstrings."""
    parts = [
        "# API of the library",
        "The names that `import sqakd` offers; [library.md](library.md) shows how to use them.",
    ]
    for name, module in FACE.items():
        parts += [f"## sqakd.{name}", f"::: {module}.{name}"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
