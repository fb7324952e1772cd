"""Files that are at the top of a checkout and inside an installed package: configuration and published numbers."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent
# Whether the files are inside the package, as in a wheel.
IS_INSTALLED = (PACKAGE / "conf").is_dir()


def conf_folder() -> Path:
    """Return the folder with train.yaml and export.yaml."""
    return (PACKAGE if IS_INSTALLED else CHECKOUT) / "conf"


def paper_file() -> Path:
    """Return paper.csv, the published numbers."""
    return PACKAGE / "paper.csv" if IS_INSTALLED else CHECKOUT / "results" / "paper.csv"
