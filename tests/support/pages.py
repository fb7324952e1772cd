"""Reader of the documentation: the commands, code spans, links and headings of its Markdown pages."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import command

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)  # also within a list
COMMANDS = {"", "sh", "bash", "console"}  # languages of blocks in which every line is a command
OTHERS = {"text", "python", "yaml", "mermaid"}
SPAN = re.compile(r"`([^`]+)`")
OVERRIDE = re.compile(r"[+~]?[a-z_@/]+[a-z0-9_@/.]*=\S+")
COMMAND_SPAN = re.compile(r"^([A-Z_]+=\S+ )*(python|make|pip) ")
# Names of the example parts that docs/extending.md defines. tests/test_extending.py creates these parts.
EXAMPLE_PARTS = ("maxabs", "cosine", "model=plain", "arrays", "freeze_bn", "table=mine")


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(command.ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The language and the content of each fenced block."""
        return FENCE.findall(self.text)

    @property
    def spans(self) -> list[str]:
        """The code spans of the prose; the lines of a broken span are joined."""
        return [" ".join(span.split()) for span in SPAN.findall(self.prose)]

    @property
    def commands(self) -> list[str]:
        """The commands of blocks and code spans; parts joined by && or ; are separate commands."""
        lines = [line for language, text in self.blocks if language in COMMANDS for line in command_lines(text)]
        spans = [span for span in self.spans if COMMAND_SPAN.match(f"{span} ")]
        return [part.strip() for line in [*lines, *spans] for part in re.split(r"&&|;", line)]

    @property
    def overrides(self) -> list[str]:
        """The code spans that consist of overrides alone, such as `quantizer=lsq bits=2`."""
        return [span for span in self.spans if all(OVERRIDE.fullmatch(word) for word in span.split())]

    @property
    def links(self) -> list[str]:
        """The targets of links and pictures within the project."""
        found = re.findall(r"\]\(([^)\s]+)\)", self.prose) + re.findall(r'(?:src|href)="([^"]+)"', self.prose)
        return [link for link in found if "://" not in link]

    @property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each row of the tables."""
        lines = [line for line in self.prose.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


PAGES = [
    Page(path)
    for path in [
        *(command.ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((command.ROOT / "docs").glob("**/*.md")),
        command.ROOT / "benchmarks" / "README.md",
        *sorted((command.ROOT / "results").glob("**/*.md")),
    ]
]
EXTENDING = Page(command.ROOT / "docs" / "extending.md")
# The path and the text of each example file in docs/extending.md.
FILES: dict[str, str] = dict(
    re.findall(
        r"`((?:sqakd|conf)/[\w/]+\.(?:py|yaml))`:\n+```(?:python|yaml)\n(.*?)```", EXTENDING.text, flags=re.DOTALL
    )
)


def uses_example_part(text: str) -> bool:
    """Return whether a text names a part that only docs/extending.md defines."""
    return any(part in text for part in EXAMPLE_PARTS)


def command_lines(block: str) -> list[str]:
    """Return the commands of a block, without prompts and comments and with continued lines joined."""
    lines = (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def split_command(line: str) -> list[str]:
    """Split a command into program and arguments; variables, `srun` with its options, and a comment are removed."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"srun|--\S+|[A-Z_]+=\S+", words[0]) and len(words) > 1:
        words = words[1:]
    return words
