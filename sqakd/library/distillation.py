r"""Distillation in a training loop of one's own: the loss between two outputs, and the teacher that gives one of them.

Paper: Zhao & Zhao 2024, "Self-Supervised Quantization-Aware Knowledge Distillation" (https://arxiv.org/abs/2403.11106),
equation 5. Student and teacher get the same images, and no label is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.app.compose import make
from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss
from sqakd.kd.hooks import Features
from sqakd.kd.kl import check_temperature, distillation_kl
from sqakd.kd.objective import Objective
from sqakd.library.batches import check_network, device_of, refused_images
from sqakd.library.presets import kd_node
from sqakd.numbers import check_positive
from sqakd.quantization.probe import in_mode
from sqakd.randomness import stream_seed
from sqakd.training import feature_setup
from sqakd.training.callbacks.divergence import CHECK_INTERVAL

Loss = Callable[[Any, Any], Tensor]


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0, standardize: bool = False
) -> Tensor:
    """Return the KL divergence of the student's softened class distribution from the teacher's, times temperature^2.

    This is the whole training signal of SQAKD. Source: Hinton, Vinyals, Dean 2015 (https://arxiv.org/abs/1503.02531).

    Args:
        student_logits: [N, classes], or [N, classes, H, W] for a prediction at each position.
        teacher_logits: of the same shape; no gradient flows to them.
        temperature: divides both logits; a higher one brings the small probabilities out. 4 in SQAKD.
        standardize: whether the logits get mean 0 and standard deviation 1 over the classes first
            (https://arxiv.org/abs/2403.01427).

    Returns:
        A scalar >= 0 in nats, the mean over all images and positions.

    Raises:
        SqakdError: if the shapes differ or lack a dimension of classes, or the temperature is not from 0.01 to 1000.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> float(distillation_loss(logits, logits))
        0.0
        >>> bool(distillation_loss(-logits, logits) > 0)
        True
    """
    for logits in (student_logits, teacher_logits):
        if not isinstance(logits, Tensor):
            raise SqakdError(f"the outputs are {type(logits).__name__}; expected logits, or a loss= for other outputs")
    if student_logits.shape != teacher_logits.shape or student_logits.ndim < 2:
        raise SqakdError(
            f"the student's logits have shape {list(student_logits.shape)} and the teacher's"
            f" {list(teacher_logits.shape)}; expected the same shape [N, classes, ...]"
        )
    if student_logits.shape[1] < 2 or not student_logits.numel():
        raise SqakdError(
            f"logits of shape {list(student_logits.shape)}: expected at least one image and two classes; the divergence"
            f" of a single class is 0"
        )
    check_temperature(temperature)
    student, teacher = (x.movedim(1, -1).flatten(0, -2) for x in (student_logits, teacher_logits))
    return distillation_kl(student, teacher, temperature=temperature, standardize=standardize)


class Distiller(nn.Module):
    """A frozen teacher and the loss that compares a student with it, for a training loop of one's own.

    Each call runs the teacher on the images and returns the loss. The parameters of the distiller are those of its
    feature loss, if it has one; give them to the optimizer too.

    Args:
        teacher: any network. It is put into evaluation mode and gets no gradients. It must be on the device of the
            images.
        loss: function from the outputs of student and teacher to a scalar. The outputs may have any form, such as
            feature maps or dictionaries. By default `distillation_loss`, which expects logits.
        feature_loss: a loss on inner features, in addition: a name under conf/kd such as "at", or a `FeatureLoss`.
        feature_weight: factor of the feature loss; by default that of conf/kd, or 1.
        student: the network to train; only a feature loss needs it, to read its features.
        layers: names of the student's layers for the feature loss: the first map, the map of each stage, and the pooled
            vector. "fc:input" is the input of the layer fc.
        teacher_layers: the teacher's layers, in the same order; by default those of the student.
        example: images [N, C, H, W] with which the feature loss makes its parameters.
        training_images: number of training images, for a feature loss with a memory bank; 0 otherwise.
        seed: of the feature loss's random numbers.

    Raises:
        SqakdError: if an argument of the feature loss is missing or unknown, it reads labels or has a training stage of
            its own, or the features of student and teacher cannot be compared.

    Example:
        >>> teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> distiller = Distiller(teacher, loss=nn.functional.mse_loss)  # outputs that are not logits
        >>> images = torch.randn(2, 3, 8, 8)
        >>> loss = distiller(images, student(images))
        >>> loss.backward()
        >>> student[0].weight.grad is not None, teacher[0].weight.grad is None
        (True, True)
    """

    teacher: nn.Module

    def __init__(
        self,
        teacher: nn.Module,
        *,
        loss: Loss = distillation_loss,
        feature_loss: str | FeatureLoss | None = None,
        feature_weight: float | None = None,
        student: nn.Module | None = None,
        layers: Sequence[str] = (),
        teacher_layers: Sequence[str] | None = None,
        example: Tensor | None = None,
        training_images: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_network(teacher)
        if not callable(loss):
            raise SqakdError(f"loss={loss!r}: expected a function of the student's and the teacher's output")
        self.loss, self.seed, self.training_images, self.calls = loss, seed, training_images, 0
        self.objective: Objective | None = None
        self.features: tuple[Features, Features] | None = None
        if feature_loss is not None:
            if student is None or example is None:
                raise SqakdError("a feature loss reads both networks; expected student=, layers= and example=")
            made, weight = _feature_loss(feature_loss)
            weight = weight if feature_weight is None else feature_weight
            check_positive("feature_weight", weight)
            self.objective = Objective(
                ce=0.0,
                kl=0.0,
                feature=weight,
                temperature=1.0,
                standardize=False,
                label_smoothing=0.0,
                feature_loss=made,
            )
            others = layers if teacher_layers is None else teacher_layers
            self.features = feature_setup.tap_both(made, student, layers, teacher, others)
            try:
                for network in (student, teacher):
                    with refused_images(example), torch.no_grad(), in_mode(network, training=False):
                        network(example)
                with torch.random.fork_rng(devices=[example.device] if example.is_cuda else []):
                    feature_setup.build(
                        made,
                        self.features,
                        student=student,
                        teacher=teacher,
                        images=example,
                        training_images=training_images,
                        labels=None,
                        seed=stream_seed(seed, "feature loss"),
                    )
            except BaseException:  # whatever it is: no hook stays on networks that cannot be compared
                self.remove()
                raise
            self.to(example.device)
        # Kept outside torch's registry, so that no optimizer and no checkpoint of the distiller contains the teacher.
        self.__dict__["teacher"] = teacher.eval()

    def forward(self, images: Any, output: Any, index: Tensor | None = None) -> Tensor:
        """Return the loss of one batch, a scalar.

        Args:
            images: what both networks take, usually [N, C, H, W].
            output: what the student returned for these images, just before this call.
            index: [N], position of each image in the training set; only a loss with a memory bank needs it.

        Raises:
            SqakdError: if the images are on another device than the teacher, the loss is not a finite scalar, or the
                student has not run on them.
        """
        device = device_of(self.teacher)
        if isinstance(images, Tensor) and images.device != device:
            raise SqakdError(
                f"the images are on {images.device} and the teacher on {device}; expected both on one device"
            )
        if self.calls and self.objective is not None:
            self.objective.after_backward()  # of the call before, whose backward pass has ended by now
        with torch.no_grad():
            target = self.teacher.eval()(images)
        loss = self.loss(output, target)
        if self.objective is not None:
            loss = loss + self._feature_part(output, target, index)
        self._check(loss)
        self.calls += 1
        return loss

    def remove(self) -> None:
        """Take the hooks of a feature loss off both networks, which keep features alive; to call after the training."""
        for features in self.features or ():
            features.remove()

    def _feature_part(self, output: Any, target: Any, index: Tensor | None) -> Tensor:
        """Return the weighted feature loss of the features that both networks have just recorded."""
        assert self.objective is not None
        assert self.features is not None
        if len(self.features[0].recorded) < len(set(self.features[0].taps)):
            raise SqakdError("the student has not run since the last call; expected student(images) before each call")
        student, teacher = (features.take() for features in self.features)
        if index is None:
            if self.training_images:
                raise SqakdError("a loss with a memory bank needs index=, the position of each image")
            index = torch.arange(len(student[0]), device=student[0].device)
        generator = torch.Generator(index.device).manual_seed(stream_seed(self.seed, self.calls, "feature loss"))
        # A loss of features reads the logits only if the networks return logits.
        own, other = (x if isinstance(x, Tensor) else f[0] for x, f in ((output, student), (target, teacher)))
        batch = FeatureBatch(student, teacher, own, other, index, self.objective.draw(index, generator))
        part: Tensor = self.objective(own, other, None, batch)["loss"]
        return part

    def _check(self, loss: Any) -> None:
        """Refuse a loss that is no scalar, or not finite."""
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise SqakdError(f"the loss has {found}; expected a scalar tensor")
        interval = 1 if loss.device.type == "cpu" else CHECK_INTERVAL
        if self.calls % interval == 0 and not bool(torch.isfinite(loss)):
            raise SqakdError(
                f"the loss is {float(loss.detach())} at call {self.calls + 1}: the images, an output of a network or"
                f" the loss itself is not finite"
            )


def _feature_loss(loss: str | FeatureLoss) -> tuple[FeatureLoss, float]:
    """Return a feature loss and its weight.

    Raises:
        SqakdError: if there is none of that name, or the loss cannot work in a loop of one's own.
    """
    weight = 1.0
    if isinstance(loss, str):
        node = kd_node(loss)
        weight, loss = node["feature"], make(node["feature_loss"], "kd.feature_loss")
    if not isinstance(loss, FeatureLoss):
        raise SqakdError(f"feature_loss={loss!r}: expected a name under conf/kd, or a FeatureLoss")
    if loss.needs_labels or loss.has_stage:
        reason = "reads labels" if loss.needs_labels else "has a training stage of its own"
        raise SqakdError(f"{type(loss).__name__} {reason}; expected a feature loss that does not")
    return loss, weight
