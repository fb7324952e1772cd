"""The losses of a step compile to one graph, for each quantizer with each loss.

A break of the graph costs a return to Python in every step, and keeps the compiler from fusing what is on both sides.
"""

from __future__ import annotations

import pytest
import step_cases
import torch
from step_cases import make_case

# Options whose losses do not compile to one graph, with the reason. None is known.
BREAKS: dict[tuple[str, str], str] = {}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("quantizer", "kd"), step_cases.cases())
def test_losses_are_one_graph(quantizer: str, kd: str) -> None:
    task = make_case(quantizer, kd)
    images, label, index = step_cases.images_of(0), step_cases.labels_of(step_cases.BATCH), step_cases.index_of(0)
    draws = task.objective.draw(index, torch.Generator().manual_seed(0))
    expected = task.eager_losses(images, label, index, draws)
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(task.eager_losses, fullgraph=True, backend=backend)
    got = compiled(images, label, index, draws)
    assert got.keys() == expected.keys()
    assert len(graphs) == 1
