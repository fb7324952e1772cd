"""One self-contained HTML file: no network, light and dark, desktop and phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sqakd.files import write_text


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: its anchor, for example "curves".
        title: its heading, plain text.
        body: its content, HTML.
    """

    name: str
    title: str
    body: str


def write_page(file: Path, *, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs nothing beside itself.

    Args:
        file: the page, written atomically; its folder must exist.
        title: plain text.
        sections: in their order; each is in the page's contents.
    """
    environment = Environment(
        loader=PackageLoader("sqakd.report", "assets"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    assets = {name: Markup(_asset(environment, f"page.{name}")) for name in ("css", "js")}
    page = environment.get_template("page.html").render(
        title=title, sections=[(s.name, s.title, Markup(s.body)) for s in sections], **assets
    )
    write_text(file, page)


def _asset(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
