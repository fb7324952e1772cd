"""The certificate compared with a walk through every accumulator, and the effect of head-room and search."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sqakd.export.integer_input import IntegerInput
from sqakd.export.integer_weight import symmetric_8_bits
from sqakd.export.modules import RealOutput
from sqakd.export.requantization import Requantization, solve_requantization
from sqakd.export.slope import allowed_factors
from sqakd.export.staircase import reachable_sums
from sqakd.export.stored import StoredInput


def grid(
    bits: int, *, origin: float = 0.0, step: float = 0.3, signed: bool = False, scale: float = 0.25
) -> IntegerInput:
    half = 2 ** (bits - 1) if signed else 0
    return IntegerInput(
        bits=bits, origin=origin, step=step, shift=half, levels=2**bits - 1, gap=1, zero_point=half, scale=scale
    )


def problem(bits: int, *, seed: int = 0, channels: int = 12, odd: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, scales of both signs, and offsets."""
    generator = torch.Generator().manual_seed(seed)
    top = 2**bits - 1
    level = torch.randint(0, top + 1, (channels, 4, 3, 3), generator=generator)
    weight = 2 * level - top if odd else level - 2 ** (bits - 1)
    scale = torch.randn(channels, generator=generator, dtype=torch.float64) * 0.02
    offset = torch.randn(channels, generator=generator, dtype=torch.float64)
    return weight, scale, offset


