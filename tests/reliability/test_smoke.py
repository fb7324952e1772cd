"""One or two quick cases of each family, so that the campaign itself keeps working."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.__main__ import FAMILIES, all_cases
from tests.reliability.case import Case, unique
from tests.reliability.samples import Samples

QUICK = (
    "options/word for a number/recipe.lr=abc",
    "files/foreign teacher.pt/content code in torch.save",
    "kills/read-only folder/training",
    "data/archive/tiny_imagenet ../outside",
    "data/bomb/header.png",
)
# The least number of cases of each family.
COUNTS = {"options": 500, "files": 300, "kills": 60, "data": 100}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    samples = Samples(tmp_path_factory.mktemp("reliability") / "samples")
    return {case.title: case for case in unique(all_cases(FAMILIES, samples))}


def test_each_family_has_enough_cases(cases: dict[str, Case]) -> None:
    for family, least in COUNTS.items():
        assert sum(case.family == family for case in cases.values()) >= least, family


@pytest.mark.parametrize("title", QUICK)
def test_case_ends_well(title: str, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases[title]
    if case.skip:
        pytest.skip(case.skip)
    ending = case.play(tmp_path)
    assert ending.faults == (), ending
    assert ending.refused
