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
        floating: names of the tensors of floating point numbers.
        classifier: the tensors with a dimension as long as the number of classes: position of that dimension by name.
        classes: number of classes of a network that is given, so that no tensor has a free length; else None. It is 0
            if the network may be of any kind.
    """

    shapes: Mapping[str, tuple[int | None, ...]]
    floating: frozenset[str]
    classifier: Mapping[str, int]
    classes: int | None = None

    @classmethod
    def of_network(cls, network: nn.Module) -> Layout:
        """Read the layout of a network that exists already, whose number of classes does not matter."""
        tensors: dict[str, Tensor] = network.state_dict()
        shapes: dict[str, tuple[int | None, ...]] = {name: tuple(t.shape) for name, t in tensors.items()}
        return cls(shapes, frozenset(name for name, t in tensors.items() if t.is_floating_point()), {}, classes=0)

    @classmethod
    def of(cls, build: Callable[[int], nn.Module]) -> Layout:
        """Read the layout of a network.

        Args:
            build: constructs the network with a number of classes.
        """
        few, more = (_tensors(build, classes) for classes in TRIAL_CLASSES)
        shapes: dict[str, tuple[int | None, ...]] = {}
        classifier: dict[str, int] = {}
        for name in few:
            pairs = list(zip(few[name].shape, more[name].shape, strict=True))
            shapes[name] = tuple(a if a == b else None for a, b in pairs)
            if TRIAL_CLASSES in pairs:
                classifier[name] = pairs.index(TRIAL_CLASSES)
        return cls(shapes, frozenset(name for name, t in few.items() if t.is_floating_point()), classifier)

    def num_classes(self, tensors: Mapping[str, Tensor], *, source: str) -> int:
        """Return the number of classes of a network with these tensors.

        Args:
            tensors: by name.
            source: name of the tensors' origin, for the message.

        Raises:
            CheckpointError: if the tensors lack the classifier, or its tensors have different numbers of classes.
        """
        if self.classes is not None:
            return self.classes
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


def _tensors(build: Callable[[int], nn.Module], classes: int) -> dict[str, Tensor]:
    """Return a network's tensors by name; their values are arbitrary."""
    # The random streams of the run stay as they are, also where a network is initialised on the CPU.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # shapes alone: no memory and no arithmetic
                network = build(classes)
        except Exception:  # some constructors read values, which the meta device does not have; e.g. RegNet
            network = build(classes)
    tensors: dict[str, Tensor] = network.state_dict()
    return tensors
