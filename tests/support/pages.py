"""What the pages of documentation say: commands, code spans, links and headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import command

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = {"", "sh", "bash", "console"}  # languages of blocks whose every line is a command
OTHERS = {"text", "python", "yaml"}
SPAN = re.compile(r"`([^`]+)`")
WORD = re.compile(r"[+~]?[a-z_@/]+[a-z0-9_@/.]*=\S+")
STARTS = re.compile(r"^([A-Z_]+=\S+ )*(python|make|pip) ")  # of a code span that is a command
# Parts that docs/extending.md shows; tests/test_extending.py makes them.
MADE = ("maxabs", "cosine", "model=plain", "arrays", "freeze_bn", "table=mine")


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(command.ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """Everything but the fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and content."""
        return FENCE.findall(self.text)

    @property
    def spans(self) -> list[str]:
        """Code within the prose; one that is broken into lines is put together."""
        return [" ".join(span.split()) for span in SPAN.findall(self.prose)]

    @property
    def commands(self) -> list[str]:
        """One for each thing to type."""
        lines = [line for language, text in self.blocks if language in COMMANDS for line in typed(text)]
        spans = [span for span in self.spans if STARTS.match(f"{span} ")]
        return [part.strip() for line in [*lines, *spans] for part in re.split(r"&&|;", line)]

    @property
    def sentences(self) -> list[str]:
        """Code spans that are words of a sentence and nothing else."""
        return [span for span in self.spans if all(WORD.fullmatch(word) for word in span.split())]

    @property
    def links(self) -> list[str]:
        """Targets within the project, of links and of pictures."""
        found = re.findall(r"\]\(([^)\s]+)\)", self.prose) + re.findall(r'(?:src|href)="([^"]+)"', self.prose)
        return [link for link in found if "://" not in link]

    @property
    def anchors(self) -> set[str]:
        """What its headings can be linked by."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @property
    def rows(self) -> list[list[str]]:
        """Lines of its tables."""
        lines = [line for line in self.prose.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


PAGES = [
    Page(path)
    for path in [
        command.ROOT / "README.md",
        *sorted((command.ROOT / "docs").glob("**/*.md")),
        command.ROOT / "benchmarks" / "README.md",
        *sorted((command.ROOT / "results").glob("**/*.md")),
    ]
]


def made_elsewhere(text: str) -> bool:
    """Whether a text is about a part that only docs/extending.md has."""
    return any(word in text for word in MADE)


EXTENDING = Page(command.ROOT / "docs" / "extending.md")
# Path and text of each file that it shows.
FILES: dict[str, str] = dict(
    re.findall(
        r"`((?:sqakd|conf)/[\w/]+\.(?:py|yaml))`:\n+```(?:python|yaml)\n(.*?)```", EXTENDING.text, flags=re.DOTALL
    )
)


def typed(block: str) -> list[str]:
    """The lines of a block that are typed: without prompts and comments, continued ones put together."""
    lines = (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def words_of(line: str) -> list[str]:
    """Words of a command, without what surrounds it: variables before it, a scheduler's launcher, a comment."""
    words = shlex.split(line, comments=True)
    while words and (words[0] == "srun" or re.fullmatch(r"[A-Z_]+=\S+", words[0])) and len(words) > 1:
        words = words[1:]
    return words
