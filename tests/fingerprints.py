"""Prove that a change of the code changes no result: digests of some thirty small runs and of their exports.

    python tests/fingerprints.py FOLDER/before.json --checkout PATH_OF_THE_OLD_CHECKOUT
    python tests/fingerprints.py FOLDER/after.json
    diff FOLDER/before.json FOLDER/after.json

Both commands must run on the same machine, because another processor may round differently. A digest covers the
weights bit for bit, every number of the record and of the curves, and the ONNX file. It leaves out what differs between
any two runs: times, commit, versions, and paths.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "dataset=digits16",
    "dataset.limit=192",
    "model.net.blocks=1",
    "recipe.epochs=2",
    "teacher.recipe.epochs=2",
    "callbacks.hessian_scaling.update_every=1",
    "trainer.accelerator=cpu",
]
SWEEPS = [
    ["quantizer=ewgs,lsq,pact,dorefa,ste,ewgs_released,lsq_released,pact_released,dorefa_released"],
    ["quantizer=lsq", "bits=4", "kd=none,kd,at,squat,vid,dist,lskd"],
    ["quantizer=lsq", "bits=4,8", "kd=crd", "kd.feature_loss.negatives=64"],
    ["quantizer=lsq", "bits=4,8", "kd=cktf", "kd.feature_loss.negatives=64"],
    ["quantizer=lsq", "bits=4,8", "kd=fsp", "kd.feature_loss.pretrain_epochs=1"],
    ["quantizer=lsq", "bits=4,8", "kd=ft", "kd.feature_loss.pretrain_epochs=1"],
    ["plus=[cutmix],[trivial],[ema],[bn],[dampen],[progressive],[two_step],[bn,ema]", "name=${cell}-plus"],
    ["quantizer=ewgs,lsq", "w_bits=1", "a_bits=4", "quantizer.per_channel=true", "quantizer.first_last=8"],
    ["quantizer=ewgs,lsq", "quantizer/rounding=ste,ewgs", "bits=3", "seed=1"],
]
KILLED = ["quantizer=ewgs", "name=killed", "callbacks.progress._target_=kill_at.KillAt"]
KILL = {"victim": "killed", "epoch": "1", "step": "1", "signal_name": "SIGTERM"}
EXPORTS = [
    ("digits16-resnet20-ewgs-w2a2-sqakd", "exact"),
    ("digits16-resnet20-lsq-w2a2-sqakd", "exact"),
    ("digits16-resnet20-pact-w2a2-sqakd", "exact"),
    ("digits16-resnet20-dorefa-w2a2-sqakd", "exact"),
    ("digits16-resnet20-ewgs-w2a2-sqakd", "int8"),
    ("digits16-resnet20-lsq-w2a2-sqakd", "trt"),
]
# Keys whose values differ between two runs of the same code.
VOLATILE = {
    "commit",
    "versions",
    "finished",
    "command",
    "images_per_second",
    "training_seconds",
    "weights_sha256",
    "config_hash",
    "benchmark",
    "created",
    "run",
    "float_source",
    "sha256",
    "threads",
    "version",
    "_target_",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="code to run; default: this checkout")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) / "runs"
        for words in SWEEPS:
            command(arguments.checkout, "train.py", [*SMALL, *words, f"paths.runs={runs}", "-m"])
        kill = [f"+callbacks.progress.{key}={value}" for key, value in KILL.items()]
        command(arguments.checkout, "train.py", [*SMALL, *KILLED, *kill, f"paths.runs={runs}"], status=143)
        command(arguments.checkout, "train.py", [*SMALL, *KILLED[:2], f"paths.runs={runs}"])
        for name, profile in EXPORTS:
            words = [f"run={runs / name / 'seed0'}", f"profile={profile}", "benchmark.rounds=0", "gate=0"]
            command(arguments.checkout, "export.py", words)
        found = {f"{run.parent.name}/{run.name}": digests(run) for run in sorted(runs.glob("*/seed*"))}
    arguments.output.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def command(checkout: Path, script: str, words: list[str], status: int = 0) -> None:
    environment = os.environ | {
        "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'tests'}{os.pathsep}{checkout / 'tests' / 'support'}",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"HYDRA_FULL_ERROR": "1"}
    print(script, *words, flush=True)
    done = subprocess.run([sys.executable, script, *words], cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    assert done.returncode == status, f"exit code {done.returncode}, expected {status}"


def digests(run: Path) -> dict[str, str]:
    """One digest per kind of result of a run."""
    weights = torch.load(run / "weights.pt", weights_only=True)["weights"]
    found = {
        "weights": digest([(name, tensor.numpy().tobytes().hex()) for name, tensor in sorted(weights.items())]),
        "record": digest(stable(json.loads((run / "record.json").read_text()))),
        "metrics": digest(table(run / "metrics.csv")),
        "config": digest(stable(own(yaml.safe_load((run / "config.yaml").read_text())))),
    }
    if (run / "quantizers.csv").exists():
        found["quantizers"] = digest(last_epoch(table(run / "quantizers.csv")))
    for file in sorted(run.glob("export-*/model.onnx")):
        model = onnx.load(file)
        facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        del model.metadata_props[:]
        model.producer_version = ""
        found[f"{file.parent.name}/graph"] = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        found[f"{file.parent.name}/facts"] = digest(stable(facts))
    return found


def own(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration without the keys that say where and how it is executed."""
    execution = ("paths", "logger", "choices", "inputs", "cell", "released")
    kept = {key: value for key, value in config.items() if key not in execution}
    kept["callbacks"]["quantizer_statistics"].pop("file")  # a path
    return kept


def stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stable(inner) for key, inner in value.items() if key not in VOLATILE}
    return [stable(inner) for inner in value] if isinstance(value, list) else value


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return [stable(row) for row in csv.DictReader(lines)]


def last_epoch(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows of the last epoch as earlier commits wrote them: without epoch and name of the layer."""
    kept = [row for row in rows if row.get("epoch") == rows[-1].get("epoch")]
    return [{key: value for key, value in row.items() if key not in ("epoch", "name") and value} for row in kept]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


if __name__ == "__main__":
    main()
