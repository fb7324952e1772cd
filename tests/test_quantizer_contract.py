"""The quantizer contract, tested for every file in conf/quantizer; a new file is covered automatically.

Each method quantizes weights (one range, or one per output channel), inputs that follow a ReLU, and inputs with a sign.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from quantizer_cases import BITS, CHANNELS, KINDS, METHODS, ROUNDINGS, Case, scheme_of
from torch import Tensor

from sqakd.advice import explain
from sqakd.quantization.quantizers.base import Quantizer

CASES = [Case(method, kind, bits) for method in METHODS for kind in KINDS for bits in BITS]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
# For properties that hardly depend on the number of bits: the fewest, the most, and one between.
some_cases = pytest.mark.parametrize("case", [case for case in CASES if case.bits in (1, 2, 8)], ids=str)
each_pair = pytest.mark.parametrize(
    "case", [Case(method, kind, 2, rule) for method in METHODS for kind in KINDS for rule in ROUNDINGS], ids=str
)


def gradients(quantizer: Any, x: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of a random weighting of the outputs with respect to `x` and the parameters."""
    leaf = x.clone().requires_grad_()
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    return list(torch.autograd.grad((quantizer(leaf) * weights).sum(), [leaf, *parameters]))


def check_on_grid(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.codes(x)
    assert codes.integers.dtype == torch.int16
    assert codes.integers.shape == x.shape
    assert torch.isin(codes.integers, quantizer.grid()).all()
    assert (codes.scale > 0).all()
    assert codes.scale.isfinite().all()
    points = (quantizer.grid() - codes.zero_point).float()
    steps = quantizer(x).detach() / codes.scale
    nearest = points[torch.searchsorted(points, steps - 0.5).clamp_max(len(points) - 1)]
    assert float((steps - nearest).abs().max()) <= 1e-4


@some_cases
def test_nan_stays_nan(case: Case) -> None:
    """A number in its place would hide from the training that it has diverged."""
    x = case.typical()
    x.view(-1)[0] = torch.nan
    assert case.calibrated()(x).view(-1)[0].isnan()


def test_shipped_methods_are_found() -> None:
    assert {"ewgs", "ste", "ewgs_released"} <= set(METHODS)
    assert {"ste", "ewgs"} <= set(ROUNDINGS)


@each_case
def test_grid_has_a_value_for_each_bit_pattern(case: Case) -> None:
    quantizer = case.calibrated()
    grid = quantizer.grid()
    assert grid.dtype == torch.int16
    assert len(grid) == 2**case.bits
    assert quantizer.largest_code == int(grid.abs().max())
    assert (grid.diff() > 0).all()
    used = quantizer.codes(case.wide()).integers
    assert used.max() == grid[-1]
    if case.kind != "input":  # two's complement has one more negative code, and a symmetric range may end before it
        assert used.min() <= grid[0 if case.bits == 1 else 1]


@each_case
def test_outputs_lie_on_the_grid(case: Case) -> None:
    quantizer = case.calibrated()
    check_on_grid(quantizer, case.typical())
    check_on_grid(quantizer, case.wide())


@each_case
def test_codes_reproduce_the_outputs_exactly(case: Case) -> None:
    quantizer, x = case.calibrated(), case.wide()
    codes = quantizer.codes(x)
    assert torch.equal(codes.scale * (codes.integers - codes.zero_point), quantizer(x))


@some_cases
def test_second_calibration_is_refused(case: Case) -> None:
    quantizer, x = case.make(), case.wide()
    assert not quantizer.calibrated
    quantizer.calibrate(case.typical())
    assert quantizer.calibrated
    before = quantizer(x)
    with pytest.raises(RuntimeError, match="already calibrated"):
        quantizer.calibrate(-case.wide())
    assert torch.equal(quantizer(x), before)


@each_case
def test_state_dict_restores_the_outputs(case: Case) -> None:
    """The state is plain data, and gives a new quantizer the same outputs without another calibration."""
    quantizer, x = case.calibrated(), case.wide()
    for parameter in quantizer.parameters():
        parameter.data.mul_(1.25)  # as after training
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    fresh = case.make()
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(fresh(x), quantizer(x))
    assert torch.equal(fresh.grid(), quantizer.grid())
    with pytest.raises(RuntimeError, match="already calibrated"):
        fresh.calibrate(x)


@some_cases
def test_memory_format_does_not_change_the_outputs(case: Case) -> None:
    quantizer, x = case.calibrated(), case.wide()
    assert torch.equal(quantizer(x.to(memory_format=torch.channels_last)), quantizer(x))


@each_case
def test_input_and_parameters_get_gradients(case: Case) -> None:
    quantizer = case.calibrated()
    dx, *rest = gradients(quantizer, case.wide(), quantizer.parameters())
    assert dx.isfinite().all()
    assert (dx != 0).any()
    for (name, _), gradient in zip(quantizer.named_parameters(), rest, strict=True):
        assert gradient.isfinite().all(), name
        assert (gradient != 0).all(), name


@some_cases
def test_larger_values_never_get_smaller_codes(case: Case) -> None:
    """This holds among the values that share a range."""
    quantizer, x = case.calibrated(), case.wide()
    rows = CHANNELS if case.kind == "channels" else 1
    order = x.reshape(rows, -1).argsort(dim=1)
    assert (quantizer(x).reshape(rows, -1).gather(1, order).diff(dim=1) >= 0).all()


@some_cases
def test_half_precision_gets_the_codes_of_single_precision(case: Case) -> None:
    quantizer, x = case.calibrated(), case.wide().bfloat16()
    assert torch.equal(quantizer.codes(x).integers, quantizer.codes(x.float()).integers)


@some_cases
def test_copy_shares_no_tensor(case: Case) -> None:
    quantizer, x = case.calibrated(), case.wide()
    twin = copy.deepcopy(quantizer)
    before = quantizer(x)
    assert torch.equal(twin(x), before)
    for tensor in [*twin.parameters(), *twin.buffers()]:
        tensor.data.zero_()
    assert torch.equal(quantizer(x), before)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(0, 2), torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])],
    ids=["empty", "nan", "infinite"],
)
@pytest.mark.parametrize("kind", ["weight", "input"])
@pytest.mark.parametrize("method", METHODS)
def test_calibration_on_an_empty_or_non_finite_tensor_is_refused(method: str, kind: str, x: Tensor) -> None:
    quantizer = Case(method, kind, 2).make()
    with pytest.raises(ValueError, match="cannot calibrate on a tensor of shape"):
        quantizer.calibrate(x)
    assert not quantizer.calibrated


