"""A made-up accelerator that computes on the CPU and records what would make a real one wait for the host.

Tensors report the device "meta" and hold their values in a tensor on the CPU, so that forward, backward and optimizer
run with true values. As with a real accelerator, an operation on tensors of two devices fails, except for single
numbers on the CPU. Each copy between devices and each read of a value by the host is recorded with the function of
`sqakd` that caused it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.loops import evaluation_loop, training_epoch_loop
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import sqakd

PACKAGE = Path(sqakd.__file__).parent
DEVICE = torch.device("meta")
CPU = torch.device("cpu")
ATEN = torch.ops.aten
# Operations that read a value of the device, and others whose result has a shape that depends on the values.
VALUES = {ATEN._local_scalar_dense.default, ATEN.is_nonzero.default, ATEN.item.default, ATEN.equal.default}
READS = VALUES | {
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN._unique2.default,
    ATEN.unique_dim.default,
    ATEN.unique_consecutive.default,
    ATEN.bincount.default,
    ATEN.repeat_interleave.Tensor,
}
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}
INDEXING = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default, ATEN._index_put_impl_.default}


class Event(NamedTuple):
    """One event that a real accelerator waits for.

    Attributes:
        kind: "value" (the host reads a value), "shape" (the host reads the size of a result), "to host", or "to device"
            for a copy that does not run while the host goes on.
        place: file and function of `sqakd`, e.g. "training/task.py draw"; "Lightning" for other code.
        phase: "step" within a training step of Lightning, "evaluation" within one of a validation, else empty.
    """

    kind: str
    place: str
    phase: str


class MadeUp(Tensor):
    """A tensor on the made-up device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> MadeUp:
        made: MadeUp = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a tensor that has outlived the made-up device")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"MadeUp({self.held!r})"


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes all operations on the CPU, and records the events."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []
        self.phase = ""

    def note(self, kind: str) -> None:
        self.events.append(Event(kind, place(), self.phase))

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        found, self.events = self.events, []
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = {id(x.held): x for x in tensors if isinstance(x, MadeUp)}
        on_device = bool(ours)
        if kwargs.get("device") is not None:
            on_device = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = CPU
        elif func is ATEN.copy_.default:
            on_device = isinstance(args[0], MadeUp)
        if func in COPIES:
            source = args[0] if func is ATEN._to_copy.default else args[1]
            waits = not (kwargs.get("non_blocking") or args[2:3] == (True,))
            if isinstance(source, MadeUp) != on_device and (waits or not on_device):
                self.note("to device" if on_device else "to host")
        elif ours:
            self._check(func, tensors)
        if ours and (func in READS or (func in INDEXING and any(_is_mask(index) for index in args[1]))):
            self.note("value" if func in VALUES else "shape")
        args, kwargs = tree_map(lambda x: x.held if isinstance(x, MadeUp) else x, (args, kwargs))
        out = func(*args, **kwargs)
        # An operation in place returns the tensor that it got.
        return tree_map(lambda x: ours.get(id(x), x) if not on_device else _wrap(x, ours), out)

    def _check(self, func: Any, tensors: list[Tensor]) -> None:
        """Refuse tensors of two devices, except for single numbers on the CPU."""
        for other in tensors:
            if not isinstance(other, MadeUp) and other.ndim:
                raise RuntimeError(f"{func} at {place()}: {tuple(other.shape)} is on the CPU, others on the device")


def _wrap(x: Any, ours: dict[int, MadeUp]) -> Any:
    if not isinstance(x, Tensor):
        return x
    known = ours.get(id(x))
    return MadeUp(x) if known is None else known


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def marked(recorder: Any, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a recorder's events in it marked as those of a phase."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        recorder.phase, before = phase, recorder.phase
        try:
            return function(*args, **kwargs)
        finally:
            recorder.phase = before

    return call


class Functions(TorchFunctionMode):
    """Records functions that copy a tensor without an operation of torch."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy) and isinstance(args[0], MadeUp):
            self.recorder.note("to host")
            return func(args[0].held, *args[1:], **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and torch.device((kwargs or {}).get("device") or "cpu") == DEVICE:
            return func(*args, **{**kwargs, "device": CPU}).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], MadeUp):
            return args[0].held.new_tensor(*args[1:], **(kwargs or {})).to(DEVICE)
        return func(*args, **(kwargs or {}))


def place() -> str:
    """Return file and function of the innermost running function of `sqakd`, or "Lightning"."""
    frame: Any = sys._getframe()
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        own = file.is_relative_to(PACKAGE)  # a checkout may have the package's name too
        if own and not frame.f_code.co_name.startswith(("<", "__torch")):  # comprehensions belong to their function
            return f"{file.relative_to(PACKAGE).as_posix()} {frame.f_code.co_name}"
        frame = frame.f_back
    return "Lightning"


class Accelerator(CPUAccelerator):
    """Lightning's view of the made-up device."""

    def setup_device(self, device: torch.device) -> None:
        """Accept the device."""


def trainer_config() -> dict[str, Any]:
    """Return options of a trainer that trains on the made-up device."""
    return {"strategy": SingleDeviceStrategy(device=DEVICE, accelerator=Accelerator()), "enable_checkpointing": True}


def values(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    """Return the tensors without None, on the CPU."""
    return [x.held if isinstance(x, MadeUp) else x for x in tensors if x is not None]


@contextmanager
def made_up_device() -> Iterator[Recorder]:
    """Yield a recorder; within the block, `.to("meta")` moves tensors to the made-up device."""
    generator, fused = torch.Generator, "_get_fused_kernels_supported_devices"
    supported = getattr(optimizer, fused)()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", lambda *_: generator())
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
        patch.setattr(optimizer, fused, lambda: [*supported, "meta"])
        for loop, name, phase in (
            (training_epoch_loop._TrainingEpochLoop, "advance", "step"),
            (evaluation_loop._EvaluationLoop, "_evaluation_step", "evaluation"),
        ):
            patch.setattr(loop, name, marked(recorder, phase, getattr(loop, name)))
        with recorder, Functions(recorder):
            yield recorder
