"""benchmarks/gpu.py without a GPU: its parts run on the CPU in small size, and it says what it needs."""

from __future__ import annotations

import sys

import gpu
import memory
import pytest
import step
import torch
from hydra import initialize_config_dir


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/gpu.py", *arguments])
    monkeypatch.setattr(step, "BATCH", step.BATCH)  # restored afterwards
    gpu.main()


def test_steps_and_data_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--dry", "--parts", "steps", "data")
    out = capsys.readouterr().out
    assert "| eager float32 | " in out
    assert "Tiny-ImageNet: batch 64, n = 1 passes" in out


@pytest.mark.slow
def test_all_parts_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--dry")
    assert "a killed and continued run has the weights of an uninterrupted run" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="needs a CUDA GPU, and torch finds none; --dry runs its parts"):
        run(monkeypatch)


def test_kept_tensors_of_a_known_network_are_counted() -> None:
    layer = torch.nn.Linear(4, 3)
    x = torch.randn(5, 4)
    with memory.kept(layer.parameters()) as found:
        layer(x).relu().sum()
    assert sum(found.values()) == 4 * (5 * 4 + 5 * 3)  # the input of the layer, and the output of the ReLU


def test_quantization_and_memory_banks_need_memory_that_accumulation_does_not_save() -> None:
    with initialize_config_dir(str(memory.CONF), version_base="1.3"):
        plain, quantized, crd = (memory.measure(run, 2, bf16=False) for run in memory.RUNS[:3])
    assert plain.image < quantized.image < 2 * plain.image
    assert crd.banks == 2 * 50_000 * 128 * 4 + 50_000 * 8 + 10 * 8 + 2 * 4  # rows, labels, classes and Z
    assert crd.total(4) - crd.fixed == pytest.approx((crd.total(1) - crd.fixed) / 4)
