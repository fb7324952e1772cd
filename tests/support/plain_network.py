"""A network without batch norm or dropout: nothing in it depends on how a batch is divided among devices."""

from torch import nn


def plain_network(*, num_classes: int, blocks: int) -> nn.Module:
    """Images [N, 3, 32, 32] -> logits [N, num_classes]; `blocks` is not used, it is in the words of all small runs."""
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
