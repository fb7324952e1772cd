"""A QONNX file in FINN or hls4ml: python examples/hardware.py finn|hls4ml RUN/export-qonnx/model.onnx

The script needs no GPU, no FPGA tools and not this project, only the tool in an environment of its own:

    pip install finn-plus            # python export.py run=RUN format=qonnx thresholds=true
    pip install 'hls4ml[onnx]' qonnx # python export.py run=RUN format=qonnx; it compiles with g++

`finn` runs the front of the compiler (conversion, streamlining, convolutions as products) and executes the network
after each step. `hls4ml` writes a project for Vitis and runs its simulation in C++. Both print the largest difference
of the logits from those that the package `qonnx` computes from the file, on random images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

Array = npt.NDArray[np.float32]
INSTALL = {"finn": "pip install finn-plus", "hls4ml": "pip install 'hls4ml[onnx]' qonnx"}


def logits(model: Any, images: Array) -> Array:
    """Return the logits that the package `qonnx` computes, one image at a time."""
    source, target = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {source: image[None]})[target] for image in images])


def report(step: str, found: Array, wanted: Array) -> None:
    """Print how logits differ after a step."""
    same = (found.argmax(1) == wanted.argmax(1)).mean()
    print(f"{step:34} largest difference {np.abs(found - wanted).max():.2g}, {100 * same:.1f} % in the same class")


def finn_steps() -> list[Any]:
    """Return the steps of FINN's front, in order."""
    from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN
    from finn.transformation.streamline import Streamline, absorb
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

    return [ConvertQONNXtoFINN(), Streamline(), LowerConvsToMatMul(), absorb.AbsorbTransposeIntoMultiThreshold()]


def run_finn(model: Any, images: Array, wanted: Array) -> None:
    """Take each step, and print what it changes and which nodes there are at the end."""
    for step in finn_steps():
        model = model.transform(step)
        report(type(step).__name__, logits(model, images), wanted)
    kinds = Counter(node.op_type for node in model.graph.node)
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))


def run_hls4ml(model: Any, images: Array, wanted: Array, precision: str) -> None:
    """Simulate the project that hls4ml writes, and print the difference."""
    import hls4ml
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul

    if images.ndim == 4:
        model = model.transform(ConvertToChannelsLastAndClean())
    model = cleanup_model(model.transform(GemmToMatMul()))
    config = hls4ml.utils.config.config_from_onnx_model(
        model, granularity="name", backend="Vitis", default_precision=precision
    )
    with tempfile.TemporaryDirectory() as folder:
        project = hls4ml.converters.convert_from_onnx_model(
            model, output_dir=folder, hls_config=config, backend="Vitis", io_type="io_parallel"
        )
        project.compile()
        report("simulation in C++", project.predict(images).reshape(wanted.shape), wanted)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=["finn", "hls4ml"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--precision", default="fixed<32,16>", help="of hls4ml's values without a quantizer")
    options = parser.parse_args()
    if not options.file.is_file():
        parser.error(f"there is no file {options.file}; python export.py run=RUN format=qonnx writes one")
    if find_spec(options.tool) is None:
        parser.error(f"the package {options.tool} is not installed; use {INSTALL[options.tool]} in its own environment")
    model = cleanup_model(ModelWrapper(str(options.file)))
    shape = model.get_tensor_shape(model.graph.input[0].name)[1:]
    images = np.random.default_rng(0).standard_normal((options.images, *shape)).astype(np.float32)
    wanted = logits(model, images)
    if options.tool == "finn":
        run_finn(model, images, wanted)
    else:
        run_hls4ml(model, images, wanted, options.precision)


if __name__ == "__main__":
    main()
