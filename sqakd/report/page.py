"""A self-contained HTML page: no network, light and dark, desktop and phone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sqakd.files import write_text
from sqakd.report.outputs import Kind
from sqakd.terminal import printable

# The beginning of assets/page.html, above the title; it was the same in all versions.
PAGE = Kind(
    "a page of the report",
    re.compile(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n<title>'
    ),
)


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        name: anchor, for example "curves".
        title: heading, plain text.
        body: content, HTML.
    """

    name: str
    title: str
    body: str


def write_page(file: Path, *, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs no other file.

    Args:
        file: the page, written atomically; its folder must exist.
        title: title of the page, plain text.
        sections: parts of the page in order; the page's contents list each of them.

    Raises:
        SqakdError: if the file exists and is not such a page.
    """
    PAGE.check(file)
    environment = Environment(
        loader=PackageLoader("sqakd.report", "assets"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    assets = {name: Markup(_asset(environment, f"page.{name}")) for name in ("css", "js")}
    page = environment.get_template("page.html").render(
        title=printable(title), sections=[(s.name, s.title, Markup(s.body)) for s in sections], **assets
    )
    write_text(file, page)


def _asset(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