def walk(
    got: Requantization,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    a: IntegerInput,
    b: IntegerInput,
    low: int,
    high: int,
) -> Tensor:
    """Count differing levels, one accumulator after the other, with the runtime's arithmetic written out."""
    bottom, top = reachable_sums(weight, *a.code_range)
    counts = []
    for c in range(len(weight)):
        acc = torch.arange(int(bottom[c]), int(top[c]) + 1)
        wanted = (((scale[c] * acc + offset[c] - b.origin) / b.step).round() + b.shift).clamp(low, high)
        stored = acc * got.head_room * int(got.sign[c]) + got.bias[c]
        unit = torch.tensor(a.scale) * got.weight_scale[c]
        factor = unit / torch.tensor(b.step)
        level = ((stored.float() * factor).round() + b.shift).clamp(low, high)
        counts.append(int((level != wanted).sum()))
    return torch.tensor(counts)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("head_room", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
def test_the_certificate_equals_a_walk_through_all_accumulators(
    bits: int, head_room: bool, search: bool, signed: bool, positive: bool
) -> None:
    weight, scale, offset = problem(bits)
    a, b = grid(bits, signed=signed and bits > 1), grid(bits, origin=0.13, signed=signed and bits > 1)
    for low, high in ((0, b.levels), (min(1, b.levels - 1), b.levels)):
        got = solve_requantization(
            weight, scale=scale, offset=offset, input=a, output=b, low=low, high=high, search=search,
            largest_weight=127 if head_room else 0, positive_scales=positive,
        )  # fmt: skip
        assert torch.equal(got.weight.long(), got.head_room * weight * got.sign.view(-1, 1, 1, 1))
        assert (got.weight_scale > 0).all() or not positive
        assert torch.equal(got.wrong, walk(got, weight, scale, offset, a, b, low, high))
        bottom, top = reachable_sums(weight, *a.code_range)
        assert torch.equal(got.reachable, top - bottom + 1)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_head_room_and_search_leave_nothing_wrong_at_few_bits(bits: int) -> None:
    weight, scale, offset = problem(bits, channels=64)
    a, b = grid(bits), grid(bits, origin=0.13)
    wrong = {
        (head_room, search): int(
            solve_requantization(
                weight, scale=scale, offset=offset, input=a, output=b, low=0, high=b.levels, search=search,
                largest_weight=127 if head_room else 0,
            ).wrong.sum()
        )
        for head_room in (False, True)
        for search in (False, True)
    }  # fmt: skip
    assert wrong[True, True] <= min(wrong.values())
    assert wrong[True, True] <= (0 if bits < 3 else 2)
    assert wrong[False, False] > 0


@pytest.mark.parametrize("odd", [False, True])
def test_bias_and_factor_together_make_nearly_all_levels_of_four_bits_right(odd: bool) -> None:
    """With outputs that use all levels, a whole bias alone leaves 4 and 16 wrong sums of 2.2 and 4.4 million."""
    generator = torch.Generator().manual_seed(1)
    level = torch.randint(0, 16, (64, 64, 3, 3), generator=generator)
    weight = 2 * level - 15 if odd else level - 8
    a, b = grid(4), grid(4, origin=0.13)
    deviation = (weight.double().square().sum(dim=(1, 2, 3)) * (a.levels**2 / 3)).sqrt()
    swing = b.levels * b.step / 2 / deviation
    scale = swing * (torch.rand(64, generator=generator).double() - 0.5).sign() * 0.8
    offset = torch.randn(64, generator=generator, dtype=torch.float64)
    got = solve_requantization(weight, scale=scale, offset=offset, input=a, output=b, low=0, high=b.levels)
    assert int(got.wrong.sum()) <= 1
    assert torch.equal(got.wrong[:4], walk(got, weight, scale, offset, a, b, 0, b.levels)[:4])


def test_every_factor_within_its_interval_makes_all_stairs_right() -> None:
    stairs, lowest, highest, k = torch.tensor([[-7, 2, 11]]), torch.tensor([-20]), torch.tensor([20]), 5
    edges = torch.tensor([-0.5, 0.5, 1.5])
    biases = torch.arange(0, 26)[None]
    low, high = allowed_factors(biases, stairs, edges, k, lowest, highest)
    acc = torch.arange(-20, 21)
    wanted = (acc[:, None] >= stairs[0]).sum(dim=1)
    right = 0
    for bias, lower, upper in zip(biases[0], low[0], high[0], strict=True):
        for share in (-0.02, 0.01, 0.5, 0.99, 1.02):
            factor = lower + share * (upper - lower)
            reached = ((k * acc + bias)[:, None] * factor >= edges).sum(dim=1)
            if lower < upper:
                right += 1
                assert torch.equal(reached, wanted) == (0 < share < 1)
            else:
                assert not torch.equal(reached, wanted)
    assert right


@pytest.mark.parametrize(
    ("bits", "signed", "largest"),
    [(1, False, 127), (7, False, 127), (8, False, 64), (4, True, 121), (7, True, 85)],
)
def test_two_products_of_stored_integers_fit_16_bits(bits: int, signed: bool, largest: int) -> None:
    """Processors without VNNI add two of them in 16 bits, after 128 was added to signed inputs."""
    stored = StoredInput(input=grid(bits, signed=signed), signed=signed)
    low, high = stored.input.code_range
    highest = high + 128 if signed else high - low
    assert stored.largest_weight == largest
    assert 2 * highest * largest < 2**15
    assert largest == 127 or 2 * highest * (largest + 1) >= 2**15


def test_stored_integers_leave_room_for_large_inputs() -> None:
    weight, scale, offset = problem(2)
    a, b = grid(8), grid(2)
    stored = StoredInput(input=a, signed=False)
    got = solve_requantization(
        weight, scale=scale, offset=offset, input=a, output=b, low=0, high=3, largest_weight=stored.largest_weight
    )
    assert got.head_room == 64 // 3
    assert torch.equal(got.wrong, walk(got, weight, scale, offset, a, b, 0, 3))
    layer = RealOutput(
        positive_scales=False, name="layer", weight=symmetric_8_bits(weight.float()), stored=stored, scale=scale,
        offset=offset, geometry=None,
    )  # fmt: skip
    assert layer.head_room == 1  # 8-bit weights have no room


def test_stored_integers_are_k_times_the_weights() -> None:
    weight, scale, offset = problem(2)
    a, b = grid(2), grid(2)
    got = solve_requantization(
        weight, scale=10 * scale, offset=offset, input=a, output=b, low=0, high=3, positive_scales=True
    )
    assert got.head_room == 42
    assert torch.equal(got.weight.long(), 42 * weight * torch.where(scale < 0, -1, 1)[:, None, None, None])
    assert torch.equal(got.sign < 0, scale < 0)
    assert (got.weight_scale > 0).all()


def test_a_channel_with_minus_128_keeps_its_sign() -> None:
    weight, scale, offset = problem(8, odd=False)
    weight[:, 0, 0, 0] = -128
    a, b = grid(8), grid(8, step=1.5)
    got = solve_requantization(
        weight, scale=scale, offset=offset, input=a, output=b, low=0, high=255, positive_scales=True
    )
    assert got.head_room == 1
    assert torch.equal(got.weight.long(), weight)
    assert torch.equal(got.weight_scale < 0, scale < 0)
    assert torch.equal(got.wrong, walk(got, weight, scale, offset, a, b, 0, 255))


def test_a_channel_that_batch_norm_switched_off_is_constant() -> None:
    weight, scale, offset = problem(2)
    scale[3], offset[3] = 0.0, 0.7
    got = solve_requantization(weight, scale=scale, offset=offset, input=grid(2), output=grid(2), low=0, high=3)
    assert (got.weight[3] == 0).all()
    value = float(got.bias[3]) * 0.25 * float(got.weight_scale[3])
    assert value == pytest.approx(0.7, rel=1e-4)
    assert int(got.wrong[3]) == 0


def test_a_channel_whose_swing_is_tiny_beside_its_bias_is_constant() -> None:
    weight, scale, offset = problem(2)
    scale[0], offset[0] = 1e-9, 0.45 + 1e-12  # just above an edge; a few sums fall below it
    got = solve_requantization(weight, scale=scale, offset=offset, input=grid(2), output=grid(2), low=0, high=3)
    assert (got.weight[0] == 0).all()
    bottom, top = reachable_sums(weight, 0, 3)
    assert 0 < int(got.wrong[0]) < int(top[0] - bottom[0])
    assert got.bias.abs().max() < 2**23
