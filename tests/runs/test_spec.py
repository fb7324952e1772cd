"""The identity of a run: values and choices, and nothing that a refactoring changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sqakd.runs.spec import ADDED_KEYS, NOT_IDENTITY, Spec, differences, identity, with_added_keys

CONFIG: dict[str, Any] = {
    "name": "digits-small",
    "seed": 0,
    "recipe": {"lr": 0.001, "optimizer": {"_target_": "torch.optim.Adam"}, "gradient_clip": None},
    "dataset": {"mean": [0.5, 0.5], "root": "data", "download": False, "cache": "cache", "eval_batch_size": 9},
    "trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
    | {"compile": False, "channels_last": True},
    "callbacks": {
        "progress": {"lines": 10},
        "quantizer_statistics": {"file": "runs/here"},
        "histograms": {"every_n_epochs": 1},
        "hessian_scaling": {"batches": 3},
    },
    "paths": {"runs": "runs", "data": "data"},
    "logger": {},
    "plan": False,
    "quantizer": {"rounding": {"delta": "hessian"}},
}
CHOICES = {"dataset": "digits", "kd": "sqakd", "quantizer": "ewgs", "logger": "csv", "experiment": "None"}


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return CONFIG with another value at a dotted key."""
    config = copy.deepcopy(CONFIG)
    *way, last = key.split(".")
    node = config
    for step in way:
        node = node[step]
    node[last] = value
    return config


def test_a_run_without_a_key_that_was_added_later_is_the_run_with_the_former_behaviour() -> None:
    ranges = {"weight": {"_target_": "sqakd.any.LearnedStep"}, "input": {"_target_": "sqakd.any.LearnedStep"}}
    old = {
        "quantizer": {"rounding": {"delta": "hessian"}, **ranges},
        "callbacks": {"hessian_scaling": {"batches": 3}},
        "dataset": {"_target_": "sqakd.any.ImageFolder"},
        "recipe": {"lr": 0.1},
        "model": {"net": {"_target_": "sqakd.any.timm_network"}},
        "teacher": {"recipe": {"lr": 0.1}, "net": {"_target_": "sqakd.any.timm_network"}},
    }
    for key, value in ADDED_KEYS.items():
        other = [] if key in NOT_IDENTITY else [f"{key}: {value} -> another"]
        for now, expected in ((value, []), ("another", other)):
            new: dict[str, Any] = with_added_keys(old)
            *way, last = key.split(".")
            node = new
            for step in way:
                node = node[step]
            node[last] = now
            assert differences(identity(with_added_keys(old)), identity(new)) == expected
    assert with_added_keys({"quantizer": None}) == {"quantizer": None}, "a group that is null stays so"
    dorefa = {"weight": {"_target_": "sqakd.any.TanhWeights"}}
    filled = with_added_keys({"quantizer": dorefa})["quantizer"]
    assert filled["start"] is None
    assert "start" not in filled["weight"], "the class has no such argument"
    resnet = {"net": {"_target_": "sqakd.any.CifarResNet"}}
    assert with_added_keys({"model": resnet}) == {"model": resnet}
    assert with_added_keys({"dataset": {"_target_": "sqakd.any.CIFAR10"}}) == {
        "dataset": {"_target_": "sqakd.any.CIFAR10"}
    }


def test_bits_of_single_layers_are_part_of_the_identity_in_their_order() -> None:
    one, other, none = ({"quantizer": {"layer_bits": bits}} for bits in ({"a": 8, "*": 4}, {"*": 4, "a": 8}, None))
    assert identity(one) == {"quantizer.layer_bits": "a:8, *:4"}
    assert identity(other) == {"quantizer.layer_bits": "*:4, a:8"}
    assert identity(none) == {}, "a run without them is the run of a version that had no such key"


def leaves(config: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
    return found


@pytest.mark.parametrize("key", [key for key in leaves(CONFIG) if key != "quantizer.rounding.delta"])
def test_only_what_decides_the_result_is_identity(key: str) -> None:
    ignored = any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY)
    assert (identity(changed(key, "another")) == identity(CONFIG)) == ignored
    assert (key in identity(CONFIG)) != ignored


