"""Every file under conf/ composes and gives exactly the arguments that its class takes; the parts fit together."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import pytest
import torch
from hydra import initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_object, instantiate

from sqakd.app.compose import changes, compose_spec
from sqakd.app.overrides import float_run_overrides
from sqakd.runs.spec import Spec

CONF = command.ROOT / "conf"
# conf/base has what the options of a group have in common; its files are no options themselves.
FILES = sorted(
    file for file in CONF.glob("*/**/*.yaml") if file.relative_to(CONF).parts[0] not in ("base", "hydra", "local")
)
OPTIONS = [f"{file.parent.relative_to(CONF).as_posix()}={file.stem}" for file in FILES]
FLOAT = "digits-resnet20-none-w32a32-none"
# Arguments that the run adds when it constructs the object.
GIVEN_LATER = {"num_classes", "shape", "rounding", "params"}

# Options whose package is no dependency of the project.
NEEDS = {"logger=tensorboard": "tensorboard", "model=timm": "timm"}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def options(group: str) -> list[str]:
    return [file.stem for file in FILES if file.parent == CONF / group]


@functools.cache
def spec(*overrides: str) -> Spec:
    """Compose a command, once; values that only a user can give are filled in."""
    try:
        return compose_spec(list(overrides))
    except ValueError as error:
        missing = re.findall(r"use ([a-z_.]+)=VALUE", str(error))
        return compose_spec([*overrides, *(f"{key}=given" for key in missing)])


@functools.cache
def shape_of_logits(net: str) -> tuple[int, ...]:
    """Construct the network of a node, given as JSON, and apply it to two images; options share their networks."""
    with torch.device("meta"):  # shapes without numbers: nothing is drawn or copied
        return tuple(instantiate(json.loads(net), num_classes=10)(torch.zeros(2, 3, 224, 224)).shape)


def nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every node that has a `_target_`, at any depth."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from nodes(value)


def keys(node: dict[str, Any]) -> set[str]:
    return {key for key in node if not key.startswith("_")}


def is_ours(target: str) -> bool:
    return target.startswith("sqakd.")


def arguments(target: str) -> dict[str, inspect.Parameter]:
    """Return the named arguments of a callable; a class of ours with **arguments also takes its base's."""
    made = get_object(target)
    found: dict[str, inspect.Parameter] = {}
    for step in made.__mro__ if inspect.isclass(made) and is_ours(target) else [made]:
        parameters = inspect.signature(step).parameters.values()
        found = {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def test_there_is_something_to_check() -> None:
    groups = {option.partition("=")[0] for option in OPTIONS}
    assert {"quantizer", "quantizer/rounding", "model", "kd", "dataset", "recipe", "trainer", "callbacks"} <= groups
    assert {"quantizer=ewgs", "logger=wandb", "debug=tiny"} <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_composes_and_gives_what_its_classes_take(option: str) -> None:
    found = list(nodes(spec(option).config))
    assert len(found) >= 10
    for node in found:
        target, takes = node["_target_"], arguments(node["_target_"])
        assert keys(node) <= takes.keys(), f"{target} does not take these"
        required = {name for name, parameter in takes.items() if parameter.default is parameter.empty}
        assert required - keys(node) <= GIVEN_LATER, f"{target} needs these"
        if is_ours(target):
            assert takes.keys() - keys(node) <= GIVEN_LATER, f"{target} hides a value in Python"
            if not target.startswith("sqakd.quantization."):  # a library of quantizers, which scripts use as well
                assert required == takes.keys(), f"{target} hides a value in Python"
            assert {p.kind for p in takes.values()} <= {inspect.Parameter.KEYWORD_ONLY}, target


@pytest.mark.exhaustive
def test_the_same_class_has_the_same_keys_everywhere() -> None:
    """A sweep over the options of a group can then override any key that one of them has."""
    shapes: dict[str, set[frozenset[str]]] = defaultdict(set)
    for option in OPTIONS:
        for node in nodes(spec(option).config):
            if is_ours(node["_target_"]):
                shapes[node["_target_"]].add(frozenset(keys(node)))
    assert len(shapes) >= 10
    assert {target: several for target, several in shapes.items() if len(several) > 1} == {}


@pytest.mark.parametrize("group", ["kd", "recipe", "dataset"])
def test_a_base_file_is_no_option(group: str) -> None:
    assert (CONF / "base" / f"{group}.yaml").exists()
    with pytest.raises(MissingConfigException, match=f"Could not find '{group}/base'"):
        compose_spec([f"{group}=base"])


def test_all_trainers_have_the_same_keys() -> None:
    assert len({frozenset(spec(f"trainer={option}").config["trainer"]) for option in options("trainer")}) == 1


@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "logger=wandb"])
def test_the_parts_of_each_option_can_be_constructed(option: str) -> None:
    if option in NEEDS:
        pytest.importorskip(NEEDS[option])
    config = spec(option).config
    for part in ("dataset", "kd", "recipe", "callbacks", "logger", "quantizer", "plus"):
        instantiate(config.get(part))
    for net in (config["model"]["net"], config["teacher"]["net"]):
        assert shape_of_logits(json.dumps(net)) == (2, 10)


@pytest.mark.parametrize(
    "override", ["bit=2", "teacher.bit=2", "recipe.epoch=3", "quantizer.rounding.dleta=1", "trainer.compiled=true"]
)
def test_a_misspelt_key_is_refused(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match=f"Could not override '{override.partition('=')[0]}'"):
        compose_spec([override])


