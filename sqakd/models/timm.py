"""The networks of timm (PyTorch Image Models) by name: https://huggingface.co/docs/timm. Needs `sqakd[timm]`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from torch import nn

LIST = 'python -c "import timm; print(timm.list_models())" lists them'


def timm_network(*, arch: str, weights: bool | str | None, num_classes: int) -> nn.Module:
    """Images [N, 3, H, W] -> logits [N, num_classes].

    Args:
        arch: e.g. "resnet50".
        weights: pretrained weights to start from, downloaded once: "DEFAULT" (or True), or a tag of timm's such as
            "a1_in1k"; None (or False): random.
        num_classes: where it is not the weights' own number, timm makes the last layer afresh.

    Raises:
        ModuleNotFoundError: if timm is not installed.
        ValueError: for a name that timm does not have, or weights that cannot be downloaded.
    """
    timm = _timm()
    if not timm.is_model(arch):
        close = get_close_matches(arch, timm.list_models())
        raise ValueError(f"timm has no network {arch!r}; {_close(close)}{LIST}")
    name = arch
    if weights not in (None, False, True, "DEFAULT"):
        name = f"{arch}.{weights}"
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{arch}.*")]
        if weights not in tags:
            raise ValueError(f"{arch} has no weights {weights!r}; choose one of DEFAULT, {', '.join(tags)}, or null")
    try:
        network: nn.Module = timm.create_model(name, pretrained=bool(weights), num_classes=num_classes)
    except (OSError, RuntimeError) as error:
        if not weights:
            raise
        raise ValueError(
            f"the weights {weights} of {arch} could not be loaded ({_first_line(error)}); put the file into Hugging"
            f" Face's cache (HF_HOME), or type model.weights=null"
        ) from error
    return network


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"model=timm needs a package ({error}); type: pip install sqakd[timm]") from error
    return timm


def _close(matches: list[str]) -> str:
    return f"close: {', '.join(matches)}; " if matches else ""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
