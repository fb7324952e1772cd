"""Forward passes of one network with another layer in one place; nothing before that layer is computed again.

The outputs of all modules without children are recorded in one pass. In a later pass, the modules that run before the
replaced layer return their recorded outputs. The network is not traced, so this works for any network whose modules run
in the same order for the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


class Replay:
    """Records one batch and repeats its forward pass with other layers.

    Args:
        model: network in evaluation mode, images -> logits.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.leaves = [module for module in model.modules() if not any(True for _ in module.children())]
        self.outputs: list[Any] = []
        self.changed_in_place: list[bool] = []
        self.first_call: dict[nn.Module, int] = {}
        self.position = 0
        self.images = torch.empty(0)

    @torch.no_grad()
    def record(self, images: Tensor) -> Tensor:
        """Run the network and keep the outputs of its modules.

        Args:
            images: normalised batch [N, C, H, W].

        Returns:
            Logits of the unchanged network.
        """
        passed_on: list[tuple[Any, int]] = []
        self.outputs, self.first_call, self.images = [], {}, images

        def keep(module: nn.Module) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = type(module).forward(module, *args, **kwargs)
                self.first_call.setdefault(module, len(self.outputs))
                is_tensor = isinstance(output, Tensor)
                passed_on.append((output, output._version if is_tensor else 0))
                self.outputs.append(output.clone() if is_tensor else output)
                return output

            return forward

        with self._forwards(keep):
            logits: Tensor = self.model(images)
        # A tensor that nothing changes in place can be handed out again without a copy.
        self.changed_in_place = [isinstance(made, Tensor) and made._version != before for made, before in passed_on]
        return logits

    @torch.no_grad()
    def run(self, layer: nn.Module, forward: Forward) -> Tensor:
        """Return the logits of the recorded images with another forward pass of one layer.

        Args:
            layer: module without children that ran in the recorded pass.
            forward: maps the layer's input to its output, in each call of the layer.
        """
        start, self.position = self.first_call[layer], 0

        def repeat(module: nn.Module) -> Callable[..., Any]:
            def replayed(*args: Any, **kwargs: Any) -> Any:
                position = self.position
                self.position += 1
                if position < start:
                    kept = self.outputs[position]
                    return kept.clone() if self.changed_in_place[position] else kept
                return forward(*args) if module is layer else type(module).forward(module, *args, **kwargs)

            return replayed

        with self._forwards(repeat):
            logits: Tensor = self.model(self.images)
        return logits

    @contextmanager
    def _forwards(self, make: Callable[[nn.Module], Callable[..., Any]]) -> Iterator[None]:
        """Give each module without children another forward function during the block."""
        for module in self.leaves:
            module.__dict__["forward"] = make(module)
        try:
            yield
        finally:
            for module in self.leaves:
                del module.__dict__["forward"]
