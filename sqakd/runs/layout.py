"""Layout of a network's tensors: their names and their shapes, for any number of classes.

A file does not say which of its tensors is the classifier. Their order is no answer: safetensors files are sorted by
name, and profilers add counters after the last layer. The network itself is the answer. It is constructed with two
numbers of classes, and the tensors whose shapes differ are the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqakd.errors import some
from sqakd.runs.checkpoint import CheckpointError

# Two numbers of classes to construct a network with.
TRIAL_CLASSES = (3, 5)


@dataclass(frozen=True)
class Layout:
    """The names and shapes of a network's tensors.

    Attributes:
        shapes: by name; None stands for a length that depends on the number of classes.
        classifier: the tensors with a dimension as long as the number of classes: position of that dimension by name.
    """

    shapes: Mapping[str, tuple[int | None, ...]]
    classifier: Mapping[str, int]

    @classmethod
    def of(cls, build: Callable[[int], nn.Module]) -> Layout:
        """Read the layout of a network.

        Args:
            build: constructs the network with a number of classes.
        """
        few, more = (_shapes(build, classes) for classes in TRIAL_CLASSES)
        shapes: dict[str, tuple[int | None, ...]] = {}
        classifier: dict[str, int] = {}
        for name in few.keys() & more.keys():
            pairs = list(zip(few[name], more[name], strict=True))
            shapes[name] = tuple(a if a == b else None for a, b in pairs)
            if TRIAL_CLASSES in pairs:
                classifier[name] = pairs.index(TRIAL_CLASSES)
        return cls({name: shapes[name] for name in few}, {name: classifier[name] for name in few if name in classifier})

    def num_classes(self, tensors: Mapping[str, Tensor], *, source: str) -> int:
        """Return the number of classes of a network with these tensors.

        Args:
            tensors: by name.
            source: name of the tensors' origin, for the message.

        Raises:
            CheckpointError: if the tensors lack the classifier, or its tensors have different numbers of classes.
        """
        dims = {name: dim for name, dim in self.classifier.items() if name in tensors and tensors[name].ndim > dim}
        lengths = {tensors[name].shape[dim] for name, dim in dims.items()}
        if not lengths:
            raise CheckpointError(
                f"{source} was made for another network: it lacks the classifier, {some(list(self.classifier))}",
                topic="checkpoint.other_network",
            )
        if len(lengths) > 1:
            raise CheckpointError(
                f"{source} has several numbers of classes: {', '.join(map(str, sorted(lengths)))} in {some(list(dims))}"
            )
        return int(lengths.pop())


def _shapes(build: Callable[[int], nn.Module], classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors by name."""
    # The random streams of the run stay as they are, also where a network is initialised on the CPU.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # shapes alone: no memory and no arithmetic
                network = build(classes)
        except Exception:  # some constructors read values, which the meta device does not have; e.g. RegNet
            network = build(classes)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
