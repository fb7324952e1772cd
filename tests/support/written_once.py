"""Exports of one network in several tests: torch's exporter, which needs most of the time, writes each form once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from hashlib import sha256
from typing import Any

import onnx
import pytest
from torch import fx, nn

from sqakd.export import onnx_models, pipeline
from sqakd.export.content import Content, integer_content
from sqakd.export.options import Options, Timing
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.export.trained import Trained

UNMEASURED = Timing(rounds=0, seconds=1.0, batches=[1], threads=[1])


@contextmanager
def written_once() -> Iterator[None]:
    """Write each integer model and each float model once; later exports get copies, and run in full apart from that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "integer_content", content_once(integer_content))
        patch.setattr(onnx_models, "to_onnx", float_model_once(to_onnx))
        yield


def content_once(make: Callable[[Trained, Options], Content]) -> Callable[[Trained, Options], Content]:
    """Return a function that returns a copy of the first result for equal networks and equal options of the file."""
    made: dict[str, Content] = {}

    @wraps(make)
    def content(trained: Trained, options: Options) -> Content:
        of_file = dataclasses.replace(options, images=None, gate=None, benchmark=UNMEASURED)
        described = f"{trained.identity} {trained.class_names} {trained.mean} {trained.std} {trained.image_shape}"
        described += f" {trained.preparation}"
        sample = sha256(trained.calibration(options.calibration_images).numpy().tobytes()).hexdigest()
        key = f"{of_file} {described} {sample} {digest(trained.network)}"
        if key not in made:
            made[key] = make(trained, options)
        return copy.deepcopy(made[key])

    return content


def float_model_once(make: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Return a function that returns a copy of the first result for equal float networks."""
    made: dict[str, onnx.ModelProto] = {}

    @wraps(make)
    def model(network: Deployed, *arguments: Any, **options: Any) -> onnx.ModelProto:
        if isinstance(network.network, fx.GraphModule):  # an integer network
            return make(network, *arguments, **options)
        key = f"{network} {network.takes_pixels} {digest(network)} {arguments} {options}"
        if key not in made:
            made[key] = make(network, *arguments, **options)
        return copy.deepcopy(made[key])

    return model


def digest(network: nn.Module) -> str:
    """Return a digest of a network's layers, their plain attributes and their tensors."""
    content = sha256(str(network).encode())
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, str | int | float | None)}
        content.update(f"{name} {plain}".encode())
    for name, tensor in network.state_dict().items():
        content.update(f"{name} {tensor.shape}".encode() + tensor.detach().cpu().numpy().tobytes())
    return content.hexdigest()
