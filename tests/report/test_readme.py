"""Tables between markers of a Markdown file: everything else stays, and wrong markers are named."""

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


def test_only_lines_between_markers_change() -> None:
    filled = fill(TEXT, TABLES)
    assert filled == TEXT.replace("old\n", "\n| a |\n| --- |\n| 1 |\n\n").replace("two -->\n", "two -->\n\nsecond\n\n")
    assert fill(filled, TABLES) == filled, "a second time changes nothing"
    assert fill(TEXT + "\n", TABLES) == filled + "\n"
    assert names(TEXT) == ["one", "two"]


def test_markers_in_a_code_fence_are_not_filled() -> None:
    fenced = "```\n<!-- report:one -->\n<!-- /report -->\n```\n"
    assert fill(fenced + TEXT, TABLES) == fenced + fill(TEXT, TABLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nothing\n",
            "no marker: expected <!-- report:NAME --> and <!-- /report -->, each on its own line; NAME is one, two",
        ),
        ("a\n<!-- report:one -->\nb\n", "line 2: <!-- report:one --> without <!-- /report --> below it"),
        (
            "<!-- report:one -->\n<!-- report:two -->\n<!-- /report -->\n",
            "line 1: <!-- report:one --> without <!-- /report --> below it",
        ),
        (
            "<!-- /report -->\n",
            "line 1: <!-- /report --> without <!-- report:NAME --> above it",
        ),
        ("<!-- report:three -->\n<!-- /report -->\n", "line 1: no table 'three'; expected one of one, two"),
    ],
)
def test_a_wrong_marker_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        fill(text, TABLES)
    assert str(error.value) == message


def test_an_unknown_name_is_left_as_it_is_on_request() -> None:
    text = TEXT.replace("report:two", "report:three")
    assert fill(text, TABLES, skip_unknown=True) == fill(TEXT, {"one": TABLES["one"], "two": ""}).replace(
        "report:two -->\n\n\n", "report:three -->\n"
    )
