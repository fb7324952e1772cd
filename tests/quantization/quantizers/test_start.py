"""Where a range starts: each choice of `start`, for each quantizer that has a range, per tensor and per channel."""

from __future__ import annotations

from typing import Any

import pytest
import small
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from quantizer_cases import METHODS, Case
from torch import Tensor

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.runs.spec import identity

WITH_RANGE = [(method, kind) for method in ("ewgs", "lsq") for kind in ("weight", "channels", "input", "signed")]
WITH_RANGE += [("pact", "input"), ("pact", "signed")]
each_range = pytest.mark.parametrize(
    "case", [Case(method, kind, bits) for method, kind in WITH_RANGE for bits in (1, 2, 4)], ids=str
)


def started(case: Case, start: str, x: Tensor | None = None) -> Quantizer:
    quantizer = case.make(start=start)
    quantizer.calibrate(case.typical() if x is None else x)
    return quantizer


def errors(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Return the mean squared rounding error of each range."""
    rows = quantizer.as_rows(x)
    return (quantizer.restore(rows) - rows).square().flatten(1).mean(dim=1).detach()


@each_range
def test_least_error_is_never_above_the_others(case: Case) -> None:
    x = case.typical()
    least = errors(started(case, "mse"), x)
    for start in ("paper", "max"):
        assert (least <= errors(started(case, start), x) * (1 + 1e-5)).all(), start


@each_range
def test_least_error_is_that_of_a_fine_search(case: Case) -> None:
    """Ranges between the candidates and beyond them are hardly better."""
    x = case.typical()
    quantizer = started(case, "mse")
    least = errors(quantizer, x)
    with torch.no_grad():
        for share in torch.linspace(0.02, 1.0, 333).tolist():
            quantizer.cover(quantizer.as_rows(x), share)
            assert (least <= errors(quantizer, x) * 1.03).all(), share


@each_range
def test_largest_value_is_covered(case: Case) -> None:
    """No value is rounded over more than half a step, except the lowest code's missing twin of two's complement."""
    quantizer, x = started(case, "max"), case.typical()
    rows = quantizer.as_rows(x)
    top = rows.flatten(1).abs().argmax(dim=1, keepdim=True)
    found = quantizer.restore(rows).detach().flatten(1).gather(1, top)
    wanted = rows.flatten(1).gather(1, top)
    if case.method == "ewgs" and case.kind == "signed":  # the bounds are the smallest and the largest value
        assert torch.equal(quantizer.get_parameter("lower").detach(), x.min())
        assert torch.equal(quantizer.get_parameter("upper").detach(), x.max())
    else:
        step = wanted.abs() / max(int(quantizer.grid()[-1]), 1)
        assert ((found - wanted).abs() <= step * 0.5 + 1e-5).all()


@pytest.mark.parametrize(("method", "kind"), WITH_RANGE)
def test_default_is_the_rule_of_the_paper(method: str, kind: str) -> None:
    case = Case(method, kind, 2)
    default, paper, least = case.calibrated(), started(case, "paper"), started(case, "mse")
    x = case.wide()
    assert torch.equal(default(x), paper(x))
    assert default.extra_repr() == paper.extra_repr()
    if method != "pact":  # alpha=calibrate is that search
        assert not torch.equal(least(x), paper(x))


@pytest.mark.parametrize("method", ["ewgs", "lsq"])
@pytest.mark.parametrize("start", ["mse", "max"])
def test_channels_are_started_one_by_one(method: str, start: str) -> None:
    case = Case(method, "channels", 2)
    x = case.typical() * torch.arange(1, 7).view(-1, 1, 1, 1)
    whole = started(case, start, x)
    for i in range(len(x)):
        alone = Case(method, "weight", 2).make(start=start)
        alone.calibrate(x[i : i + 1])
        assert torch.allclose(whole(x)[i], alone(x[i : i + 1])[0], atol=1e-6)


@pytest.mark.parametrize("start", ["mse", "max"])
def test_one_bit_uses_both_codes_of_rectified_inputs(start: str) -> None:
    """The paper's rule starts so high that only 7 % of the codes of a rectified normal variable are 1."""
    x = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)).relu()
    shares = {}
    for choice in ("paper", start):
        quantizer = started(Case("ewgs", "input", 1), choice, x)
        shares[choice] = float((quantizer.codes(x).integers == 1).float().mean())
    assert shares["paper"] < 0.08
    assert (shares["mse"] > 0.2) if start == "mse" else (shares["max"] < 0.08)


