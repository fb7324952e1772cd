"""Rounding rules against their equations in float64, at the edges of the range, and their second derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sqakd.quantization.quantizers import pieces
from sqakd.quantization.quantizers.clip_round import Mask, clip_round
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling, StraightThrough

Array = NDArray[np.float64]
DELTAS = [None, 0.0, 0.001, 0.3]
RANGES = [(0, 1), (0, 3), (-2, 1), (-8, 7), (0, 255)]


class Result(NamedTuple):
    """Codes, and gradients of their weighted sum."""

    codes: Tensor
    dx: Tensor
    d_origin: Tensor
    d_density: Tensor


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def run(
    x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: float | None, g: Tensor
) -> Result:
    leaves = [None if tensor is None else tensor.clone().requires_grad_() for tensor in (x, origin, density)]
    scaling = None if delta is None else torch.tensor(delta, dtype=density.dtype)
    values, start, codes_per_unit = leaves
    assert values is not None
    assert codes_per_unit is not None
    codes = clip_round(values, start, codes_per_unit, low, high, mask, scaling)
    found = iter(torch.autograd.grad(codes, [leaf for leaf in leaves if leaf is not None], g))
    return Result(codes.detach(), next(found), next(found) if start is not None else torch.zeros(()), next(found))


def formula(
    x: Array, origin: Array, density: Array, low: int, high: int, mask: Mask, delta: float | None, g: Array
) -> tuple[Array, Array, Array, Array]:
    """Return codes and gradients by the module's equations; with channels, sums run over all but the first axis."""
    h = (x - origin) * density
    code = np.clip(np.rint(h), low, high)
    judged = h if mask == "value" else np.rint(h)
    inside = (judged >= low) & (judged <= high)
    scaled = g * (1 + (delta or 0.0) * np.sign(g) * (h - code) / (high - low))
    passed = np.where(inside, scaled, 0.0)
    axes = tuple(range(x.ndim)) if origin.ndim == 0 else tuple(range(1, x.ndim))
    keep = origin.ndim > 0
    return (
        code,
        passed * density,
        -(passed * density).sum(axis=axes, keepdims=keep),
        (passed * (x - origin)).sum(axis=axes, keepdims=keep),
    )


