"""The length of a run: shares of the recipe, stages in addition to it, and values that others refuse."""

from __future__ import annotations

from typing import Any

import pytest

from sqakd.runs.length import Length, length, length_of


@pytest.mark.parametrize(("epochs", "taken"), [(0, 0), (1, 1), (2, 1), (6, 1), (7, 1), (8, 2), (11, 2), (50, 12)])
def test_a_quarter_is_rounded_down_and_is_at_least_one_epoch(epochs: int, taken: int) -> None:
    assert length(epochs, share=0.25, own=0) == Length(epochs, taken, 0)


def test_whole_percents_of_any_number_of_epochs_are_exact() -> None:
    for percent in range(1, 100):
        for epochs in range(1, 201):
            assert length(epochs, share=percent / 100, own=0).taken == max(percent * epochs // 100, 1)


def test_a_stage_of_its_own_is_in_addition() -> None:
    found = length(8, share=0, own=30)
    assert (found.training, found.stage) == (8, 30)
    assert length(0, share=0, own=30).stage == 0, "without a training there is no stage"


@pytest.mark.parametrize("loss", [None, "sp", 3, {}, {"pretrain_share": "half"}, {"pretrain_share": 1.5}])
@pytest.mark.parametrize("epochs", [8, "many", None, -1, 2.5])
def test_values_that_a_constructor_refuses_count_as_0(loss: Any, epochs: Any) -> None:
    expected = Length(8, 0, 0) if epochs == 8 else Length(0, 0, 0)
    assert length_of({"recipe": {"epochs": epochs}, "kd": {"feature_loss": loss}}) == expected
    assert length_of({"recipe": None, "kd": "sqakd"}) == Length(0, 0, 0)