def test_values_far_above_zero_get_a_range_that_is_not_empty() -> None:
    x = 100 + torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    for start in ("mse", "max"):
        quantizer = started(Case("ewgs", "input", 2), start, x)
        assert set(quantizer.codes(x).integers.flatten().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("start", ["mse", "max"])
def test_constant_clip_is_replaced(start: str) -> None:
    case = Case("pact", "input", 2)
    x = case.typical()
    quantizer: Any = case.make(alpha=6.0, start=start)
    quantizer.calibrate(x)
    assert float(quantizer.alpha.detach()) != 6.0
    assert (errors(quantizer, x) <= errors(started(case, "max"), x)).all()


@pytest.mark.parametrize("method", ["ewgs", "lsq", "pact"])
def test_unknown_start_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="start='best': expected paper, mse or max"):
        Case(method, "input", 2).make(start="best")


STARTING = [method for method in METHODS if small.config(f"quantizer={method}").quantizer.start is not None]


def starts(*overrides: str) -> list[str]:
    """Return the start of the range of weights and of that of inputs, as far as the method has one."""
    scheme = small.scheme(*overrides)
    made = [make(rounding=scheme.rounding(), shape=()) for make in (scheme.weight, scheme.input)]
    return [quantizer.start for quantizer in made if quantizer.range_names]


@pytest.mark.parametrize("method", STARTING)
def test_one_key_starts_all_ranges_of_a_method(method: str) -> None:
    assert starts(f"quantizer={method}") == ["paper"] * (1 if "pact" in method else 2)
    for start in ("mse", "max"):
        assert set(starts(f"quantizer={method}", f"quantizer.start={start}")) == {start}
    found = starts(f"quantizer={method}", "quantizer.start=mse", "quantizer.input.start=max")
    assert found == ["mse", "max"][-len(found) :], "the key of one range has the last word"


@pytest.mark.parametrize("method", [method for method in METHODS if method not in STARTING])
def test_a_method_without_such_a_range_names_those_that_have_one(method: str) -> None:
    assert starts(f"quantizer={method}") == []
    with pytest.raises(InstantiationException) as raised:
        small.scheme(f"quantizer={method}", "quantizer.start=mse")
    error = raised.value.__cause__
    assert isinstance(error, SqakdError)
    message = explain(error)
    assert message.startswith("start=mse: expected null, because this method has no range whose start can be chosen; ")
    named = message.rpartition("quantizer=")[2].removesuffix(", also as released, have one").replace(" and ", ", ")
    assert {name.removesuffix("_released") for name in STARTING} == set(named.split(", "))


@pytest.mark.parametrize("method", STARTING)
def test_the_short_and_the_long_form_are_the_same_run(method: str) -> None:
    nodes = small.config(f"quantizer={method}").quantizer
    long = [f"quantizer.{tensor}.start=mse" for tensor in ("weight", "input") if "start" in nodes[tensor]]

    def values(*overrides: str) -> dict[str, Any]:
        config: Any = OmegaConf.to_container(small.config(f"quantizer={method}", *overrides))
        return identity(config)

    short, typed, paper = values("quantizer.start=mse"), values(*long), values()
    assert short == typed
    assert {key for key in paper if paper[key] != short[key]} - {"name"} == {
        override.split("=")[0] for override in long
    }
    assert short["name"] == paper["name"].replace("-w2a2", "+mse-w2a2")
