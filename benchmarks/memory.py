"""Memory of a training step on a GPU, measured on the CPU as bytes of tensors.

    python benchmarks/memory.py [--images 4] [--bf16]

For each run, student and teacher run on a few images and on twice as many. The tensors that autograd keeps for the
backward pass are counted, each memory once; the difference of both counts is the growth per image. The table gives it
for one image and for the batch size of the recipe. Weights, gradients, optimizer and memory banks do not grow. Not
counted are temporary results of single operations and what the CUDA libraries need for themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from sqakd.app.compose import compose_spec
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.training.task import Task

CONF = Path(__file__).parents[1] / "conf"
# Number of classes, of training images, and side of the network's input.
DATA = {"cifar10": (10, 50_000, 32), "cifar100": (100, 50_000, 32), "tiny_imagenet": (200, 100_000, 224)}
RUNS = [
    ("cifar10", "resnet20", "none", "none"),
    ("cifar10", "resnet20", "ewgs", "sqakd"),
    ("cifar10", "resnet20", "ewgs", "crd"),
    ("cifar10", "vgg8", "ewgs", "sqakd"),
    ("cifar100", "resnet32", "ewgs", "sqakd"),
    ("cifar100", "vgg13", "ewgs", "sqakd"),
    ("cifar100", "vgg13", "ewgs", "cktf"),
    ("tiny_imagenet", "resnet18", "pact", "sqakd"),
    ("tiny_imagenet", "mobilenet_v2", "lsq", "sqakd"),
    ("tiny_imagenet", "vgg11", "dorefa", "sqakd"),
]


class Usage(NamedTuple):
    """Memory of one run in bytes.

    Attributes:
        fixed: weights of both networks, gradients, state of the optimizer, and memory banks.
        banks: the memory banks alone.
        image: tensors kept for the backward pass, for one image.
        batch_size: of the recipe.
    """

    fixed: int
    banks: int
    image: float
    batch_size: int

    def total(self, accumulate: int) -> float:
        """Return the sum with a batch in `accumulate` parts."""
        return self.fixed + self.image * self.batch_size / accumulate


def size(tensors: Iterable[Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@contextmanager
def kept(ignored: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Yield the bytes of each memory that autograd keeps within the block, by its address."""
    others = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # an address is unique only while its memory is in use

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            alive.append(tensor.detach())
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def make_task(run: tuple[str, str, str, str]) -> Task:
    """Return the task of a run, with random weights."""
    dataset, model, quantizer, kd = run
    classes, count, side = DATA[dataset]
    names = [f"dataset={dataset}", f"model={model}", f"quantizer={quantizer}", f"kd={kd}"]
    config: dict[str, Any] = compose_spec([*names, *([] if quantizer == "none" else ["bits=2"])]).config
    student, teacher = (instantiate(config["model"]["net"], num_classes=classes) for _ in range(2))
    batch = torch.randn(4, 3, side, side)
    if config["quantizer"] is not None:
        scheme = instantiate(config["quantizer"])
        quantize(student, scheme, first=config["model"]["first"], image_shape=(3, side, side))
        calibrate(student, batch)
    objective, layers = instantiate(config["kd"]), config["model"]["feature_layers"]
    task = Task(
        student=student.train(),
        teacher=teacher if objective.needs_teacher else None,
        objective=objective,
        recipe=instantiate(config["recipe"]),
        num_classes=classes,
        labelled=True,
        seed=0,
        compile=False,
        channels_last=True,
        feature_layers=layers,
        teacher_feature_layers=layers,
    )
    task.build_feature_loss(batch[:2], training_images=count, labels=torch.arange(count) % classes)
    return task


def measure(run: tuple[str, str, str, str], images: int, *, bf16: bool) -> Usage:
    """Return the memory of a run, from steps on `images` and on twice as many images."""
    task, (classes, _, side) = make_task(run), DATA[run[0]]
    optimizer, sums = task.configure_optimizers(), []
    teacher = [] if task.teacher is None else list(task.teacher.parameters())
    own = [*task.parameters(), *task.buffers(), *teacher]
    for count in (images, 2 * images):
        batch, index = torch.randn(count, 3, side, side).to(memory_format=task.format), torch.arange(count)
        draws = task.objective.draw(index, torch.Generator().manual_seed(0))
        with kept(own) as found, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = task.eager_losses(batch, index % classes, index, draws)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        task.objective.after_backward()
        sums.append(sum(found.values()))
    optimizer.step()
    states = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    image = (sums[1] - sums[0]) / images
    fixed = size(own) + size(parameter.grad for parameter in task.parameters()) + size(states)
    return Usage(int(fixed + sums[0] - image * images), size(task.objective.buffers()), image, task.recipe.batch_size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--bf16", action="store_true", help="as with trainer.precision=bf16-mixed")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="measure the first runs only")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {'bf16' if options.bf16 else 'float32'}, eager, MB of 10^6 bytes")
    print("| run | batch | fixed | of it banks | for one image | whole step | `recipe.accumulate=4` |")
    print("|---|---|---|---|---|---|---|")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for run in RUNS[: options.runs]:
            usage = measure(run, options.images, bf16=options.bf16)
            cells = [usage.fixed, usage.banks, usage.image, usage.total(1), usage.total(4)]
            texts = [f"{value / 1e6:,.{1 if value < 1e8 else 0}f}" for value in cells]
            print("| " + " | ".join([" ".join(run), str(usage.batch_size), *texts]) + " |", flush=True)


if __name__ == "__main__":
    main()