@pytest.mark.parametrize(
    "x", [torch.ones(1), torch.full((3, 2), 0.7), torch.zeros(3, 2)], ids=["single", "constant", "zero"]
)
@pytest.mark.parametrize("kind", ["weight", "input"])
@pytest.mark.parametrize("method", METHODS)
def test_constant_tensor_gives_a_usable_range_or_is_refused(method: str, kind: str, x: Tensor) -> None:
    quantizer = Case(method, kind, 2).make()
    try:
        quantizer.calibrate(x)
    except ValueError as error:
        assert "cannot calibrate on a tensor of shape" in str(error)  # noqa: PT017  # both outcomes are right
        assert not quantizer.calibrated
        return
    assert quantizer.calibrated
    values = quantizer(torch.linspace(-20, 20, 9))
    assert torch.isfinite(values).all()
    assert len(values.unique()) > 1


@pytest.mark.parametrize("bits", [0, 9, -1, 2.5, 2.0, True, "2", None])
@pytest.mark.parametrize("kind", ["weight", "input"])
@pytest.mark.parametrize("method", METHODS)
def test_impossible_bits_are_refused(method: str, kind: str, bits: Any) -> None:
    with pytest.raises(ValueError, match=rf"bits={bits!r}: expected a whole number from 1 to 8"):
        Case(method, kind, 2).make(bits=bits)


@pytest.mark.parametrize("method", METHODS)
def test_configuration_sets_the_bits(method: str) -> None:
    scheme = scheme_of(method)
    made = [factory(rounding=scheme.rounding(), shape=()) for factory in (scheme.weight, scheme.input)]
    assert [quantizer.bits for quantizer in made] == [3, 5]


@each_pair
def test_any_range_combines_with_any_rounding(case: Case) -> None:
    quantizer = case.calibrated()
    assert type(quantizer.rounding) is type(scheme_of("ewgs", case.rounding).rounding())
    check_on_grid(quantizer, case.wide())
    for gradient in gradients(quantizer, case.wide(), quantizer.parameters()):
        assert gradient.isfinite().all()
        assert (gradient != 0).any()


# The released ones are slow: they have the ranges and the roundings of the others.
COMPILED = [pytest.param(m, marks=pytest.mark.slow if m.endswith("_released") else ()) for m in METHODS]


@pytest.mark.parametrize("method", COMPILED)
def test_compiled_quantizers_give_the_same_results_in_one_graph(method: str) -> None:
    cases = [Case(method, "weight", 1), Case(method, "weight", 2), Case(method, "input", 2)]
    quantizers = [case.calibrated() for case in cases]

    def all_of_them(x: Tensor) -> Tensor:
        return torch.stack([quantizer(x) for quantizer in quantizers]).prod(dim=0)

    torch._dynamo.reset()
    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    x = cases[0].wide()
    assert torch.equal(compiled(x), all_of_them(x))
    parameters = [parameter for quantizer in quantizers for parameter in quantizer.parameters()]
    for got, wanted in zip(gradients(compiled, x, parameters), gradients(all_of_them, x, parameters), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_channel_of_zeros_is_quantized_or_refused(method: str) -> None:
    """Pruned networks have such channels; a NaN must not stay unnoticed."""
    case = Case(method, "channels", 2)
    quantizer, x = case.make(), case.typical()
    x[2] = 0
    try:
        quantizer.calibrate(x)
    except ValueError as error:
        assert "quantizer.per_channel=false" in explain(error)  # noqa: PT017
        assert not quantizer.calibrated
    else:
        assert all(g.isfinite().all() for g in gradients(quantizer, x, quantizer.parameters()))


@some_cases
@pytest.mark.parametrize("other", [1, 4])
def test_changed_bits_and_calibration_equal_a_new_quantizer(case: Case, other: int) -> None:
    changed, new = case.calibrated(), Case(case.method, case.kind, other).calibrated()
    parameters = [id(p) for p in changed.parameters()]
    changed.set_bits(other)
    changed.calibrated.fill_(False)
    changed.calibrate(case.typical())
    assert [id(p) for p in changed.parameters()] == parameters
    assert torch.equal(changed.grid(), new.grid())
    x = case.wide()
    assert torch.equal(changed(x), new(x))
    assert torch.equal(changed.codes(x).integers, new.codes(x).integers)
    before, after = (gradients(q, x, q.parameters()) for q in (changed, new))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("bits", [0, 9, 2.0, True])
def test_change_to_impossible_bits_is_refused(bits: Any) -> None:
    quantizer = Case("ewgs", "weight", 2).make()
    with pytest.raises(ValueError, match="expected a whole number from 1 to 8"):
        quantizer.set_bits(bits)
    assert quantizer.bits == 2