def close(got: Tensor, wanted: Array, tolerance: float) -> bool:
    return bool(
        np.allclose(got.double().numpy(), wanted, rtol=tolerance, atol=tolerance * max(1, np.abs(wanted).max()))
    )


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("mask", ["value", "code"])
@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_codes_and_gradients_equal_the_formula(
    low: int, high: int, delta: float | None, mask: Mask, per_channel: bool
) -> None:
    shape = (4, 1, 1, 1) if per_channel else ()
    x, g = numbers(4, 3, 5, 5, seed=1), numbers(4, 3, 5, 5, seed=2)
    origin = 0.3 * np.asarray(numbers(*shape, seed=3))
    density = (high - low) * (0.4 + 0.1 * np.abs(np.asarray(numbers(*shape, seed=4))))
    wanted = formula(x, origin, density, low, high, mask, delta, g)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        values, start, codes_per_unit, incoming = (
            torch.from_numpy(np.asarray(a)).to(dtype) for a in (x, origin, density, g)
        )
        got = run(values, start, codes_per_unit, low, high, mask, delta, incoming)
        assert np.array_equal(got.codes.numpy(), wanted[0])
        assert len(np.unique(wanted[0])) > min(high - low, 20) / 2
        for name, a, b in zip(Result._fields[1:], got[1:], wanted[1:], strict=True):
            assert a.dtype == dtype
            assert close(a, b, tolerance), (name, dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mask", ["value", "code"])
@pytest.mark.parametrize("delta", [None, 0.0, 0.3])
@pytest.mark.parametrize("has_origin", [True, False])
def test_pieces_equal_the_whole(
    has_origin: bool,
    delta: float | None,
    mask: Mask,
    memory_format: torch.memory_format,
    dtype: torch.dtype,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large tensors on a CPU are worked on in pieces; a gradient may lie in memory in another order."""
    x, g = (torch.from_numpy(numbers(4, 3, 5, 6, seed=seed)).to(dtype) for seed in (1, 2))
    x = x.to(memory_format=memory_format)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    origin = torch.tensor(-0.9, dtype=exact) if has_origin else None
    density = torch.tensor(3 / 2.1, dtype=exact)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    whole = run(x, origin, density, 0, 3, mask, delta, g)
    monkeypatch.setattr(pieces, "PIECE", 7)
    with torch.no_grad():
        assert pieces.splits(x, density)
    parts = run(x, origin, density, 0, 3, mask, delta, g)
    assert torch.equal(parts.codes, whole.codes)
    torch.testing.assert_close(parts.dx, whole.dx)  # the products may be fused with the sum
    assert parts.dx.stride() == x.stride()
    torch.testing.assert_close(parts.d_origin, whole.d_origin)
    torch.testing.assert_close(parts.d_density, whole.d_density)


class Passes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that read a whole piece."""

    def __init__(self, piece: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.piece = piece
        self.count = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        reads = any(isinstance(arg, Tensor) and arg.numel() == self.piece for arg in args)
        self.count += reads and not operation.is_view
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("delta", "origin", "frozen", "wanted"),
    [
        (None, None, False, 4),
        (None, None, True, 3),
        (0.0, None, False, 4),
        (0.0, 0.1, False, 6),
        (0.0, 0.1, True, 4),
        (0.3, 0.1, False, 10),
    ],
)
def test_a_gradient_in_pieces_takes_few_passes(
    delta: float | None, origin: float | None, frozen: bool, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen ranges, as in a stage before the training, need no sums."""
    monkeypatch.setattr(pieces, "PIECE", 50)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x = torch.linspace(-1, 2, 300).reshape(2, 3, 5, 10).requires_grad_()
    start = None if origin is None else torch.tensor(origin, requires_grad=not frozen)
    scaling = None if delta is None else torch.tensor(delta)
    codes = clip_round(x, start, torch.tensor(3.0, requires_grad=not frozen), 0, 3, "value", scaling)
    g = torch.ones_like(codes)
    with Passes(50) as passes:
        codes.backward(g)  # type: ignore[no-untyped-call]
    assert passes.count == wanted * 300 / 50


def test_only_large_dense_tensors_with_one_range_are_split() -> None:
    one, dense = torch.ones(()), torch.zeros(8, 16, 64, 64)
    with torch.no_grad():
        assert pieces.splits(dense, one)
        assert pieces.splits(dense.to(memory_format=torch.channels_last), one)
        assert not pieces.splits(dense[:1, :1], one)
        assert not pieces.splits(dense, torch.ones(8, 1, 1, 1))
        assert not pieces.splits(dense.transpose(0, 1), one)
        assert not pieces.splits(torch.zeros(1).expand(dense.shape), one)
        with FakeTensorMode() as mode:
            assert not pieces.splits(mode.from_tensor(dense), one), "it has no numbers to read"
    assert not pieces.splits(dense, one), "the gradient may be differentiated again"


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("mask", ["value", "code"])
def test_scaling_of_zero_is_straight_through_bit_for_bit(mask: Mask, low: int, high: int) -> None:
    x, g = (torch.from_numpy(numbers(7, 5, seed=seed)).float() for seed in (1, 2))
    origin, density = torch.tensor(-0.7), torch.tensor((high - low) / 2.1)
    straight, zero = (run(x, origin, density, low, high, mask, delta, g) for delta in (None, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(straight, zero, strict=True))
    scaled = run(x, origin, density, low, high, mask, 0.1, g)
    assert torch.equal(scaled.codes, zero.codes)
    assert not torch.equal(scaled.dx, zero.dx)


@pytest.mark.parametrize("steps", [1, 3, 7, 15, 31, 63, 127, 255])
def test_values_on_both_edges_pass_their_gradient(steps: int) -> None:
    """This holds although (upper - lower) times its own rounded reciprocal may differ from 1."""
    for lower, upper in [(0.0, 6.0), (0.0, 1.0), *(sorted(pair) for pair in numbers(200, 2, seed=steps))]:
        edges = torch.tensor([lower, upper])
        density = steps / (edges[1] - edges[0])
        got = run(edges, edges[0], density, 0, steps, "value", None, torch.ones(2))
        assert got.codes.tolist() == [0, steps]
        assert torch.equal(got.dx, density.expand(2)), (lower, upper)


@pytest.mark.parametrize(("mask", "reach"), [("value", 0.0), ("code", 0.5)])
def test_no_gradient_passes_beyond_the_edges(mask: Mask, reach: float) -> None:
    """With the mask on the code, the half step beyond the outermost code counts as inside."""
    inside = torch.tensor([-2.0 - reach, 0.0, 1.0 + 0.9 * reach])
    outside = torch.tensor([-2.01 - reach, 1.01 + reach, 50.0])
    for x, passes in ((inside, True), (outside, False)):
        got = run(x, torch.tensor(0.0), torch.tensor(1.0), -2, 1, mask, 0.1, torch.ones(3))
        assert ((got.dx != 0) == passes).all()
        assert (got.d_origin != 0) == passes
        assert (got.d_density != 0) == passes


def test_halves_are_rounded_to_the_even_code() -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert clip_round(x, None, torch.tensor(1.0), -4, 4, "value", None).tolist() == [-2, -2, 0, 0, 2, 2, 4]
    assert clip_round(x, torch.tensor(-0.5), torch.tensor(1.0), -4, 3, "value", None).tolist() == [
        -2,
        -1,
        0,
        1,
        2,
        3,
        3,
    ]


def test_missing_origin_equals_an_origin_of_zero() -> None:
    x, g = (torch.from_numpy(numbers(50, seed=seed)).float() for seed in (1, 2))
    density, leaf = torch.tensor(1.7), x.clone().requires_grad_()
    codes = clip_round(leaf, None, density, -2, 1, "value", torch.tensor(0.2))
    (dx,) = torch.autograd.grad(codes, leaf, g)
    got = run(x, torch.tensor(0.0), density, -2, 1, "value", 0.2, g)
    assert torch.equal(codes, got.codes)
    assert torch.equal(dx, got.dx)


def test_channels_are_independent() -> None:
    x, g = (torch.from_numpy(numbers(4, 3, 5, 5, seed=seed)) for seed in (1, 2))
    origin, density = (torch.from_numpy(numbers(4, 1, 1, 1, seed=seed)).abs() for seed in (3, 4))
    together = run(x, -origin, 3 * density, 0, 3, "value", 0.1, g)
    for c in range(4):
        alone = run(x[c], -origin[c, 0, 0, 0], 3 * density[c, 0, 0, 0], 0, 3, "value", 0.1, g[c])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[c].reshape(b.shape), b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_are_rounded_in_single(dtype: torch.dtype) -> None:
    x, g = (torch.from_numpy(numbers(8, 9, seed=seed)).to(dtype) for seed in (1, 2))
    origin, density = torch.tensor(-1.1), torch.tensor(255 / 2.3)
    half = run(x, origin, density, 0, 255, "value", 0.1, g)
    single = run(x.float(), origin, density, 0, 255, "value", 0.1, g.float())
    assert half.codes.dtype == half.dx.dtype == dtype
    assert half.d_origin.dtype == half.d_density.dtype == torch.float32
    assert torch.equal(half.codes.float(), single.codes)
    assert torch.equal(half.dx, single.dx.to(dtype))
    assert torch.equal(half.d_origin, single.d_origin)
    assert torch.equal(half.d_density, single.d_density)


@pytest.mark.parametrize("delta", DELTAS)
def test_backward_pass_can_be_differentiated(delta: float | None) -> None:
    """Derivatives of the gradients by the incoming gradient: autograd equals finite differences, as both are linear."""
    x, g, v = (torch.from_numpy(numbers(3, 4, 2, 2, seed=seed)) for seed in (1, 2, 3))
    leaves = [
        x.requires_grad_(),
        *(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (-1, 1.4)),
    ]
    scaling = None if delta is None else torch.tensor(delta, dtype=torch.float64)
    codes = clip_round(leaves[0], leaves[1], leaves[2], 0, 3, "value", scaling)

    def weighted(incoming: Tensor, *, graph: bool) -> Tensor:
        first = torch.autograd.grad(codes, leaves, incoming, create_graph=graph, retain_graph=True)
        return (first[0] * v).sum() + 0.7 * first[1] - 1.3 * first[2]

    incoming = g.clone().requires_grad_()
    (second,) = torch.autograd.grad(weighted(incoming, graph=True), incoming)
    assert (second != 0).any()
    step = 1e-3 * float(g.abs().min())  # no incoming gradient changes its sign
    for index in np.ndindex(*g.shape):
        nudge = torch.zeros_like(g)
        nudge[index] = step
        difference = weighted(g + nudge, graph=False) - weighted(g - nudge, graph=False)
        assert float(difference / (2 * step)) == pytest.approx(float(second[index]), rel=1e-6, abs=1e-7)


def test_backward_pass_depends_on_the_density() -> None:
    """dx = m G d: with constant mask and rounding error, its derivative by d is dx / d."""
    x, g = (torch.from_numpy(numbers(30, seed=seed)) for seed in (1, 2))
    density = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    leaf = x.requires_grad_()
    codes = clip_round(leaf, None, density, -2, 1, "value", torch.tensor(0.3))
    (dx,) = torch.autograd.grad(codes, leaf, g, create_graph=True)
    (second,) = torch.autograd.grad(dx.sum(), density)
    assert float(second) == pytest.approx(float(dx.sum().detach() / density.detach()), rel=1e-12)


@pytest.mark.parametrize("delta", [-1e-9, float("inf"), float("nan"), "hessain", None, [0.1]])
def test_impossible_scalings_are_refused(delta: Any) -> None:
    with pytest.raises(ValueError, match="expected 'hessian' or a number >= 0"):
        ElementWiseGradientScaling(delta=delta)


@pytest.mark.parametrize(
    ("delta", "start", "from_hessian"), [(0, 0.0, False), (0.25, 0.25, False), ("hessian", 0, True)]
)
def test_start_of_the_scaling(delta: Any, start: float, from_hessian: bool) -> None:
    rule = ElementWiseGradientScaling(delta=delta)
    assert float(rule.delta) == start
    assert rule.from_hessian == from_hessian
    assert list(rule.state_dict()) == ["delta"]


def test_modules_equal_the_function() -> None:
    x, g = (torch.from_numpy(numbers(40, seed=seed)) for seed in (1, 2))
    origin, density = (torch.tensor(value, dtype=torch.float64) for value in (-0.6, 2.5))
    for rule, delta in ((StraightThrough(), None), (ElementWiseGradientScaling(delta=0.25), 0.25)):
        leaf = x.clone().requires_grad_()
        codes = rule.double()(leaf, origin, density, 0, 3)
        (dx,) = torch.autograd.grad(codes, leaf, g)
        got = run(x, origin, density, 0, 3, "value", delta, g)
        assert torch.equal(codes, got.codes)
        assert torch.equal(dx, got.dx)
