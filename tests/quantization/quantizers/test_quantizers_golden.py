"""PACT, LSQ and DoReFa against reference numbers, as in the papers and as released."""

from __future__ import annotations

from typing import Any

import golden_data as golden
import numpy as np
import pytest
import torch
from torch import Tensor

from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.dorefa import TanhRange, TanhWeights, UnitActivations
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.quantization.quantizers.pact import ClippedActivation
from sqakd.quantization.quantizers.rounding import StraightThrough

COMMON: dict[str, Any] = {"rounding": StraightThrough(), "shape": ()}


def cases(file: str) -> list[int]:
    return list(range(int(golden.load(file)["n_cases"])))


def low_bits(file: str) -> list[int]:
    """Return the cases of at most 8 bits; the reference's 32-bit cases represent a float layer."""
    return [i for i in cases(file) if golden.load(file)["bits"][i] <= 8]


def backward(quantizer: Quantizer, x: np.ndarray, g: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return output and gradient of the input, in the input's own precision."""
    leaf = torch.from_numpy(x).requires_grad_()
    y = quantizer.to(leaf.dtype)(leaf)
    y.backward(torch.from_numpy(g))
    assert leaf.grad is not None
    return y.detach(), leaf.grad


def gradient_of(quantizer: Quantizer, name: str) -> float:
    gradient = quantizer.get_parameter(name).grad
    assert gradient is not None
    return float(gradient)


@pytest.mark.parametrize("i", cases("05_textbook_pact"))
def test_pact(i: int) -> None:
    d = golden.load("05_textbook_pact")
    quantizer = ClippedActivation(
        bits=int(d["bits"][i]),
        signed=False,
        alpha=float(d["alpha"][i]),
        learned=True,
        decay=0.0,
        start="paper",
        **COMMON,
    ).double()
    quantizer.get_parameter("alpha").data.fill_(float(d["alpha"][i]))
    y, dx = backward(quantizer, d[f"x_{i:02d}"], d[f"g_{i:02d}"])
    assert golden.error(y, d[f"y_{i:02d}"]) <= 1e-9
    assert golden.error(dx, d[f"dx_{i:02d}"]) <= 1e-9
    assert gradient_of(quantizer, "alpha") == pytest.approx(float(d["dalpha_paper"][i]), rel=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_calibrated_clip_rounds_the_batch_with_the_least_error(bits: int) -> None:
    x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).relu()
    options: dict[str, Any] = {"bits": bits, "signed": False, "learned": True, "decay": 0.0, "start": "paper", **COMMON}
    quantizer = ClippedActivation(alpha="calibrate", **options)
    quantizer.calibrate(x)

    def error(alpha: float) -> float:
        steps = 2**bits - 1
        rounded = (x.clamp(0, alpha) * steps / alpha).round() * alpha / steps
        return float((rounded - x).square().mean())

    chosen = float(quantizer.get_parameter("alpha"))
    others = [float(alpha) for alpha in torch.linspace(0.05, float(x.max()), 300)]
    assert error(chosen) <= 1.01 * min(map(error, others))
    constant = ClippedActivation(alpha=6.0, **options)
    constant.calibrate(x)
    assert float(constant.get_parameter("alpha")) == 6.0
    for wrong in (0.0, -1.0, "auto"):
        with pytest.raises(ValueError, match="expected a number > 0, or calibrate"):
            ClippedActivation(alpha=wrong, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("i", cases("05_textbook_lsq"))
def test_lsq(i: int) -> None:
    d = golden.load("05_textbook_lsq")
    x = torch.from_numpy(d[f"x_{i:02d}"])
    quantizer = LearnedStep(
        bits=int(d["bits"][i]), signed=bool(d["signed"][i]), mask="value", decay=0.0, start="paper", **COMMON
    ).double()
    assert (quantizer.low, quantizer.high) == (-int(d["q_n"][i]), int(d["q_p"][i]))
    quantizer.calibrate(x)
    assert quantizer.get_parameter("step").item() == pytest.approx(float(d["scale_init"][i]), rel=1e-9)
    quantizer.get_parameter("step").data.fill_(float(d["scale"][i]))
    y, dx = backward(quantizer, d[f"x_{i:02d}"], d[f"g_{i:02d}"])
    assert golden.error(y, d[f"y_{i:02d}"]) <= 1e-9
    assert golden.error(dx, d[f"dx_{i:02d}"]) <= 1e-9
    assert gradient_of(quantizer, "step") == pytest.approx(float(d["dscale"][i]), rel=1e-9)


@pytest.mark.parametrize("i", cases("05_textbook_dorefa"))
def test_dorefa(i: int) -> None:
    d = golden.load("05_textbook_dorefa")
    weights = TanhWeights(bits=int(d["bits"][i]), **COMMON)
    y, dw = backward(weights, d[f"w_{i:02d}"], d[f"wg_{i:02d}"])
    assert golden.error(y, d[f"wy_{i:02d}"]) <= 1e-9
    assert golden.error(dw, d[f"dw_max_differentiated_{i:02d}"]) <= 1e-9
    y, dx = backward(UnitActivations(bits=int(d["bits"][i]), signed=False, **COMMON), d[f"x_{i:02d}"], d[f"g_{i:02d}"])
    assert golden.error(y, d[f"y_{i:02d}"]) <= 1e-9
    assert golden.error(dx, d[f"dx_{i:02d}"]) <= 1e-9


def test_dorefa_with_one_bit() -> None:
    d = golden.load("05_textbook_dorefa")
    weights = d["w_00"] if "w1bit" not in d else d["w1bit"]
    y, dw = backward(TanhWeights(bits=1, **COMMON), weights, d["w1bit_g"])
    assert golden.error(y, d["w1bit_y"]) <= 1e-9
    assert golden.error(dw, d["w1bit_dw"]) <= 1e-9


def released(file: str, i: int) -> Quantizer:
    bits = int(golden.load(file)["bits"][i])
    if file == "05_mqbench_pact":
        return ClippedActivation(bits=bits, signed=True, alpha=6.0, learned=False, decay=0.0, start="paper", **COMMON)
    if file == "05_mqbench_lsq":
        return LearnedStep(bits=bits, signed=True, mask="code", decay=0.0, start="paper", **COMMON)
    return TanhRange(bits=bits, **COMMON)


@pytest.mark.parametrize(
    ("file", "i"),
    [(f, i) for f in ("05_mqbench_pact", "05_mqbench_lsq", "05_mqbench_dorefa") for i in low_bits(f)],
)
def test_as_released(file: str, i: int) -> None:
    d = golden.load(file)
    quantizer = released(file, i)
    quantizer.calibrate(torch.from_numpy(d[f"x_cal_{i:02d}"]))
    scale = quantizer.codes(torch.from_numpy(d[f"x_{i:02d}"])).scale
    assert float(scale) == pytest.approx(float(d["scale"][i]), rel=1e-6)
    assert quantizer.grid()[[0, -1]].tolist() == [d["quant_min"][i], d["quant_max"][i]]
    y, dx = backward(quantizer, d[f"x_{i:02d}"], d[f"g_{i:02d}"])
    safe = d.get(f"safe_{i:02d}", np.ones_like(d[f"x_{i:02d}"])).astype(bool)
    assert golden.error(y[safe], d[f"y_{i:02d}"][safe]) <= 1e-6
    assert golden.error(dx[safe], d[f"dx_{i:02d}"][safe]) <= 1e-5
    if file == "05_mqbench_lsq":
        assert golden.close_sum(torch.tensor(gradient_of(quantizer, "step")), d["dscale"][i])
    if file == "05_mqbench_pact":
        assert not list(quantizer.parameters())


def test_negative_or_vanishing_step_counts_as_its_magnitude() -> None:
    d = golden.load("05_mqbench_lsq")
    for name in ("neg", "tiny"):
        quantizer = LearnedStep(bits=4, signed=True, mask="code", decay=0.0, start="paper", **COMMON)
        quantizer.get_parameter("step").data.fill_(float(d[f"{name}_scale_before"]))
        y, dx = backward(quantizer, d[f"{name}_x"], d[f"{name}_g"])
        assert golden.error(y, d[f"{name}_y"]) <= 1e-6
        assert golden.error(dx, d[f"{name}_dx"]) <= 1e-5
        assert float(quantizer.codes(torch.zeros(2)).scale) == pytest.approx(float(d[f"{name}_scale_after"]), rel=1e-6)
    assert abs(gradient_of(quantizer, "step")) >= 0


def test_exact_ties() -> None:
    d = golden.load("05_mqbench_ties")
    quantizer = LearnedStep(bits=4, signed=True, mask="code", decay=0.0, start="paper", **COMMON)
    quantizer.get_parameter("step").data.fill_(float(d["scale"]))
    y, dx = backward(quantizer, d["x"], d["g"])
    assert np.array_equal(y.numpy(), d["lsq_y"])
    assert np.array_equal(dx.numpy(), d["lsq_dx"])
    assert gradient_of(quantizer, "step") == pytest.approx(float(d["lsq_dscale"]), rel=1e-5)


def test_one_range_per_channel() -> None:
    """A quantizer with a range per channel treats each channel like a quantizer of that channel alone."""
    x = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    for make in (
        lambda shape: LearnedStep(
            bits=3, rounding=StraightThrough(), shape=shape, signed=True, mask="value", decay=0.0, start="paper"
        ),
        lambda shape: TanhWeights(bits=3, rounding=StraightThrough(), shape=shape),
        lambda shape: TanhWeights(bits=1, rounding=StraightThrough(), shape=shape),
        lambda shape: TanhRange(bits=3, rounding=StraightThrough(), shape=shape),
    ):
        together = make((5, 1, 1, 1))
        together.calibrate(x)
        y = together(x)
        for channel in range(5):
            alone = make(())
            alone.calibrate(x[channel])
            assert torch.allclose(alone(x[channel]), y[channel], rtol=1e-6, atol=1e-7)