@pytest.mark.parametrize("group", ["quantizer", "quantizer/rounding", "model", "kd", "dataset", "recipe", "trainer"])
def test_a_misspelt_choice_is_refused(group: str) -> None:
    with pytest.raises(MissingConfigException, match=rf"Could not find '{group}/ewgss'(.|\n)*{options(group)[-1]}"):
        compose_spec([f"{group}=ewgss"])


def test_the_command_lists_the_choices(tmp_path: Path) -> None:
    done = command.train("quantizer=ewgss", runs=tmp_path / "runs")
    assert done.returncode == 1
    assert {"ewgs", "none"} <= set(options("quantizer"))
    assert set(options("quantizer")) <= set(done.stderr.replace(",", "").split())
    assert done.stderr.startswith("error: quantizer=ewgss: no such option; did you mean ewgs? expected ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "digits-resnet20-ewgs-w2a2-sqakd"),
        (["bits=8"], "digits-resnet20-ewgs-w8a8-sqakd"),
        (["w_bits=1", "a_bits=4"], "digits-resnet20-ewgs-w1a4-sqakd"),
        (["bits=3", "a_bits=8"], "digits-resnet20-ewgs-w3a8-sqakd"),
        (["quantizer=none"], FLOAT),
        (["quantizer=none", "model=resnet32", "dataset=cifar100"], "cifar100-resnet32-none-w32a32-none"),
        (["quantizer=ste", "kd=kd", "seed=3", "recipe.lr=0.5"], "digits-resnet20-ste-w2a2-kd"),
        (["model@teacher=resnet32"], "digits-resnet20-ewgs-w2a2-sqakd"),
        (["name=mine"], "mine"),
    ],
)
def test_a_run_is_named_by_its_choices_and_bits(overrides: list[str], name: str) -> None:
    assert spec(*overrides).config["name"] == name


@pytest.mark.parametrize("dataset", options("dataset"))
def test_without_a_quantizer_a_run_has_the_labels_alone_and_the_float_recipe(dataset: str) -> None:
    quantized, unquantized = spec(f"dataset={dataset}"), spec(f"dataset={dataset}", "quantizer=none")
    assert (quantized.choices["kd"], quantized.choices["recipe"]) == ("sqakd", dataset)
    assert (unquantized.choices["kd"], unquantized.choices["recipe"]) == ("none", f"{dataset}_float")
    assert unquantized.config["quantizer"] is None
    assert unquantized.config["recipe"] == quantized.config["teacher"]["recipe"] != quantized.config["recipe"]


def test_the_teacher_may_be_another_network() -> None:
    same, other = spec("model=resnet32").config, spec("model@teacher=resnet32").config
    assert same["teacher"]["net"] == same["model"]["net"]
    assert other["teacher"]["net"] == same["model"]["net"]
    assert other["model"] == spec().config["model"] != same["model"]


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    "overrides",
    [
        *[[f"dataset={dataset}", "bits=3"] for dataset in options("dataset")],
        *[[f"experiment={experiment}"] for experiment in options("experiment")],
        ["recipe@teacher.recipe=cifar100_float"],
        ["teacher.recipe.epochs=3", "teacher.recipe.lr=0.5", "recipe.epochs=7"],
        ["recipe@teacher.recipe=cifar10", "teacher.recipe.optimizer.fused=false", "model@teacher=resnet32"],
        ["debug=tiny", "recipe.lr=0.2"],
    ],
)
def test_the_float_run_has_the_recipe_in_its_students_teacher_node(overrides: list[str], role: str) -> None:
    shown = spec(*overrides)
    assert spec(*float_run_overrides(shown, role)).config["recipe"] == shown.config["teacher"]["recipe"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["quantizer=lsq", "bits=3", "seed=4", "kd=none"], {}),
        (["dataset=tiny_imagenet", "model=vgg11", "quantizer=pact_released", "bits=4", "kd=sqakd_released"], {}),
        (["dataset=cifar10", "model=vgg8", "quantizer=none"], {}),
        (["experiment=best_w1a1"], {"quantizer.input.start": "mse", "quantizer.weight.start": "mse"}),
        (["dataset=tiny_imagenet", "model=squeezenet1_0", "quantizer=lsq_released", "bits=4", "kd=none_matched"], {}),
        (["dataset=imagefolder", "dataset.folder=photos"], {"dataset.folder": "photos"}),
        (["model=torchvision", "model.arch=resnet18"], {}),
        (["quantizer=pact", "quantizer/rounding=ewgs"], {}),
        (["name=mine", "trainer.compile=true", "logger=none"], {}),
        (["plus=[cutmix,ema]"], {}),
        (["plus=bn", "kd=dist"], {}),
        (["recipe.epochs=3"], {"recipe.epochs": 3}),
        (["recipe.epochs=100"], {"recipe.epochs": 100}),
        (["quantizer.per_channel=true"], {"quantizer.per_channel": True}),
        (["dataset.image_size=16"], {"dataset.image_size": 16}),
        (["teacher.checkpoint=file.pt"], {"teacher.checkpoint": "file.pt"}),
    ],
)  # fmt: skip
def test_changes_are_the_values_that_differ_from_the_choices(overrides: list[str], expected: dict[str, Any]) -> None:
    assert changes(compose_spec(overrides)) == expected


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["quantizer=pact"], "digits-resnet20-pact-w2a2-sqakd"),
        (["quantizer=pact", "quantizer/rounding=ewgs"], "digits-resnet20-pact+ewgs-w2a2-sqakd"),
    ],
)
def test_another_rounding_is_in_the_name(overrides: list[str], name: str) -> None:
    assert compose_spec(overrides).config["name"] == name
