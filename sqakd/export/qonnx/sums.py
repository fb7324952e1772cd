"""Residual sums that were trained on integers (`residual_bits`), with QONNX's nodes.

quant             Quant(Quant(branch) + Quant(shortcut)), all with the step of the sums; the outer one is unsigned if
                  a ReLU ends the sum
multi_threshold   step * MultiThreshold(MultiThreshold(branch) + MultiThreshold(shortcut)), of whole codes
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqakd.export.integer_input import integer_input
from sqakd.export.qonnx.ops import multi_threshold, quant
from sqakd.export.qonnx.thresholds import compared, find_thresholds
from sqakd.quantization.residual import QuantResidualSum


class QonnxSum(nn.Module):
    """A residual sum with QONNX's nodes in place of its roundings.

    Args:
        total: the trained sum.
        thresholds: whether values are compared with thresholds (MultiThreshold) instead of rounded (Quant).
    """

    step: Tensor
    thresholds: Tensor

    def __init__(self, total: QuantResidualSum, *, thresholds: bool) -> None:
        super().__init__()
        self.bits, self.has_thresholds = total.quantizer.bits, thresholds
        operands = total.operands
        self.signed = [quantizer.signed for quantizer in operands]
        self.low, high = total.output_range
        self.inputs = [integer_input(quantizer) for quantizer in operands]
        self.register_buffer("step", torch.tensor(self.inputs[0].step))
        if thresholds:
            found = [find_thresholds(quantizer, input) for quantizer, input in zip(operands, self.inputs, strict=True)]
            # The sum of two codes has the code k where it is at least k.
            self.register_buffer("thresholds", torch.stack([*found, torch.arange(self.low + 1.0, high + 1)]))

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return self._compared(branch, shortcut) if self.has_thresholds else self._rounded(branch, shortcut)

    def _rounded(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        rounded = [
            quant(x, self.step, self.bits, signed) for x, signed in zip((branch, shortcut), self.signed, strict=True)
        ]
        return quant(rounded[0] + rounded[1], self.step, self.bits, self.low < 0)

    def _compared(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        layout = {2: "NC", 4: "NCHW"}.get(branch.ndim, "")
        codes = [
            compared(x, self.thresholds[i : i + 1], self.inputs[i], layout) for i, x in enumerate((branch, shortcut))
        ]
        data_type = f"{'INT' if self.low < 0 else 'UINT'}{self.bits}"
        total = multi_threshold(codes[0] + codes[1], self.thresholds[2:], 1.0, float(self.low), data_type, layout)
        return total * self.step
