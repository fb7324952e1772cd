"""The training task: a student, the objective and a teacher that stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from sqakd.dataset.batch import Batch
from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.hooks import Features
from sqakd.kd.kl import distillation_kl
from sqakd.kd.objective import Objective
from sqakd.quantization.parameters import split_parameters, weight_decays
from sqakd.randomness import stream_seed
from sqakd.training.recipe import Recipe
from sqakd.training.schedule import Progress

RECOMPILE_LIMIT = 256


class Mean(MeanMetric):
    """A mean over images, without the check for NaN that would wait for the device at every step.

    torchmetrics' own way to leave that check out drops the weights
    (https://github.com/Lightning-AI/torchmetrics/issues/3434).
    """

    def update(self, value: Tensor, weight: int) -> None:  # type: ignore[override]
        self.mean_value += value * weight
        self.weight += weight


class Task(pl.LightningModule):
    """Trains `student` on `objective`; evaluates top-1, top-5 and agreement with the teacher.

    The teacher is frozen: eval mode, no gradient, in no optimizer, in no checkpoint. It is therefore kept outside
    torch's module registry and only follows the student's device.

    Args:
        student: images [N, C, H, W] -> logits [N, classes]; quantized or float.
        teacher: the same, or None when the objective needs none.
        objective: loss parts and their weights.
        recipe: optimizer and schedule.
        num_classes: width of the logits.
        labelled: whether the images have labels.
        seed: of the global random numbers (dropout), together with epoch and rank.
        compile: run forward, teacher and loss as one compiled graph.
        channels_last: keep activations and weights in that memory format.
        feature_layers: the student's layers for a feature loss: first map, each stage's map, pooled vector.
        teacher_feature_layers: the teacher's.
    """

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
            raise ValueError("this kd needs a teacher; type teacher.checkpoint=FILE or let the run train one")
        if objective.needs_labels and not labelled:
            raise ValueError("this kd reads labels and the data set has none; type kd=sqakd, which needs no labels")
        self.student = student
        self.objective = objective
        self.recipe = recipe
        self.num_classes = num_classes
        self.labelled = labelled
        self.seed = seed
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.student.to(memory_format=self.format)
        self.__dict__["teacher"] = None if teacher is None else _freeze(teacher).to(memory_format=self.format)
        # A sweep trains many networks in one process; torch would stop compiling after eight different ones.
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        self.__dict__["losses"] = torch.compile(self.eager_losses) if compile else self.eager_losses
        self.features: tuple[Features, Features] | None = None
        if objective.feature_loss is not None:
            assert teacher is not None
            self.features = (
                self._tap(student, feature_layers, key="model.feature_layers"),
                self._tap(teacher, teacher_feature_layers, key="teacher.feature_layers"),
            )
        self.train_means = nn.ModuleDict({part: _mean() for part in ("loss", *objective.parts)})
        self.scores = nn.ModuleDict(self._make_scores())

    teacher: nn.Module | None
    losses: Callable[..., dict[str, Tensor]]

    def _tap(self, network: nn.Module, layers: Sequence[str], *, key: str) -> Features:
        assert self.objective.feature_loss is not None
        if self.objective.feature_loss.uses_layers and len(layers) < 3:
            raise ValueError(
                f"{key}={list(layers)}: this kd looks at the network's layers; name at least three: its first map, the"
                f" map of each stage and its pooled vector, e.g. {key}=[layer1:input,layer1,layer2,fc:input]"
            )
        owner = "student" if network is self.student else "teacher"
        return Features(network, self.objective.feature_loss.taps(layers, network), owner=owner)

    def build_feature_loss(self, images: Tensor, *, training_images: int, labels: Tensor | None) -> None:
        """Let the feature loss make its parameters for the networks' shapes; before training and before a resume.

        Args:
            images: a few normalised images [N, C, H, W].
            training_images: size of the training set.
            labels: [training_images], or None.

        Raises:
            ValueError: if the features of student and teacher do not go together.
        """
        loss = self.objective.feature_loss
        if loss is None:
            return
        assert self.features is not None
        was_training = self.student.training
        with torch.no_grad():
            self.student.eval()(images)
            self.teacher_logits(images)
        self.student.train(was_training)
        student, teacher = self.features
        if len(student.taps) != len(teacher.taps):
            raise ValueError(
                f"this kd compares layers in pairs: {len(student.taps)} of the student ({', '.join(student.taps)}) and"
                f" {len(teacher.taps)} of the teacher ({', '.join(teacher.taps)}); name as many with"
                f" model.feature_layers=[...] and teacher.feature_layers=[...]"
            )
        loss.names = student.taps
        torch.manual_seed(stream_seed(self.seed, "feature loss"))
        loss.setup(
            SetupInfo(
                student=student.take(),
                teacher=teacher.take(),
                network=self.student,
                training_images=training_images,
                labels=labels,
            )
        )
        if loss.synchronizes_buffers:  # a memory of all training images would else be sent around before every step
            ignored = [f"objective.feature_loss.{name}" for name, _ in loss.named_buffers()]
            self._ddp_params_and_buffers_to_ignore = ignored

    def _make_scores(self) -> dict[str, Metric]:
        scores: dict[str, Metric] = {}
        if self.labelled:
            top_k = min(5, self.num_classes)
            for name, k in (("top1", 1), (f"top{top_k}", top_k)):
                scores[name] = MulticlassAccuracy(self.num_classes, top_k=k, average="micro", validate_args=False)
        if self.teacher is not None:
            scores["agreement"] = MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)
            scores["val_kl"] = Mean()
        return scores

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        if self.teacher is not None:
            self.teacher._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def configure_optimizers(self) -> Optimizer:
        network, quantizer = split_parameters(self.student)
        own = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        return self.recipe.make_optimizer([*network, *own], quantizer, weight_decays(self.student))

    def forward(self, images: Tensor) -> Tensor:
        """Student logits [N, classes] of normalised images [N, C, H, W]."""
        logits: Tensor = self.student(images.to(memory_format=self.format))
        return logits

    def eager_losses(
        self,
        images: Tensor,
        label: Tensor | None,
        index: Tensor | None = None,
        draws: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Named loss parts of a batch and their weighted sum under "loss"; `losses` is the same, compiled if asked.

        Args:
            images: normalised [N, C, H, W].
            label: [N], or None where no part reads it.
            index: [N], positions in the training set; for feature losses.
            draws: what `draw` returned.
        """
        teacher = self.teacher_logits(images) if self.objective.needs_teacher_each_step else None
        student, seen = self.student(images), None
        if self.features is not None:
            if self.objective.feature > 0:
                seen = self._seen(student, teacher, index, draws)
            else:  # only a stage before the training needs them
                self.features[0].take()
        losses: dict[str, Tensor] = self.objective(student, teacher, label, seen)
        return losses

    def _seen(
        self, student: Tensor, teacher: Tensor | None, index: Tensor | None, draws: dict[str, Tensor] | None
    ) -> FeatureBatch:
        assert self.features is not None
        assert teacher is not None
        assert index is not None
        return FeatureBatch(self.features[0].take(), self.features[1].take(), student, teacher, index, draws or {})

    @torch.no_grad()
    def feature_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The feature loss's terms by the layer they are about; for finding the one that is not finite."""
        loss = self.objective.feature_loss
        if loss is None:
            return {}
        teacher = self.teacher_logits(batch.image)
        seen = self._seen(self.student(batch.image), teacher, batch.index, self.draw(batch.index))
        return dict(zip(loss.names, loss(seen), strict=False))

    def draw(self, index: Tensor) -> dict[str, Tensor]:
        """The feature loss's random numbers: a function of seed, step and rank, drawn on the device."""
        if self.objective.feature_loss is None:
            return {}
        key = (self.seed, self.trainer.global_step, self.global_rank, "feature loss")
        return self.objective.draw(index, torch.Generator(index.device).manual_seed(stream_seed(*key)))

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """Teacher logits [N, classes] as constants, or None without a teacher."""
        return None if self.teacher is None else self.teacher(images)

    def on_train_epoch_start(self) -> None:
        # Global randomness (dropout) is a function of seed and epoch too, so that a resumed run repeats it.
        torch.manual_seed(stream_seed(self.seed, self.current_epoch, self.global_rank))
        for mean in self.train_means.values():
            mean.reset()  # type: ignore[operator]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer)
        per_epoch = math.ceil(int(self.trainer.num_training_batches) / self.recipe.accumulate)
        progress = Progress(step=self.trainer.global_step, steps_per_epoch=per_epoch, epochs=self.recipe.epochs)
        self.recipe.set_lr(optimizer, progress)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch.image.to(memory_format=self.format)
        losses = self.losses(images, batch.label, batch.index, self.draw(batch.index))
        for name, mean in self.train_means.items():
            mean.update(losses[name].detach(), weight=len(batch.image))  # type: ignore[operator]
        return losses["loss"]

    def on_after_backward(self) -> None:
        self.objective.after_backward()

    def on_train_epoch_end(self) -> None:
        for name, mean in self.train_means.items():
            self.log(f"train/{name}", mean.compute(), rank_zero_only=True)  # type: ignore[operator]
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer)
        for name, group in zip(("lr", "quantizer_lr"), optimizer.param_groups, strict=False):
            self.log(f"train/{name}", group["lr"], rank_zero_only=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images = batch.image.to(memory_format=self.format)
        logits, teacher = self.student(images), self.teacher_logits(images)
        if self.features is not None:
            for features in self.features:
                features.take()
        for name, score in self.scores.items():
            if name.startswith("top"):
                score.update(logits, batch.label)  # type: ignore[operator]
        if teacher is not None:
            self.scores["agreement"].update(logits, teacher.argmax(dim=1))  # type: ignore[operator]
            kl = distillation_kl(logits, teacher, temperature=self.objective.temperature)
            self.scores["val_kl"].update(kl, weight=len(images))  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        for name, score in self.scores.items():
            value = score.compute()  # type: ignore[operator]
            self.log(f"val/{name.removeprefix('val_')}", value, rank_zero_only=True)
            score.reset()  # type: ignore[operator]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"])
        if "cuda_rng" in checkpoint and self.device.type == "cuda":
            torch.cuda.set_rng_state(checkpoint["cuda_rng"], self.device)


def _freeze(teacher: nn.Module) -> nn.Module:
    return teacher.eval().requires_grad_(False)


def _mean() -> Mean:
    mean = Mean()
    mean.persistent(True)  # an epoch that is resumed half-way still reports its whole mean
    return mean