def test_identity_ignores_neither_too_much_nor_too_little() -> None:
    assert identity(CONFIG) == {
        "name": "digits-small",
        "seed": 0,
        "recipe.lr": 0.001,
        "recipe.optimizer._target_": "torch.optim.Adam",
        "recipe.gradient_clip": None,
        "dataset.mean": [0.5, 0.5],
        "trainer.precision": "32-true",
        "callbacks.hessian_scaling.batches": 3,
        "dataset.eval_batch_size": 9,
        "quantizer.rounding.delta": "hessian",
    }
    # A key that only begins like an ignored one counts.
    assert identity({"paths_of_mine": 1, "trainer": {"devices_wanted": 2}}) == {
        "paths_of_mine": 1,
        "trainer.devices_wanted": 2,
    }


def test_moving_or_renaming_our_own_classes_keeps_the_identity() -> None:
    before = identity({"kd": {"_target_": "sqakd.kd.base.Objective", "kl": 1.0, "feature_loss": None}})
    after = identity({"kd": {"_target_": "sqakd.kd.objective.WeightedSum", "kl": 1.0, "feature_loss": None}})
    assert before == after == {"kd.kl": 1.0, "kd.feature_loss": None}


def test_the_chosen_options_stand_for_the_classes() -> None:
    spec = Spec(CONFIG, CHOICES, ("quantizer=ewgs",))
    other = Spec(CONFIG, CHOICES | {"kd": "kd"}, ("kd=kd",))
    assert {key: value for key, value in spec.identity.items() if key.startswith("choices.")} == {
        "choices.dataset": "digits",
        "choices.kd": "sqakd",
        "choices.quantizer": "ewgs",
    }
    assert differences(spec.identity, other.identity) == ["choices.kd: sqakd -> kd"]


def test_a_class_given_on_the_command_line_is_part_of_the_identity() -> None:
    override = "recipe.schedule._target_=sqakd.training.schedule.CosinePerEpoch"
    plain, own = Spec(CONFIG, CHOICES, ()), Spec(CONFIG, CHOICES, (override,))
    key = "choices.recipe.schedule._target_"
    assert own.identity[key] == "sqakd.training.schedule.CosinePerEpoch"
    assert differences(plain.identity, own.identity) == [f"{key}: (absent) -> {own.identity[key]}"]


def test_choices_are_not_compared_with_a_run_that_recorded_none() -> None:
    old, new = identity(CONFIG), Spec(CONFIG, CHOICES, ()).identity
    assert old != new
    assert differences(old, new) == differences(new, old) == []


def test_differences_name_both_values() -> None:
    there = {"recipe.lr": 0.001, "seed": 0, "gone": None}
    here = {"recipe.lr": 0.01, "seed": 0, "new": [1, 2]}
    assert differences(there, here) == ["gone: None -> (absent)", "new: (absent) -> [1, 2]", "recipe.lr: 0.001 -> 0.01"]
    assert differences(there, dict(reversed(there.items()))) == []


def test_a_changed_input_makes_another_run_unless_the_old_run_recorded_none() -> None:
    old = Spec(CONFIG, CHOICES, ())
    first, second = (Spec(CONFIG, CHOICES, (), {"teacher": digest}) for digest in ("aa", "bb"))
    assert differences(first.identity, second.identity) == ["inputs.teacher: aa -> bb"]
    assert differences(first.identity, first.identity) == differences(old.identity, second.identity) == []


@pytest.mark.parametrize("quantizer", [None, {"rounding": {}}, {"rounding": {"delta": 0.0}}])
def test_settings_of_the_curvature_count_only_where_it_is_estimated(quantizer: Any) -> None:
    plain = changed("quantizer", quantizer)
    assert not [key for key in identity(plain) if "hessian" in key]
    for other in ({"batches": 5}, {"batches": 3, "batch_size": 64}, None):
        assert identity(plain | {"callbacks": {"hessian_scaling": other}}) == identity(plain)
        assert identity(CONFIG | {"callbacks": {"hessian_scaling": other}}) != identity(CONFIG)


def test_changed_images_make_another_run_unless_one_side_has_no_digest() -> None:
    """An older run of a data set that had no digest may have recorded that of its teacher."""
    old = Spec(CONFIG, CHOICES, (), {"teacher": "t"}).identity
    first, second = (Spec(CONFIG, CHOICES, (), {"teacher": "t", "images": digest}).identity for digest in ("aa", "bb"))
    assert differences(old, first) == differences(first, old) == []
    assert differences(first, second) == ["inputs.images: aa -> bb"]
