"""An exported file as plain C, made by the package emx-onnx-cgen and compiled, compared with ONNX Runtime."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import small
from export_networks import chain, images_for, make
from numpy.typing import NDArray
from onnx_files import run, weights_by_name
from torch import Tensor, fx

from sqakd.export.levels import CountedOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.pack import pack
from sqakd.export.to_onnx import Deployed, to_onnx

pytest.importorskip("emx_onnx_cgen")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def computed_in_c(model: onnx.ModelProto, x: Tensor, folder: Path) -> NDArray[np.float32]:
    """Return the logits that the compiled C code computes, one image at a time."""
    onnx.save(model, folder / "model.onnx")
    program = Path(sys.executable).with_name("emx-onnx-cgen")
    generate = ["compile", "--model-name", "net", "--input-dim", "batch=1", "--large-weight-threshold", "0"]
    subprocess.run([program, *generate, "model.onnx", "net.c"], cwd=folder, check=True, capture_output=True)
    build = ["cc", "-O2", "-std=c99", "-shared", "-fPIC", "net.c", "-o", "net.so", "-lm"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    library = ctypes.CDLL(str(folder / "net.so"))
    logits = np.zeros((len(x), 10), np.float32)
    for image, row in zip(x.numpy(), logits, strict=True):
        library.net(np.ascontiguousarray(image).ctypes.data_as(ctypes.c_void_p), row.ctypes.data_as(ctypes.c_void_p))
    return logits


@cache
def written() -> tuple[fx.GraphModule, onnx.ModelProto]:
    """Return an integer network and its model; neither may be changed."""
    lowered = lower(chain("quantizer=ewgs", "bits=2"), Lowering())
    return lowered, to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast")


@needs_compiler
@pytest.mark.parametrize("packing", ["table", "none"])
def test_c_code_of_a_packed_file_computes_the_same(packing: str, tmp_path: Path) -> None:
    lowered, model = written()
    packed = pack(model, weights_by_name(lowered), packing)  # type: ignore[arg-type]
    x = small.batch(8, seed=7)
    np.testing.assert_allclose(computed_in_c(packed, x, tmp_path), run(packed, x), atol=1e-5)


@needs_compiler
@pytest.mark.slow
def test_c_code_of_a_file_with_counted_layers_computes_the_same(tmp_path: Path) -> None:
    lowered = lower(make("vgg8", "quantizer=lsq", bits=8).eval(), Lowering())
    assert any(isinstance(layer, CountedOutput) for layer in lowered.modules())
    x = images_for("vgg8", 4)
    model = to_onnx(Deployed(lowered, None, None), tuple(x.shape[1:]), weights="cast")  # type: ignore[arg-type]
    np.testing.assert_allclose(computed_in_c(model, x, tmp_path), run(model, x), atol=1e-4)
