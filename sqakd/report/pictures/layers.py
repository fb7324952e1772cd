"""What the quantizers of each layer do: clip ranges, and how often each code is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqakd.report.charts.layers import SHADES, Bar, Usage, draw_codes, draw_ranges
from sqakd.report.charts.svg import padded, tag, text
from sqakd.report.methods import method, slots
from sqakd.report.pictures.figure import bits_in_order, facet, facets, figure, nothing, quantized
from sqakd.report.records import Cell, Results

Numbers = Mapping[str, float]
Chosen = tuple[Cell, Sequence[Numbers], str]  # a cell, its rows of quantizers.csv, and what it is called
TENSORS = ((1.0, "weights"), (0.0, "inputs"))
NOTHING = "No quantized run here has kept its quantizers.csv."
OF_ONE = (
    "One run stands for each cell: its first seed, named in the chart's title; the last epoch, one validation batch."
)


def ranges(results: Results) -> str:
    """Clip ranges of weights and inputs, layer by layer."""
    blocks, without = _blocks(results, _ranges)
    if not blocks and not without:
        return nothing(NOTHING)
    words = (
        f" No range is in the files of {', '.join(without)}: it is fixed, follows the weights, or there is one for each"
        " channel."
        if without
        else ""
    )
    caption = (
        "The values that a layer's quantizer tells apart; those outside become the nearest end. Layers are counted from"
        f" the input; those that stay float are left out. Charts of one tensor share their scale. {OF_ONE}{words}"
    )
    return figure(blocks, caption=caption)


def codes(results: Results) -> str:
    """Code usage of weights and inputs, layer by layer."""
    blocks, _ = _blocks(results, _codes)
    if not blocks:
        return nothing(NOTHING)
    caption = (
        "Share of a layer's weights or inputs that each code has; a code without a shade is never used. Entropy: the"
        f" bits that the codes really carry, mean over layers. Layers are counted from the input. {OF_ONE}"
    )
    return figure(_shades(), blocks, caption=caption)


def clip_range(quantizer: str, numbers: Numbers) -> tuple[float, float] | None:
    """Ends of the values that a quantizer tells apart, from its row of quantizers.csv; None if it keeps no range.

    EWGS keeps its bounds, LSQ a step, PACT a clip. DoReFa keeps nothing, its range is fixed or follows the weights, and
    what its released reading keeps is in units of the normalised tensor.
    """
    codes = used_codes(numbers)
    if quantizer.startswith("dorefa") or not codes:
        return None
    if "lower" in numbers and "upper" in numbers:
        return numbers["lower"], numbers["upper"]
    low, high = min(codes), max(codes)
    if "step" in numbers:
        return low * abs(numbers["step"]), high * abs(numbers["step"])
    if "alpha" in numbers:  # from 0, or to both sides
        step = abs(numbers["alpha"]) * (2 if low < 0 else 1) / (high - low)
        return low * step, high * step
    return None


def used_codes(numbers: Numbers) -> dict[int, float]:
    """Share of each code of the grid, also of those that are never used."""
    return {int(key.removeprefix("code_")): share for key, share in numbers.items() if key.startswith("code_")}


def entropy(shares: Iterable[float]) -> float:
    """In bits.

    >>> entropy([0.5, 0.5, 0.0])
    1.0
    """
    return -sum(share * math.log2(share) for share in shares if share > 0)


def _blocks(results: Results, draw: Callable[[Sequence[Chosen], Mapping[str, int]], str]) -> tuple[str, list[str]]:
    """One block for each network, quantizer and bits, the first open; and the quantizers with nothing to show."""
    known = slots(results.cells)
    blocks: list[str] = []
    without: dict[str, None] = {}
    for network, cells in quantized(results).items():
        for quantizer in sorted({cell.quantizer for cell in cells}):
            for bits in bits_in_order(cells):
                some = [cell for cell in cells if (cell.quantizer, cell.bits) == (quantizer, bits)]
                some.sort(key=lambda cell: known[method(cell)])
                found = [chosen for cell in some if (chosen := _one(results, cell))]
                body = draw(found, known)
                if body:
                    summary = tag("summary", text(" ".join([*network, quantizer, bits])))
                    blocks.append(tag("details", summary, body, **({} if blocks else {"open": ""})))
                elif found:
                    without[quantizer] = None
    return "".join(blocks), list(without)


def _one(results: Results, cell: Cell) -> Chosen | None:
    """The run that stands for a cell: its first seed."""
    first = results.cells[cell][0]
    return (cell, first.quantizers, f"{method(cell)}, seed {first.seed}") if first.quantizers else None


def _ranges(found: Sequence[Chosen], known: Mapping[str, int]) -> str:
    parts = []
    for is_weight, tensor in TENSORS:
        bars = [
            [bar for numbers in rows if numbers["is_weight"] == is_weight and (bar := _bar(cell, numbers, tensor))]
            for cell, rows, _ in found
        ]
        ends = padded([0.0, *(end for some in bars for bar in some for end in (bar.low, bar.high))])
        for some, (cell, rows, title) in zip(bars, found, strict=True):
            if some:
                label = f"Range of {tensor}, {cell}"
                svg = draw_ranges(some, _layers(rows), ends, known[method(cell)], label=label)
                parts.append(facet(f"{title}: {tensor}", svg))
    return facets(parts) if parts else ""


def _bar(cell: Cell, numbers: Numbers, tensor: str) -> Bar | None:
    ends = clip_range(cell.quantizer, numbers)
    if ends is None:
        return None
    layer, (low, high) = int(numbers["layer"]), sorted(ends)
    return Bar(layer, low, high, f"layer {layer}, {tensor}: {ends[0]:.3g} to {ends[1]:.3g}")


def _codes(found: Sequence[Chosen], known: Mapping[str, int]) -> str:
    parts = []
    for is_weight, tensor in TENSORS:
        for cell, rows, title in found:
            usages = [_usage(numbers, tensor) for numbers in rows if numbers["is_weight"] == is_weight]
            mean = sum(entropy(usage.shares.values()) for usage in usages) / max(len(usages), 1)
            unused = sum(share == 0 for usage in usages for share in usage.shares.values())
            of = cell.w_bits if is_weight else cell.a_bits
            note = f"entropy {mean:.2f} of {of} bit{'s' if of > 1 else ''}" + (
                f"; never used: {unused} codes" if unused else ""
            )
            svg = draw_codes(usages, _layers(rows), label=f"Codes of {tensor}, {cell}: {note}")
            parts.append(facet(f"{title}: {tensor}", svg, tag("p", text(note), class_="note")))
    return facets(parts) if parts else ""


def _usage(numbers: Numbers, tensor: str) -> Usage:
    layer, shares = int(numbers["layer"]), used_codes(numbers)
    most = max(shares, key=lambda code: shares[code])
    title = (
        f"layer {layer}, {tensor}: {sum(share > 0 for share in shares.values())} of {len(shares)} codes,"
        f" {entropy(shares.values()):.2f} bits; most: {most} ({100 * shares[most]:.0f}%)"
    )
    return Usage(layer, shares, title)


def _layers(rows: Sequence[Numbers]) -> int:
    return int(max(numbers["layer"] for numbers in rows)) + 1


def _shades() -> str:
    names = ["more than 0", *(f"{100 * share:.0f}%" for share in SHADES[1:])]
    boxes = [
        tag(
            "li",
            tag(
                "svg",
                tag("path", class_=f"heat h{i}", d="M0 6h26", style="stroke-width:12"),
                viewBox="0 0 26 12",
                aria_hidden="true",
            ),
            name,
        )
        for i, name in enumerate(names)
    ]
    return tag("ul", *boxes, tag("li", "or more"), class_="legend")
