"""`import sqakd`: its names, its start-up, and the two names that are modules as well."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import command
import pytest

import sqakd
import sqakd.export.pipeline
import sqakd.predict
import sqakd.sensitivity
from sqakd.face import FACE, find


def test_the_face_is_what_all_lists() -> None:
    assert {*FACE, "__version__"} == set(sqakd.__all__)
    assert set(sqakd.__all__) <= set(dir(sqakd))


def test_importing_the_package_imports_no_other_package() -> None:
    code = "import sqakd, sys; print([n for n in ('torch', 'numpy', 'hydra', 'pytorch_lightning') if n in sys.modules])"
    done = command.script("-c", code, folder=command.ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        sqakd.quantise  # noqa: B018


@pytest.mark.parametrize("name", sorted(FACE))
def test_each_name_has_types_and_a_docstring_with_an_example(name: str) -> None:
    made = find(name)
    assert ">>> " in (inspect.getdoc(made) or ""), name
    if inspect.isfunction(made):
        parameters = inspect.signature(made).parameters.values()
        assert all(p.annotation is not p.empty for p in parameters)
        assert inspect.signature(made).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", ["export", "predict", "sensitivity"])
def test_a_module_of_the_face_can_be_called_after_its_import(name: str) -> None:
    assert getattr(sqakd, name) is sys.modules[f"sqakd.{name}"]
    module: Any = getattr(sqakd, name)
    assert inspect.signature(module) == inspect.signature(find(name))
    with pytest.raises(TypeError, match=rf"{name}\(\) missing"):
        module()
