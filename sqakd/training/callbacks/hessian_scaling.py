r"""EWGS's scaling factors from the curvature of the loss, re-estimated every few epochs.

Paper: Lee, Kim, Ham 2021 (https://arxiv.org/abs/2104.00903), section 3.3. For each quantized tensor q (in the unit
interval), with G the gradient of the loss with respect to q:

    delta = max(0, mean over batches of  (Tr(H) / numel(q)) / (3 std(G)))

Tr(H) is estimated by Hutchinson's method, E[v^T H v] with random signs v. One Hessian-vector product serves *all*
tensors at once: with independent signs the cross terms between tensors vanish in expectation. Where this differs from
the published code: that never calls the estimate at all; its stopping rule divides by a signed number and so stops at
the first negative estimate; it divides by a loop variable. Here the rule uses magnitudes, the number of batches is
explicit, and the curvature is that of the run's own objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.numbers import is_whole
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.randomness import stream_seed
from sqakd.training.task import Task


@dataclass(frozen=True)
class Curvature:
    """Of one batch, per quantizer, in units of the unit interval.

    Attributes:
        trace: estimate of the trace of the Hessian.
        gradient_std: standard deviation of the gradient.
        elements: number of elements of the quantized tensor.
        probes: how many random vectors were used.
    """

    trace: Tensor
    gradient_std: Tensor
    elements: Tensor
    probes: int


class HessianScaling(pl.Callback):
    """Re-estimates every `delta` that is set to "hessian".

    Args:
        update_every: epochs between two estimates; the first is made after that many epochs.
        batches: training batches to average over.
        batch_size: images of each of them.
        max_probes: most random vectors per batch.
        tolerance: stop when the running traces, all together, change by less than this share.
        epsilon: keeps divisions finite where gradients vanish.
    """

    def __init__(
        self,
        *,
        update_every: int,
        batches: int,
        batch_size: int,
        max_probes: int,
        tolerance: float,
        epsilon: float,
    ) -> None:
        for name, value in (("update_every", update_every), ("batches", batches), ("max_probes", max_probes)):
            if not is_whole(value) or value < 1:
                raise ValueError(f"callbacks.hessian_scaling.{name}={value!r}: expected a whole number of at least 1")
        self.update_every, self.batches, self.batch_size = update_every, batches, batch_size
        self.max_probes, self.tolerance, self.epsilon = max_probes, tolerance, epsilon

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning does not call this again when an epoch is resumed in its middle, so each estimate is made once."""
        if trainer.current_epoch == 0 or trainer.current_epoch % self.update_every:
            return
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        targets = [q for q in _quantizers(pl_module.student) if _scaling(q).from_hessian]
        if targets:
            probes = data.probe_batches(count=self.batches, size=self.batch_size, epoch=trainer.current_epoch)
            self.update(pl_module, targets, probes, trainer.current_epoch)

    def update(
        self,
        task: Task,
        targets: Sequence[Quantizer],
        batches: Sequence[Batch],
        epoch: int,
    ) -> None:
        """Write new deltas; an estimate that is not finite leaves its tensor's delta as it was."""
        generator = torch.Generator().manual_seed(stream_seed(task.seed, epoch, "hessian"))
        total = torch.zeros(len(targets), device=task.device)
        for batch in batches:
            images, index = batch.image.to(task.device), batch.index.to(task.device)
            label = None if batch.label is None else batch.label.to(task.device)
            words = (images, label, index, task.draw(index))
            with _buffers_kept(task.objective):
                curvature = estimate(
                    lambda words=words: task.eager_losses(*words)["loss"],  # type: ignore[misc]
                    task.student,
                    targets,
                    max_probes=self.max_probes,
                    tolerance=self.tolerance,
                    generator=generator,
                )
            total += curvature.trace / curvature.elements / (3 * curvature.gradient_std + self.epsilon)
        deltas = (total / len(batches)).clamp_min(0)
        for quantizer, delta in zip(targets, deltas, strict=True):
            buffer = _scaling(quantizer).delta
            buffer.copy_(torch.where(torch.isfinite(delta), delta, buffer))


def estimate(
    loss: Callable[[], Tensor],
    model: nn.Module,
    targets: Sequence[Quantizer],
    *,
    max_probes: int,
    tolerance: float,
    generator: torch.Generator,
) -> Curvature:
    """Hessian traces of a loss with respect to the outputs of some quantizers.

    The model runs in training mode; its buffers (batch-norm statistics) are put back afterwards.

    Args:
        loss: runs the model and returns its loss.
        model: owner of the quantizers.
        targets: quantizers whose codes are differentiated.
        max_probes: most random vectors.
        tolerance: relative change of the traces (sum of magnitudes) below which to stop; 0 uses all probes.
        generator: of the random signs, on the CPU.
    """
    with _recorded_codes(targets) as codes, _buffers_kept(model), torch.enable_grad(), _twice_differentiable():
        value = loss()
        tensors = [codes[quantizer] for quantizer in targets]
        gradients = torch.autograd.grad(value, tensors, create_graph=True)
        running = torch.zeros(len(tensors), device=value.device)
        probes = 0
        for probes in range(1, max_probes + 1):
            signs = [_signs(tensor, generator) for tensor in tensors]
            products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True, materialize_grads=True)
            sample = torch.stack([(v * hv).sum() for v, hv in zip(signs, products, strict=True)])
            change = (sample - running) / probes
            running = running + change
            if probes > 1 and bool(change.abs().sum() < tolerance * running.abs().sum()):
                break
    # The rounding's output counts `steps` codes per unit interval: derivatives scale with it once per order.
    unit = running.new_tensor([quantizer.steps for quantizer in targets])
    std = torch.stack([gradient.detach().std() for gradient in gradients])
    elements = running.new_tensor([tensor.numel() for tensor in tensors])
    return Curvature((running * unit**2).detach(), std * unit, elements, probes)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)


def _scaling(quantizer: Quantizer) -> ElementWiseGradientScaling:
    assert isinstance(quantizer.rounding, ElementWiseGradientScaling)
    return quantizer.rounding


def _quantizers(model: nn.Module) -> Iterator[Quantizer]:
    for _, layer in quant_layers(model):
        for quantizer in (layer.weight_quantizer, layer.input_quantizer):
            if isinstance(quantizer.rounding, ElementWiseGradientScaling):
                yield quantizer


@contextmanager
def _recorded_codes(targets: Sequence[Quantizer]) -> Iterator[dict[Quantizer, Tensor]]:
    """Rounding outputs of one forward pass, by quantizer: integers 0 .. steps with their place in the graph."""
    codes: dict[Quantizer, Tensor] = {}

    def record(quantizer: Quantizer) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            codes[quantizer] = output

        return hook

    hooks = [quantizer.rounding.register_forward_hook(record(quantizer)) for quantizer in targets]
    try:
        yield codes
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Compute what torch fuses without a second derivative (attention, hard sigmoid) from parts that have one.

    Raises:
        ValueError: if a network has another such part.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH), _Parts():
            yield
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise ValueError(
            f"this network has no second derivatives, which EWGS's scaling needs ({error}); type"
            f" quantizer.rounding.delta=0.001 for a fixed scaling, or quantizer/rounding=ste"
        ) from error


class _Parts(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.hardsigmoid:
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(kept[name])
