"""examples/hardware.py, with what the package `qonnx` can do in place of FINN and hls4ml, which need environments of
their own."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import command
import numpy as np
import onnx
import pytest
import small
from export_networks import chain

from sqakd.export.qonnx.lower import lower_to_qonnx
from sqakd.export.qonnx.model import qonnx_model

pytest.importorskip("qonnx")
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.base import Transformation
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

SCRIPT = command.ROOT / "examples" / "hardware.py"


class DoubledLogits(Transformation):  # type: ignore[misc]  # the package has no types
    """A step with an error: all parameters of the last layer are doubled."""

    def apply(self, model: ModelWrapper) -> tuple[ModelWrapper, bool]:
        (last,) = model.get_nodes_by_op_type("Gemm")
        for name in last.input[1:]:
            model.set_initializer(name, 2 * model.get_initializer(name))
        return model, False


def written(folder: Path, *, thresholds: bool) -> Path:
    onnx.save(
        qonnx_model(lower_to_qonnx(chain("quantizer=lsq"), thresholds=thresholds), small.SHAPE), folder / "model.onnx"
    )
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the form of FINN."""
    return written(tmp_path_factory.mktemp("export"), thresholds=True)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module that finds both tools installed."""
    spec = importlib.util.spec_from_file_location("hardware", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_spec", lambda _: object())
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hardware.py", *map(str, arguments)])
    script.main()


def differences(printed: str) -> list[float]:
    return [float(number) for number in re.findall(r"largest difference ([\d.e+-]+)", printed)]


def test_the_network_is_executed_after_each_step(
    script: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "finn_steps", lambda: [LowerConvsToMatMul(), DoubledLogits()])
    run(script, monkeypatch, "finn", file, "--images", 4)
    first, second, nodes = capsys.readouterr().out.splitlines()
    assert first.startswith("LowerConvsToMatMul ")
    assert second.startswith("DoubledLogits ")
    same, doubled = differences(f"{first} {second}")
    assert same < 1e-3 < 0.1 < doubled
    assert "100.0 % in the same class" in first
    assert "3 MatMul" in nodes
    assert "Conv" not in nodes


def test_the_simulation_is_compared_with_the_file(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, thresholds=False)
    given: dict[str, Any] = {}

    def convert(model: ModelWrapper, **options: Any) -> SimpleNamespace:
        given.update(options)

        def predict(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            found: np.ndarray[Any, Any] = script.logits(model, images) + np.float32(0.25)
            return found.ravel()

        return SimpleNamespace(compile=lambda: given.update(compiled=True), predict=predict)

    def configure(model: ModelWrapper, **options: Any) -> dict[str, Any]:
        return options

    tool = ModuleType("hls4ml")
    tool.utils = SimpleNamespace(config=SimpleNamespace(config_from_onnx_model=configure))  # type: ignore[attr-defined]
    tool.converters = SimpleNamespace(convert_from_onnx_model=convert)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hls4ml", tool)
    run(script, monkeypatch, "hls4ml", file, "--images", 3, "--precision", "fixed<24,12>")
    (difference,) = differences(capsys.readouterr().out)
    assert difference == pytest.approx(0.25, abs=1e-2)
    assert given["compiled"]
    assert given["hls_config"]["default_precision"] == "fixed<24,12>"


@pytest.mark.parametrize("tool", ["finn", "hls4ml"])
def test_a_missing_file_or_tool_is_refused_in_one_sentence(
    script: ModuleType, file: Path, tool: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(script, monkeypatch, tool, file.with_name("none.onnx"))
    assert f"there is no file {file.with_name('none.onnx')}; python export.py" in capsys.readouterr().err
    monkeypatch.setattr(script, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        run(script, monkeypatch, tool, file)
    assert f"the package {tool} is not installed; use pip install" in capsys.readouterr().err
