"""The training task: a student, an objective and a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch
from sqakd.kd.hooks import Features
from sqakd.kd.objective import Objective
from sqakd.quantization.parameters import split_parameters, weight_decays
from sqakd.randomness import stream_seed
from sqakd.training import feature_setup
from sqakd.training.compiled_step import CompiledStep
from sqakd.training.metrics import Means, Scores
from sqakd.training.recipe import Recipe
from sqakd.training.schedule import Progress
from sqakd.training.trainer import steps_per_epoch

KNOWN_BYTES = 2**28  # of the teacher's validation logits that are kept, e.g. 50,000 images with 1,000 classes


class Task(pl.LightningModule):
    """Trains `student` on `objective`; evaluates top-1, top-5 and agreement with the teacher.

    The teacher is frozen: eval mode, no gradient, in no optimizer, in no checkpoint. The task therefore keeps the
    teacher outside torch's module registry and only moves it to the student's device.

    Args:
        student: images [N, C, H, W] -> logits [N, classes]; quantized or float.
        teacher: network with the same inputs and outputs, or None when the objective needs none.
        objective: loss parts and their weights.
        recipe: optimizer and schedule.
        num_classes: width of the logits.
        labelled: whether the images have labels.
        seed: of the global random numbers (dropout), together with epoch and rank.
        compile: whether to run student, teacher and loss as one compiled graph; see also `compile_losses`.
        channels_last: whether to keep activations and weights in that memory format.
        feature_layers: the student's layers for a feature loss: first map, each stage's map, pooled vector.
        teacher_feature_layers: the teacher's layers, in the same order.

    Raises:
        SqakdError: if the objective needs a teacher, labels or feature layers that are not given.
    """

    step_name = "training step"
    teacher: nn.Module | None
    losses: Callable[..., dict[str, Tensor]]
    evaluated_logits: Callable[[Tensor], Tensor]

    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        recipe: Recipe,
        num_classes: int,
        labelled: bool,
        seed: int,
        compile: bool,
        channels_last: bool,
        feature_layers: Sequence[str] = (),
        teacher_feature_layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if objective.needs_teacher and teacher is None:
            raise SqakdError("this kd needs a teacher, and there is none", topic="task.no_teacher")
        if objective.needs_labels and not labelled:
            raise SqakdError("this kd reads labels and the data set has none", topic="task.no_labels")
        self.student = student
        self.objective = objective
        self.recipe = recipe
        self.labelled = labelled
        self.seed = seed
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.student.to(memory_format=self.format)
        self.__dict__["teacher"] = None if teacher is None else _freeze(teacher).to(memory_format=self.format)
        self.__dict__["losses"] = self.eager_losses
        self.__dict__["evaluated_logits"] = self.eager_logits
        self.compiles_at_once = compile
        if compile:
            self.compile_losses(size=None)
        self.features: tuple[Features, Features] | None = None
        if (loss := objective.feature_loss) is not None:
            assert teacher is not None
            self.features = feature_setup.tap_both(loss, student, feature_layers, teacher, teacher_feature_layers)
        self.known_logits: dict[int, Tensor] | None = None  # of the teacher, by the number of the validation batch
        self.train_means = Means(["loss", *objective.parts])
        self.scores = Scores(
            num_classes=num_classes,
            labelled=labelled,
            has_teacher=teacher is not None,
            temperature=objective.temperature,
        )

    def build_feature_loss(self, images: Tensor, *, training_images: int, labels: Tensor | None) -> None:
        """Let the feature loss make its parameters for the networks' shapes, before training and before a resume.

        Args:
            images: a few normalised images [N, C, H, W].
            training_images: size of the training set.
            labels: [training_images], or None.

        Raises:
            SqakdError: if the features of student and teacher cannot be compared.
        """
        loss = self.objective.feature_loss
        if loss is None:
            return
        assert self.features is not None
        assert self.teacher is not None
        feature_setup.build(
            loss,
            self.features,
            student=self.student,
            teacher=self.teacher,
            images=images,
            training_images=training_images,
            labels=labels,
            seed=stream_seed(self.seed, "feature loss"),
        )
        if loss.synchronizes_buffers:  # otherwise DDP would broadcast a whole memory bank before every step
            ignored = [f"objective.feature_loss.{name}" for name, _ in loss.named_buffers()]
            self._ddp_params_and_buffers_to_ignore = ignored

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the teacher along, which torch does not know as a part of this module."""
        if self.teacher is not None:
            self.teacher._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def compile_losses(self, *, size: int | None, on_failure: Callable[[str], None] | None = None) -> CompiledStep:
        """Compute the losses of batches of one size by compiled code from now on; see `CompiledStep`."""
        step = CompiledStep(self.eager_losses, size=size, on_failure=on_failure)
        self.__dict__["losses"] = step
        return step

    def compile_evaluation(self, *, size: int, on_failure: Callable[[str], None]) -> None:
        """Compute the student's logits of validation batches of one size by compiled code from now on."""
        self.__dict__["evaluated_logits"] = CompiledStep(self.eager_logits, size=size, on_failure=on_failure)

    def configure_optimizers(self) -> Optimizer:
        network, quantizer = split_parameters(self.student)
        own = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        return self.recipe.make_optimizer([*network, *own], quantizer, weight_decays(self.student))

    def forward(self, images: Tensor) -> Tensor:
        """Return student logits [N, classes] of normalised images [N, C, H, W]."""
        logits: Tensor = self.student(images.to(memory_format=self.format))
        return logits

    def eager_losses(
        self,
        images: Tensor,
        label: Tensor | None,
        index: Tensor | None = None,
        draws: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the named loss parts of a batch, and their weighted sum under "loss".

        `losses` is this method, or its compiled form.

        Args:
            images: normalised [N, C, H, W].
            label: [N], or None if no part reads labels.
            index: [N], positions in the training set; for feature losses.
            draws: result of `draw`.
        """
        teacher = self.teacher_logits(images) if self.objective.needs_teacher_each_step else None
        student, features = self.student(images), None
        if self.features is not None:
            if self.objective.feature > 0:
                features = self._feature_batch(student, teacher, index, draws)
            else:  # only a stage before the training reads the features
                for recorder in self.features:
                    recorder.recorded.clear()
        losses: dict[str, Tensor] = self.objective(student, teacher, label, features)
        return losses

    def eager_logits(self, images: Tensor) -> Tensor:
        """Return student logits [N, classes] of validation images [N, C, H, W].

        `evaluated_logits` is this method, or its compiled form.
        """
        logits: Tensor = self.student(images)
        if self.features is not None:
            self.features[0].take()  # no score reads them
        return logits

    def _feature_batch(
        self, student: Tensor, teacher: Tensor | None, index: Tensor | None, draws: dict[str, Tensor] | None
    ) -> FeatureBatch:
        """Return the arguments of the feature loss; both networks must have run just before."""
        assert self.features is not None
        assert teacher is not None
        assert index is not None
        return FeatureBatch(self.features[0].take(), self.features[1].take(), student, teacher, index, draws or {})

    @torch.no_grad()
    def feature_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Return the feature loss's terms by layer; a search for the term that is not finite uses them."""
        loss = self.objective.feature_loss
        if loss is None:
            return {}
        teacher = self.teacher_logits(batch.image)
        features = self._feature_batch(self.student(batch.image), teacher, batch.index, self.draw(batch.index))
        return dict(zip(loss.names, loss(features), strict=False))

    def draw(self, index: Tensor) -> dict[str, Tensor]:
        """Draw the feature loss's random numbers on the device, as a function of seed, step and rank."""
        if self.objective.feature_loss is None:
            return {}
        key = (self.seed, self.trainer.global_step, self.global_rank, "feature loss")
        return self.objective.draw(index, torch.Generator(index.device).manual_seed(stream_seed(*key)))

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """Return teacher logits [N, classes] as constants, or None without a teacher."""
        return None if self.teacher is None else self.teacher(images)

    def on_fit_start(self) -> None:
        # Other loaders may shuffle or augment their validation images.
        fixed = isinstance(getattr(self.trainer, "datamodule", None), ImageDataModule)
        self.known_logits = {} if fixed else None

    def on_fit_end(self) -> None:
        self.known_logits = None

    @torch.no_grad()
    def validation_logits(self, images: Tensor, batch_idx: int) -> Tensor | None:
        """Return teacher logits [N, classes] of a validation batch, or None without a teacher.

        In a training on one of this project's data sets each batch is computed once, because neither the images nor the
        teacher change from epoch to epoch. Logits beyond `KNOWN_BYTES` are not kept.
        """
        if self.teacher is None:
            return None
        if self.known_logits is not None and batch_idx in self.known_logits:
            return self.known_logits[batch_idx]
        logits: Tensor = self.teacher(images)
        if self.features is not None:
            self.features[1].take()  # no score reads them
        if self.known_logits is not None and (len(self.known_logits) + 1) * logits.nbytes <= KNOWN_BYTES:
            self.known_logits[batch_idx] = logits
        return logits

    def on_train_epoch_start(self) -> None:
        # Global randomness (dropout) is a function of seed and epoch too, so that a resumed run repeats it.
        torch.manual_seed(stream_seed(self.seed, self.current_epoch, self.global_rank))
        self.train_means.reset()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step, per_epoch = self.trainer.global_step, steps_per_epoch(self.trainer)
        progress = Progress(step=step, steps_per_epoch=per_epoch, epochs=self.recipe.epochs)
        self.recipe.set_lr(self._optimizer(), progress)

    def _optimizer(self) -> Optimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch.image.to(memory_format=self.format)
        losses = self.losses(images, batch.label, batch.index, self.draw(batch.index))
        self.train_means.add(losses, len(images))
        return losses["loss"]

    def on_after_backward(self) -> None:
        self.objective.after_backward()

    def on_train_epoch_end(self) -> None:
        for name, mean in self.train_means.compute().items():
            self.log(f"train/{name}", mean, rank_zero_only=True)
        for name, group in zip(("lr", "quantizer_lr"), self._optimizer().param_groups, strict=False):
            self.log(f"train/{name}", group["lr"], rank_zero_only=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images = batch.image.to(memory_format=self.format)
        logits, teacher = self.evaluated_logits(images), self.validation_logits(images, batch_idx)
        self.scores.add(logits, teacher, batch.label)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.scores.take().items():
            self.log(name, value, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"])
        if "cuda_rng" in checkpoint and self.device.type == "cuda":
            torch.cuda.set_rng_state(checkpoint["cuda_rng"], self.device)


def _freeze(teacher: nn.Module) -> nn.Module:
    """Put a teacher into evaluation mode for good, without gradients."""
    return teacher.eval().requires_grad_(False)
