"""A network without batch norm or dropout, so that results do not depend on the division of a batch among devices."""

from torch import nn


def plain_network(*, num_classes: int, blocks: int) -> nn.Module:
    """Return a network from images [N, 3, 32, 32] to logits [N, num_classes].

    `blocks` is ignored; it is among the overrides of all small runs.
    """
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, num_classes),
    )
