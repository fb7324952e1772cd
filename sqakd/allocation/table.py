"""The table of sensitivities: a loss for each layer, tensor and number of bits, and the counts that costs depend on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqakd.runs.fields import Fields


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """One layer.

    Attributes:
        name: of the layer in the network.
        weights: number of weights.
        multiply_adds: of one image.
        inputs: elements of the layer's input for one image.
        weight: loss by bits, if only the weight is quantized.
        input: loss by bits, if only the input is quantized.
    """

    name: str
    weights: int
    multiply_adds: int
    inputs: int
    weight: Mapping[int, float]
    input: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Sensitivities of a float network.

    Attributes:
        criterion: "kl" or "curvature".
        images: number of images.
        widths: numbers of bits, ascending.
        layers: in network order.
    """

    criterion: str
    images: int
    widths: tuple[int, ...]
    layers: tuple[LayerSensitivity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "criterion": self.criterion,
            "images": self.images,
            "widths": list(self.widths),
            "layers": [
                {
                    "name": layer.name,
                    "weights": layer.weights,
                    "multiply_adds": layer.multiply_adds,
                    "inputs": layer.inputs,
                    "weight": {str(bits): loss for bits, loss in layer.weight.items()},
                    "input": {str(bits): loss for bits, loss in layer.input.items()},
                }
                for layer in self.layers
            ],
        }

    @classmethod
    def from_dict(cls, content: object) -> Sensitivity:
        """Return the table in plain data.

        Raises:
            SqakdError: if a field is missing or of the wrong type.
        """
        fields = Fields(content)
        layers = fields.inside_list("layers")
        widths = sorted(int(bits) for bits in layers[0].inside("weight").content) if layers else []
        return cls(
            criterion=fields.text("criterion"),
            images=fields.whole("images"),
            widths=tuple(widths),
            layers=tuple(
                LayerSensitivity(
                    name=layer.text("name"),
                    weights=layer.whole("weights"),
                    multiply_adds=layer.whole("multiply_adds"),
                    inputs=layer.whole("inputs"),
                    **{
                        tensor: {bits: layer.inside(tensor).number(str(bits)) for bits in widths}
                        for tensor in ("weight", "input")
                    },
                )
                for layer in layers
            ),
        )

    def csv(self) -> str:
        """Return a row for each layer, tensor and number of bits, as CSV text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["layer", "tensor", "bits", "loss", "weights", "multiply_adds", "inputs"])
        for layer in self.layers:
            counts = [layer.weights, layer.multiply_adds, layer.inputs]
            for tensor, losses in (("weight", layer.weight), ("input", layer.input)):
                writer.writerows([layer.name, tensor, bits, f"{loss:.6g}", *counts] for bits, loss in losses.items())
        return text.getvalue()

    def text(self) -> str:
        """Return a table with a line for each layer and a column for each tensor and number of bits.

        Example:
            >>> row = {"weights": 9, "multiply_adds": 90, "inputs": 10, "weight": {2: 0.5}, "input": {2: 0.25}}
            >>> layer = LayerSensitivity(name="conv", **row)
            >>> print(Sensitivity(criterion="kl", images=8, widths=(2,), layers=(layer,)).text())
            layer  weights  w2     a2
            conv   9        0.5    0.25
        """
        header = ["layer", "weights", *(f"{tensor}{bits}" for tensor in "wa" for bits in self.widths)]
        rows = [
            [
                layer.name,
                f"{layer.weights:,}",
                *(f"{of[bits]:.2g}" for of in (layer.weight, layer.input) for bits in of),
            ]
            for layer in self.layers
        ]
        return aligned([header, *rows])


def aligned(rows: list[list[str]]) -> str:
    """Return rows of text in columns."""
    widths = [max(5, *(len(field) for field in column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
