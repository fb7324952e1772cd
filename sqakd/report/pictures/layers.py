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
    body = _groups(results, _ranges)
    caption = (
        "From the lowest to the highest value that a layer's quantizer can give. Layers are counted from the input; those"
        " that stay float are left out. Charts of one row share their scale. " + OF_ONE
    )
    return figure(body, caption=caption) if body else nothing(NOTHING)


def codes(results: Results) -> str:
    """Code usage of weights and inputs, layer by layer."""
    body = _groups(results, _codes)
    if not body:
        return nothing(NOTHING)
    caption = (
        "Share of a layer's weights or inputs that each code has; a code without a shade is never used. Entropy: the bits"
        " that the codes really carry, mean over layers. Layers are counted from the input. " + OF_ONE
    )
    return figure(_shades(), body, caption=caption)


def clip_range(numbers: Numbers) -> tuple[float, float] | None:
    """Ends of the values that a quantizer can give, from its row of quantizers.csv; None if the row has no range.

    EWGS keeps its bounds, LSQ a step, PACT a clip; DoReFa keeps nothing, its range is fixed or follows the weights.
    """
    used = used_codes(numbers)
    if "lower" in numbers and "upper" in numbers:
        return numbers["lower"], numbers["upper"]
    if not used:
        return None
    if "step" in numbers:
        return min(used) * abs(numbers["step"]), max(used) * abs(numbers["step"])
    if "alpha" in numbers:
        return (-abs(numbers["alpha"]) if min(used) < 0 else 0.0), abs(numbers["alpha"])
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


def _groups(results: Results, draw: Callable[[Sequence[Chosen], Results], str]) -> str:
    """One block to open for each network, quantizer and bits; the first is open."""
    blocks: list[str] = []
    for network, cells in quantized(results).items():
        for quantizer in sorted({cell.quantizer for cell in cells}):
            for bits in bits_in_order(cells):
                chosen = [cell for cell in cells if (cell.quantizer, cell.bits) == (quantizer, bits)]
                known = slots(results.cells)
                chosen = sorted(chosen, key=lambda cell: known[method(cell)])
                found = [
                    (cell, rows, f"{method(cell)}, seed {results.cells[cell][0].seed}")
                    for cell in chosen
                    if (rows := results.cells[cell][0].quantizers)
                ]
                if found:
                    summary = tag("summary", text(" ".join([*network, quantizer, bits])))
                    state = {} if blocks else {"open": ""}
                    blocks.append(tag("details", summary, draw(found, results), **state))
    return "".join(blocks)


def _ranges(found: Sequence[Chosen], results: Results) -> str:
    known = slots(results.cells)
    parts, without = [], []
    for is_weight, tensor in TENSORS:
        bars = {
            title: (cell, [_bar(numbers, tensor) for numbers in rows if numbers["is_weight"] == is_weight])
            for cell, rows, title in found
        }
        drawn = {title: (cell, [bar for bar in some if bar]) for title, (cell, some) in bars.items()}
        values = [end for _, some in drawn.values() for bar in some for end in (bar.low, bar.high)]
        if not values:
            without.append(tensor)
            continue
        ends = padded([0.0, *values])
        parts += [
            facet(
                f"{title}: {tensor}",
                draw_ranges(some, _layers(rows), ends, known[method(cell)], label=f"Range of {tensor}, {cell}"),
            )
            for (title, (cell, some)), (_, rows, _) in zip(drawn.items(), found, strict=True)
            if some
        ]
    words = (
        f"{' and '.join(without).capitalize()}: this quantizer keeps no range in its file (it is fixed, follows the weights,"
        " or is one per channel)."
    )
    return facets(parts) + (tag("p", text(words), class_="nothing") if without else "")


def _bar(numbers: Numbers, tensor: str) -> Bar | None:
    ends = clip_range(numbers)
    if ends is None:
        return None
    layer, (low, high) = int(numbers["layer"]), sorted(ends)
    return Bar(layer, low, high, f"layer {layer}, {tensor}: {ends[0]:.3g} to {ends[1]:.3g}")


def _codes(found: Sequence[Chosen], results: Results) -> str:
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
    return facets(parts)


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
