"""The names that `import sqakd` offers, and where each of them is defined.

A name is imported when it is used first, so that `import sqakd` itself takes a few milliseconds.

Three of the names, `export`, `predict` and `sensitivity`, are also modules of this package, and Python binds an
imported module under its name in the package. These modules are therefore callable: `sqakd.export(...)` calls the
function `sqakd.library.exporting.export`.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

FACE = {
    "quantize": "sqakd.library.quantizing",
    "calibrate": "sqakd.library.quantizing",
    "dequantize": "sqakd.library.quantizing",
    "Scheme": "sqakd.quantization.convert",
    "split_parameters": "sqakd.quantization.parameters",
    "distillation_loss": "sqakd.library.distillation",
    "Distiller": "sqakd.library.distillation",
    "distill": "sqakd.library.training",
    "load": "sqakd.library.loading",
    "sensitivity": "sqakd.library.measuring",
    "allocate": "sqakd.library.measuring",
    "export": "sqakd.library.exporting",
    "predict": "sqakd.library.predicting",
    "ResidualSum": "sqakd.sums",
    "SqakdError": "sqakd.errors",
}


def find(name: str) -> Any:
    """Import and return the class or the function behind a name of `FACE`."""
    return getattr(import_module(FACE[name]), name)


class CallableModule(ModuleType):
    """A module that calls the function of `FACE` that has the module's name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return find(self.__name__.rpartition(".")[2])(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:  # shown by help and by notebooks
        return inspect.signature(find(self.__name__.rpartition(".")[2]))


def make_callable(module: str) -> None:
    """Turn an imported module into a `CallableModule`.

    Args:
        module: its `__name__`.
    """
    sys.modules[module].__class__ = CallableModule
