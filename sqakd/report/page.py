"""A self-contained HTML page: no network, light and dark, desktop and phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sqakd.errors import SqakdError
from sqakd.files import write_text

PAGE = "<!doctype html>"  # the first line of assets/page.html


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


def check_output(file: Path, beginning: str) -> None:
    """Refuse an output that would replace a file of another kind.

    Args:
        file: where a page or a picture will be written.
        beginning: the first characters of such a file.

    Raises:
        SqakdError: if the file exists and begins differently.
    """
    if not file.exists():
        return
    try:
        with file.open("rb") as opened:
            found = opened.read(len(beginning))
    except OSError as error:
        raise SqakdError(f"cannot replace {file}: {error.strerror}") from error
    if found and found.lower() != beginning.encode():
        raise SqakdError(f"{file} is not replaced: it does not begin with {beginning}, so something else wrote it")


def write_page(file: Path, *, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs no other file.

    Args:
        file: the page, written atomically; its folder must exist.
        title: title of the page, plain text.
        sections: parts of the page in order; the page's contents list each of them.

    Raises:
        SqakdError: if the file exists and is not a page.
    """
    check_output(file, PAGE)
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
