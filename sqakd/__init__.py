"""Label-free training of low-bit neural networks by self-supervised knowledge distillation.

    import sqakd

    student = sqakd.quantize(network, "lsq", bits=2)   # a quantized copy
    sqakd.calibrate(student, images)                   # sets the ranges
    loss = sqakd.distillation_loss(student(images), network(images).detach())

`sqakd.distill` is the whole training, `sqakd.export` writes an integer ONNX file. docs/library.md describes all names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqakd.face import FACE, find

if TYPE_CHECKING:
    from sqakd.errors import SqakdError as SqakdError
    from sqakd.library.distillation import Distiller as Distiller
    from sqakd.library.distillation import distillation_loss as distillation_loss
    from sqakd.library.exporting import export as export
    from sqakd.library.loading import load as load
    from sqakd.library.measuring import allocate as allocate
    from sqakd.library.measuring import sensitivity as sensitivity
    from sqakd.library.predicting import predict as predict
    from sqakd.library.quantizing import calibrate as calibrate
    from sqakd.library.quantizing import dequantize as dequantize
    from sqakd.library.quantizing import quantize as quantize
    from sqakd.library.training import distill as distill
    from sqakd.quantization.convert import Scheme as Scheme
    from sqakd.quantization.parameters import split_parameters as split_parameters
    from sqakd.sums import ResidualSum as ResidualSum

__version__ = "0.1.0"
__all__ = [
    "Distiller",
    "ResidualSum",
    "Scheme",
    "SqakdError",
    "__version__",
    "allocate",
    "calibrate",
    "dequantize",
    "distill",
    "distillation_loss",
    "export",
    "load",
    "predict",
    "quantize",
    "sensitivity",
    "split_parameters",
]


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is used first.

    Raises:
        AttributeError: if there is no such name.
    """
    if name not in FACE:
        raise AttributeError(f"module 'sqakd' has no attribute {name!r}")
    if name in ("export", "predict", "sensitivity"):  # modules of this package that are callable
        from importlib import import_module

        return import_module(f"sqakd.{name}")
    return find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
