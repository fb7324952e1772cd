"""The colours of the page for drawings that cannot use its CSS variables."""

from __future__ import annotations

import re
from importlib.resources import files


def page_css() -> str:
    """Return the style sheet of the page."""
    return files("sqakd.report").joinpath("assets/page.css").read_text(encoding="utf-8")


def light_colours() -> dict[str, str]:
    """Return the colours of the light theme by the name of their CSS variable.

    >>> light_colours()["s1"]
    '#0072b2'
    """
    light = page_css().partition("}")[0]
    return dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", light))
