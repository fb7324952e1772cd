"""A configuration from a file constructs the parts of this project, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import command
import pytest
import yaml

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder, find_runs
from sqakd.runs.targets import check_targets, is_own

CONF = command.ROOT / "conf"
OLD_RUNS = command.ROOT / "tests" / "old_runs"
FILE = Path("runs/x/seed0/config.yaml")
EVALUATE = "sqakd.dataset.transforms.resize.ResizeCentreCrop"


def targets(node: Any) -> list[str]:
    """Return the import paths in plain data."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    own = [node["_target_"]] if isinstance(node, dict) and "_target_" in node else []
    return own + [path for value in inner for path in targets(value)]


PARTS = sorted(
    {
        path
        for group in ("dataset", "kd", "model", "plus", "quantizer", "recipe")
        for file in (CONF / group).rglob("*.yaml")
        for path in targets(yaml.safe_load(file.read_text()))
    }
)


@pytest.mark.parametrize("path", PARTS)
def test_every_part_of_the_configuration_groups_is_accepted(path: str) -> None:
    assert is_own(path)


@pytest.mark.parametrize("path", ["torch.optim.AdamW", "torch.optim.lr_scheduler.StepLR", "torch.optim.sgd.SGD"])
def test_optimizers_and_schedules_of_torch_are_accepted(path: str) -> None:
    assert is_own(path)


@pytest.mark.parametrize(
    "path",
    [
        "os.mkdir",
        "joblib.load",
        "numpy.load",
        "torch.load",
        "torch.optim.sgd.torch.load",
        "torch.optim.os.system",
        "torch.optim.optimizer.functools.partial",
        "torch.optim.optimizer.defaultdict",
        "torch.optimx.SGD",
        "sqakd.files.os.mkdir",
        "sqakd.files.write_text",
        "sqakd.dataset.cifar.shutil.rmtree",
        "sqakd.dataset.decoded.Path",
        "sqakd.dataset.decoded.write_text",
        "sqakd.export.measured_process.MeasuredProcess",
        "sqakd.dataset.cifar.CIFAR10.setup",
        "sqakd.models.timm._timm",
        "sqakd.models.torchvision.models.get_model",
        "sqakd.dataset.no_such_module.Digits",
        "sqakd.dataset.digits.NoSuchClass",
        "sqakd.dataset..digits.Digits",
        "hydra.utils.get_method",
        "__main__.main",
        "Digits",
        ".",
        "",
        None,
        3,
        ["os.mkdir"],
        {"_target_": "os.mkdir"},
    ],
)
def test_anything_else_is_refused(path: object) -> None:
    assert not is_own(path)


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"_target_": "os.mkdir"}, "dataset._target_"),
        ({"_target_": EVALUATE, "evaluate": {"_target_": "os.mkdir"}}, "dataset.evaluate._target_"),
        ({"_target_": EVALUATE, "_args_": [1, [{"_target_": "os.mkdir"}]]}, "dataset._args_[1][0]._target_"),
        ({"plain": {"deep": {"_target_": "os.mkdir", "_partial_": True}}}, "dataset.plain.deep._target_"),
    ],
)
def test_the_key_and_the_path_of_a_nested_class_are_named(node: dict[str, Any], key: str) -> None:
    with pytest.raises(SqakdError, match=re.escape(f"{FILE}: {key} is 'os.mkdir'")) as refused:
        check_targets({"dataset": node}, ("dataset",), file=FILE)
    assert "docs/extending.md" in explain(refused.value)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "${oc.env:HOME}"},
        {"_target_": EVALUATE, "evaluate": "${oc.decode:'{_target_: os.mkdir, path: x}'}"},
        {"_target_": EVALUATE, "evaluate": ["${oc.create:'{_target_: os.mkdir}'}"]},
        {"_target_": EVALUATE, "${x}": 1},
        "${kd}",
    ],
)
def test_interpolations_are_refused(node: object) -> None:
    with pytest.raises(SqakdError, match="holds plain values"):
        check_targets({"dataset": node}, ("dataset",), file=FILE)


def test_only_nodes_that_are_constructed_are_checked() -> None:
    """A run may have logged with any logger."""
    config = {"dataset": {"_target_": EVALUATE}, "logger": {"_target_": "pytorch_lightning.loggers.TensorBoardLogger"}}
    check_targets(config, ("dataset", "quantizer"), file=FILE)


@pytest.mark.parametrize("folder", [f for runs in sorted(OLD_RUNS.iterdir()) for f in find_runs(runs)], ids=str)
def test_runs_of_earlier_versions_are_accepted(folder: RunFolder) -> None:
    check_targets(folder.read_config(), ("dataset", "model", "quantizer", "kd", "recipe"), file=folder.config)
