"""Compiled code for batches of one size, and the way back if nothing can be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from sqakd.training.compiled_step import CompiledStep


def twice(images: Tensor) -> Tensor:
    return images * 2


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let torch compile to Python, and collect the batch size of each compiled graph."""
    torch._dynamo.reset()
    found: list[int] = []
    compile = torch.compile

    def backend(graph: Any, inputs: list[Tensor], **options: Any) -> Any:
        found.append(len(inputs[0]))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=backend, **options))
    return found


@pytest.fixture
def no_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


def test_batches_of_another_size_are_not_compiled(graphs: list[int]) -> None:
    step = CompiledStep(twice, size=4)
    for size in (3, 4, 3, 4, 1):
        assert torch.equal(step(torch.ones(size)), torch.full((size,), 2.0))
    assert graphs == [4]
    assert step.seconds > 0


def test_code_is_for_one_size_also_after_a_run_with_another_size(graphs: list[int]) -> None:
    for size in (4, 6, 8):
        CompiledStep(twice, size=size)(torch.ones(size))
    assert graphs == [4, 6, 8], "torch generalises to any size after the second one, unless `dynamic=False`"


def test_a_failed_compilation_is_reported_once_and_the_step_stays_eager(no_compiler: None) -> None:
    reasons: list[str] = []
    step = CompiledStep(twice, size=None, on_failure=reasons.append)
    x = torch.randn(7, requires_grad=True)
    for _ in range(2):
        assert torch.equal(step(x), x * 2)
    assert len(reasons) == 1
    assert "C++ compiler" in reasons[0]
    assert "\n" not in reasons[0]


def test_without_a_way_back_the_error_is_raised(no_compiler: None) -> None:
    with pytest.raises(BackendCompilerFailed, match=r"C\+\+ compiler"):
        CompiledStep(twice, size=None)(torch.randn(9))


def test_a_mistake_in_the_function_is_no_failed_compilation(graphs: list[int]) -> None:
    def wrong(images: Tensor) -> Tensor:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        CompiledStep(wrong, size=None, on_failure=pytest.fail)(torch.ones(2))
