"""A document of chapters, written once as Markdown and once as sections of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import tag, text
from sqakd.report.figure import Picture
from sqakd.report.page import Section
from sqakd.report.table import Table, as_html, as_markdown, markdown


@dataclass(frozen=True)
class PictureFile:
    """A picture that lies next to the Markdown file and is part of the page.

    Attributes:
        file: its file name.
        label: description for screen readers.
        picture: the picture.
    """

    file: str
    label: str
    picture: Picture

    def svg(self) -> str:
        """Return the content of the file."""
        return self.picture.svg(label=self.label)


Part = str | Table | PictureFile


@dataclass(frozen=True)
class Chapter:
    """Paragraphs, tables and pictures below one heading.

    Attributes:
        name: anchor on the page.
        title: heading, plain text.
        parts: a string is a paragraph of plain text.
    """

    name: str
    title: str
    parts: Sequence[Part]


def markdown_document(title: str, chapters: Iterable[Chapter]) -> str:
    """Return a document as Markdown, with links to its picture files."""
    written = [f"# {markdown(title)}\n"]
    for chapter in chapters:
        written += [f"## {markdown(chapter.title)}\n", *(_markdown(part) for part in chapter.parts)]
    return "\n".join(written)


def page_sections(chapters: Iterable[Chapter]) -> list[Section]:
    """Return the chapters of a document as sections of a page."""
    return [
        Section(chapter.name, chapter.title, "\n".join(_html(part) for part in chapter.parts)) for chapter in chapters
    ]


def picture_files(chapters: Iterable[Chapter]) -> list[PictureFile]:
    """Return all pictures of a document."""
    return [part for chapter in chapters for part in chapter.parts if isinstance(part, PictureFile)]


def _markdown(part: Part) -> str:
    if isinstance(part, Table):
        return as_markdown(part)
    if isinstance(part, PictureFile):
        notes = [f"{markdown(f'{chart.title}: {chart.note}')}\n" for chart in part.picture.charts if chart.note]
        return "\n".join([f"![{part.label}]({part.file})\n", f"{markdown(part.picture.caption)}\n", *notes])
    return f"{markdown(part)}\n"


def _html(part: Part) -> str:
    if isinstance(part, Table):
        return as_html(part)
    if isinstance(part, PictureFile):
        return part.picture.html()
    return tag("p", text(part))
