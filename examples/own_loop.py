"""A low-bit backbone of a detector, distilled in a training loop of one's own: python examples/own_loop.py

The backbone returns feature maps, not class logits, so the loss is a function of these maps, and a detector's own loss
could be added to it. The images are made here, and the weights are random: the script shows the calls, in a minute and
without a download. Replace `made_images` by a loader, and `backbone` by a trained network.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone

import sqakd

Maps = dict[str, Tensor]


def made_images(batches: int, size: int) -> Iterator[Tensor]:
    """Yield batches of 4 images [4, 3, size, size]: a bright rectangle on noise, already normalised."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        images = 0.5 * torch.randn(4, 3, size, size, generator=generator)
        for image in images:
            top, left = torch.randint(size // 2, (2,), generator=generator).tolist()
            image[:, top : top + size // 3, left : left + size // 3] += 2
        yield images


def difference_of_maps(student: Maps, teacher: Maps) -> Tensor:
    """Return the mean over all levels of the squared difference of two maps, relative to the teacher's variance."""
    levels = [((student[name] - teacher[name]) ** 2).mean() / teacher[name].var() for name in teacher]
    return torch.stack(levels).mean()


def distil(teacher: BackboneWithFPN, *, bits: int, steps: int, size: int) -> tuple[BackboneWithFPN, list[float]]:
    """Return a quantized copy of a backbone, trained to give the same maps, and the loss of each step."""
    student = sqakd.quantize(teacher, "lsq", bits=bits)
    sqakd.calibrate(student, made_images(1, size))
    distiller = sqakd.Distiller(teacher, loss=difference_of_maps)
    network, quantizer = sqakd.split_parameters(student)
    optimizer = torch.optim.Adam([{"params": network, "lr": 1e-4}, {"params": quantizer, "lr": 1e-5}])
    losses = []
    for images in made_images(steps, size):
        loss = distiller(images, student(images))  # add the detector's own loss here
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return student, losses


def main() -> list[float]:
    """Run the example and return the losses."""
    parser = argparse.ArgumentParser(description="Distil a low-bit detection backbone in a loop of one's own.")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    student, losses = distil(backbone, bits=options.bits, steps=options.steps, size=options.size)
    maps = student(next(made_images(1, options.size)))
    print(f"maps: { ({name: list(one.shape) for name, one in maps.items()}) }")
    print(f"loss: {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last of {len(losses)}")
    return losses


if __name__ == "__main__":
    main()
