"""Every value of a configuration has the type that its constructor's annotation says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

import command
import pytest
from hydra import initialize_config_dir
from torchvision.models import ResNet18_Weights

from sqakd.app import signatures
from sqakd.app.compose import compose_spec
from sqakd.app.schema import check_config
from sqakd.app.signatures import check_arguments, check_node
from sqakd.errors import SqakdError
from sqakd.runs.spec import Spec


@pytest.fixture
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield


# Together these have every constructor of the groups that a training constructs.
CHOICES = [
    ("quantizer=ewgs", "kd=cktf", "plus=[cutmix,ema,bn,dampen,progressive]", "dataset=tiny_imagenet"),
    ("quantizer=lsq", "kd=squat", "plus=trivial", "dataset=imagefolder", "dataset.folder=x"),
    ("quantizer=pact", "kd=ft", "logger=tensorboard", "model=torchvision", "model.arch=resnet50"),
    ("quantizer=dorefa", "kd=vid", "dataset=cifar10", "logger=wandb"),
]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path and the value of every plain value in a configuration."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    elif not str(path[-1]).startswith("_"):
        yield path, value


def changed(original: Spec, path: Sequence[Any], value: Any) -> Spec:
    """Return a specification with another value at a path."""
    config = copy.deepcopy(original.config)
    node: Any = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return Spec(config, original.choices, original.overrides)


def refused(one: Spec) -> bool:
    """Return whether a specification is refused."""
    try:
        check_config(one)
    except SqakdError:
        return True
    return False


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: choices[0])
@pytest.mark.usefixtures("hydra")
def test_no_value_of_any_key_may_have_a_wrong_type(choices: tuple[str, ...]) -> None:
    """Text is no flag and no number, a flag is no number, and a number is no flag and no text."""
    original = compose_spec(choices)
    check_config(original)
    wrong: dict[type, list[Any]]
    wrong = {bool: ["off", 1], int: ["x", True, [1]], float: ["x", True, float("nan")], str: [True, 1.5, {"a": 1}]}
    accepted = [
        (path, other)
        for path, value in leaves(original.config)
        for other in wrong.get(type(value), [])
        if not refused(changed(original, path, other))
    ]
    # These take several types.
    several = {"signed", "alpha", "delta", "weights", "first_last", "devices", "precision", "deterministic", "plan"}
    several |= {"stages", "fused", "version", "compile"}
    assert [case for case in accepted if not several & set(case[0])] == []


@pytest.fixture(autouse=True)
def own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the classes of this file count as the project's own, whose base classes are known."""
    monkeypatch.setattr(signatures, "OWN", ("sqakd.", __name__))


@pytest.mark.usefixtures("hydra")
def test_nan_is_refused_where_no_annotation_names_a_number() -> None:
    original = compose_spec(["plus=progressive"])
    stage = ("plus", "progressive", "stages", 0, "share")
    with pytest.raises(SqakdError, match=r"^plus\.progressive\.stages\[0\]\.share=nan: expected a number$"):
        check_config(changed(original, stage, float("nan")))


class Base:
    def __init__(self, *, size: int, names: Sequence[str]) -> None: ...


class Derived(Base):
    def __init__(self, *, rate: float | None, kind: Literal["a", "b"], **common: Any) -> None: ...


class User:
    def __init__(self, *, base: Base | None, make: Callable[..., Base]) -> None: ...


GOOD = {"_target_": f"{__name__}.Derived", "size": 1, "names": ["x"], "rate": 0.5, "kind": "a"}


def own(name: str) -> str:
    return f"{__name__}.{name}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "1"}, "node.size=1: expected a whole number"),
        ({"size": True}, "node.size=true: expected a whole number"),
        ({"size": 1.0}, "node.size=1.0: expected a whole number"),
        ({"rate": "x"}, "node.rate=x: expected a finite number or null"),
        ({"rate": float("inf")}, "node.rate=inf: expected a finite number or null"),
        ({"names": "x"}, "node.names=x: expected a list, each item text"),
        ({"names": [1]}, "node.names=[1]: expected a list, each item text"),
        ({"kind": "c"}, "node.kind=c: expected a or b"),
        ({"kinds": "a"}, "node.kinds=a: no such key; did you mean kind? expected kind, names, rate or size"),
        ({"_target_": "nowhere.Class"}, "node._target_=nowhere.Class: expected the import path of a class"),
        ({"_target_": 3}, "node._target_=3: expected the import path of a class"),
    ],
)
def test_the_message_names_key_value_and_type(change: dict[str, Any], message: str) -> None:
    check_node(GOOD, "node")
    with pytest.raises(SqakdError) as error:
        check_node(GOOD | change, "node")
    assert str(error.value) == message


def test_a_missing_argument_is_named_unless_it_comes_later() -> None:
    node = {key: value for key, value in GOOD.items() if key != "names"}
    with pytest.raises(SqakdError, match=r"^node\.names is missing: expected a list, each item text$"):
        check_node(node, "node")
    check_node(node | {"_partial_": True}, "node")


def test_a_node_constructs_what_the_argument_expects() -> None:
    user = {"_target_": own("User"), "base": GOOD, "make": GOOD | {"_partial_": True}}
    check_node(user, "node")
    other = {"_target_": own("User"), "_partial_": True}
    for change, message in (
        ({"base": other | {"_partial_": False}}, "node.base._target_="),
        ({"make": other}, "node.make._target_="),
        ({"base": GOOD | {"_partial_": True}}, "node.base._partial_=true: expected false"),
        ({"make": GOOD}, "node.make: expected a factory; use node.make._partial_=true"),
        ({"make": GOOD | {"_partial_": "yes"}}, "node.make._partial_=yes: expected true or false"),
    ):
        with pytest.raises(SqakdError) as error:
            check_node(user | change, "node")
        assert str(error.value).startswith(message)


def test_text_that_yaml_reads_as_a_number_is_explained() -> None:
    def function(name: str) -> None: ...

    with pytest.raises(SqakdError, match=r"""^name=2026: expected text; for text use name='"2026"'$"""):
        check_arguments({"name": 2026}, function, "")


def test_types_of_other_packages_may_have_plain_values() -> None:
    """Only a type that is understood is checked: an enum may be given by name, and a bare list may hold anything."""

    def function(weights: ResNet18_Weights | None, sizes: list, place: PurePath, anything: Iterable[int]) -> None: ...  # type: ignore[type-arg]

    check_arguments({"weights": "DEFAULT", "sizes": [1, "x"], "place": "a/b", "anything": [1]}, function, "")
    with pytest.raises(SqakdError, match=r"^sizes=x: expected a list$"):
        check_arguments({"sizes": "x"}, function, "")


def test_annotations_that_cannot_be_read_are_not_checked() -> None:
    check_node({"_target_": "pytorch_lightning.loggers.WandbLogger", "name": "x"}, "logger.w")
