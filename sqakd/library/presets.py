"""Quantizers and training recipes by name, read from the configuration files of the commands.

The files under conf/ are the only place that has their values, so a network quantized here and a run with the same
options get the same quantizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqakd.app.compose import compose_spec, make
from sqakd.app.configuration import own_configuration
from sqakd.app.suggestions import suggestion
from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_bits
from sqakd.quantization.convert import Scheme
from sqakd.quantization.quantizers.base import checked_start
from sqakd.runs.spec import Spec
from sqakd.shipped import conf_folder


def preset_names() -> list[str]:
    """Return the names of the quantizers under conf/quantizer, in alphabetical order."""
    return sorted(file.stem for file in (conf_folder() / "quantizer").glob("*.yaml") if file.stem != "none")


def preset(
    name: str, *, w_bits: int, a_bits: int, weight_decay: float | None = None, start: str | None = None
) -> Scheme:
    """Return the scheme of a named quantizer.

    Args:
        name: of a file under conf/quantizer.
        w_bits: bits of the weights.
        a_bits: bits of the activations.
        weight_decay: weight decay of the network, which some methods use for their ranges too; None: the
            recipe's.
        start: where the ranges start: "paper", "mse" or "max"; None: as the file says.

    Raises:
        SqakdError: if there is no such quantizer or start, or bits are not whole numbers from 1 to 8.
    """
    names = preset_names()
    if name not in names:
        raise SqakdError(f"found no quantizer {name!r}{suggestion(str(name), names)}, or a Scheme")
    for key, bits in (("w_bits", w_bits), ("a_bits", a_bits)):
        if not is_bits(bits):
            raise SqakdError(f"{key}={bits!r}: expected a whole number from 1 to {MAX_BITS}")
    decay = [] if weight_decay is None else [f"recipe.weight_decay={weight_decay}"]
    own = [] if start is None else [f"quantizer.start={checked_start(start)}"]
    spec = composed(f"quantizer={name}", f"w_bits={w_bits}", f"a_bits={a_bits}", *decay, *own)
    made: Scheme = make(spec.config["quantizer"], "quantizer")
    return made


def bits_or_default(bits: int | None) -> int:
    """Return bits of weights and inputs, by default 2."""
    return 2 if bits is None else bits


@cache
def composed(*overrides: str) -> Spec:
    """Compose the configuration of a run from overrides."""
    with own_configuration():
        return compose_spec(["recipe=imagefolder", *overrides], complete=False)


def kd_node(name: str) -> Mapping[str, Any]:
    """Return the values of a file under conf/kd that has a feature loss.

    Raises:
        SqakdError: if there is no such file.
    """
    names = [file.stem for file in (conf_folder() / "kd").glob("*.yaml")]
    nodes = {known: composed(f"kd={known}").config["kd"] for known in ([name] if name in names else names)}
    if name not in nodes or nodes[name]["feature_loss"] is None:
        nodes |= {known: composed(f"kd={known}").config["kd"] for known in names}
        known = [other for other, node in nodes.items() if node["feature_loss"] is not None]
        raise SqakdError(f"found no feature loss {name!r}{suggestion(name, known)}")
    node: Mapping[str, Any] = nodes[name]
    return node
