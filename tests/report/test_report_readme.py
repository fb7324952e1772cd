"""Tables between markers: the rest of the file stays, twice is once, and what is wrong is named."""

from __future__ import annotations

import pytest

from sqakd.report.readme import fill, names

TABLES = {"one": "| a |\n| --- |\n| 1 |\n", "two": "second"}
TEXT = """# Title

<!-- report:one -->
old
<!-- /report -->

Between.  \n
  <!-- report:two -->
<!-- /report -->
the end, without a newline"""


def test_only_what_is_between_markers_changes() -> None:
    filled = fill(TEXT, TABLES)
    assert filled == TEXT.replace("old\n", "\n| a |\n| --- |\n| 1 |\n\n").replace("two -->\n", "two -->\n\nsecond\n\n")
    assert fill(filled, TABLES) == filled, "again changes nothing"
    assert fill(TEXT + "\n", TABLES) == filled + "\n"
    assert names(TEXT) == ["one", "two"]


def test_a_marker_in_a_code_fence_is_shown_and_not_filled() -> None:
    fenced = "```\n<!-- report:one -->\n<!-- /report -->\n```\n"
    assert fill(fenced + TEXT, TABLES) == fenced + fill(TEXT, TABLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing\n", "no marker: type <!-- report:NAME --> and <!-- /report -->, each on a line; NAME is one, two"),
        ("a\n<!-- report:one -->\nb\n", "line 2: <!-- report:one --> is not closed; type <!-- /report --> below it"),
        (
            "<!-- report:one -->\n<!-- report:two -->\n<!-- /report -->\n",
            "line 1: <!-- report:one --> is not closed; type <!-- /report --> below it",
        ),
        (
            "<!-- /report -->\n",
            "line 1: <!-- /report --> closes nothing; type <!-- report:NAME --> above it, or remove it",
        ),
        ("<!-- report:three -->\n<!-- /report -->\n", "line 1: no table 'three'; there is one, two"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        fill(text, TABLES)
    assert str(error.value) == message


def test_a_name_without_a_table_may_be_left() -> None:
    text = TEXT.replace("report:two", "report:three")
    assert fill(text, TABLES, skip_unknown=True) == fill(TEXT, {"one": TABLES["one"], "two": ""}).replace(
        "report:two -->\n\n\n", "report:three -->\n"
    )
