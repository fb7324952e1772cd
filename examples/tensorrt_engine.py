"""An exported network in TensorRT: python examples/tensorrt_engine.py RUN, after python export.py run=RUN profile=trt

The script builds an engine from RUN/export-trt/model.onnx, whose Q/DQ nodes fix the layers in int8, and runs the
validation images of the run. It prints the agreement with the trained network, the accuracy and the latency. It needs
an NVIDIA GPU and the package `tensorrt`, version 10 or newer. It was written without a GPU: only the part around the
engine has run, with `--runtime onnxruntime`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sqakd.app.export import trained_network
from sqakd.export.source import read_run
from sqakd.export.to_onnx import INPUT, OUTPUT
from sqakd.export.verify import onnxruntime_session
from sqakd.interrupts import errors_in_one_line
from sqakd.model_file import describe

Infer = Callable[[Tensor], Tensor]


def tensorrt_engine(file: Path, largest_batch: int) -> Infer:
    """Return a function from normalised images [N, 3, H, W] on the GPU to logits [N, classes].

    Args:
        file: ONNX, made with profile=trt.
        largest_batch: the engine accepts batches of 1 up to this size, and is optimised for this size.
    """
    try:
        import tensorrt as trt
    except ModuleNotFoundError:
        raise SystemExit("the package tensorrt is not installed; use pip install tensorrt") from None

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Strongly typed: the types are those of the file, so int8 where it has Q/DQ nodes. New versions know nothing else.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(file.read_bytes()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise SystemExit(f"TensorRT cannot read {file}: {errors}")
    shape = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, *shape), (largest_batch, *shape), (largest_batch, *shape))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"TensorRT built no engine from {file}; its messages above say why")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise SystemExit(f"TensorRT cannot load the engine that it built from {file}")
    context, stream = engine.create_execution_context(), torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def infer(images: Tensor) -> Tensor:
        images = images.contiguous()
        if not context.set_input_shape(INPUT, tuple(images.shape)):
            raise SystemExit(f"the engine does not accept images of shape {tuple(images.shape)}")
        logits = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), device=images.device)
        context.set_tensor_address(INPUT, images.data_ptr())
        context.set_tensor_address(OUTPUT, logits.data_ptr())
        stream.wait_stream(torch.cuda.current_stream())  # which made the images
        if not context.execute_async_v3(stream.cuda_stream):
            raise SystemExit("TensorRT could not run the engine; its messages above say why")
        stream.synchronize()
        return logits

    return infer


def onnxruntime_engine(file: Path, largest_batch: int) -> Infer:
    """Return a function from images to logits that uses ONNX Runtime on the CPU, to try the script without a GPU."""
    _, run = onnxruntime_session(file)
    return lambda images: torch.from_numpy(np.asarray(run(images.numpy())))


ENGINES: dict[str, tuple[Callable[[Path, int], Infer], str]] = {
    "tensorrt": (tensorrt_engine, "cuda"),
    "onnxruntime": (onnxruntime_engine, "cpu"),
}


def milliseconds(infer: Infer, images: Tensor, repetitions: int) -> list[float]:
    """Return the time of each of a number of calls, after five that are not counted."""
    times = []
    for number in range(repetitions + 5):
        begin = time.perf_counter()
        infer(images)  # returns when the logits are there
        if number >= 5:
            times.append(1000 * (time.perf_counter() - begin))
    return times


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run with an export by profile=trt")
    parser.add_argument("--runtime", choices=ENGINES, default="tensorrt")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=200, help="calls whose time is measured")
    given = parser.parse_args(arguments)
    file = given.run / "export-trt" / "model.onnx"
    if min(given.batch, given.repetitions) < 1:
        parser.error("--batch and --repetitions: expected numbers of at least 1")
    if not file.is_file():
        parser.error(f"{file} does not exist; use python export.py run={given.run} profile=trt first")
    with errors_in_one_line():
        takes_pixels = describe(file.read_bytes()).takes_pixels
        trained = trained_network(read_run(given.run))
    make, device = ENGINES[given.runtime]
    infer, network = make(file, given.batch), trained.network.eval()
    equal = right = labelled = total = 0
    for batch in trained.validation():
        parts = torch.split(batch.pixels if takes_pixels else batch.inputs, given.batch)
        predicted = torch.cat([infer(part.to(device)).cpu() for part in parts]).argmax(dim=1)
        equal += int((predicted == network(batch.images).argmax(dim=1)).sum())
        total += len(predicted)
        if batch.labels is not None:
            right += int((predicted == batch.labels).sum())
            labelled += len(predicted)
    print(f"images: {total}")
    print(f"agreement with the trained network: {equal / total:.4f}")
    if labelled:
        print(f"top-1: {right / labelled:.4f}")
    dtype = torch.uint8 if takes_pixels else torch.float32
    for size in (1, given.batch):
        images = torch.zeros(size, *trained.image_shape, dtype=dtype, device=device)
        print(f"ms, batch {size}, median: {statistics.median(milliseconds(infer, images, given.repetitions)):.4g}")


if __name__ == "__main__":
    main()
