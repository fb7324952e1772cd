"""What a run leaves behind as numbers: record.json, and the same in one line."""

from __future__ import annotations

import math
import platform
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import sqakd
from sqakd.quantization.cost import Cost
from sqakd.runs.paper import ITS_OWN
from sqakd.runs.spec import Sentence

LOWER_IS_BETTER = ("kl",)


def make_record(
    sentence: Sentence,
    rows: list[dict[str, float]],
    *,
    changes: dict[str, Any],
    cost: Cost,
    labels_used: bool,
    float_record: dict[str, Any] | None,
    paper: dict[str, Any] | None,
    training_seconds: float,
    device: torch.device,
    devices: int = 1,
) -> dict[str, Any]:
    """The record of a finished run, plain data.

    Args:
        sentence: what was run.
        rows: one per epoch, as in metrics.csv.
        changes: values that differ from those of the choices alone.
        cost: of the trained network.
        labels_used: whether the objective read labels.
        float_record: record of the float run the student started from, if it is known.
        paper: the published number of the run's cell, if there is one (`sqakd.runs.paper.published`).
        training_seconds: of all epochs, over all starts.
        device: what it was trained on.
        devices: how many of them.
    """
    config = sentence.config
    names = [key.removeprefix("val/") for key in rows[-1] if key.startswith("val/")]
    judged = [row for row in rows if not row.get("preliminary")]  # the others have more bits than the run
    scores = {
        name: spread(
            [row[f"val/{name}"] for row in judged if f"val/{name}" in row], best=min if name in LOWER_IS_BETTER else max
        )
        for name in names
    }
    record: dict[str, Any] = {
        "name": config["name"],
        "seed": config["seed"],
        "choices": sentence.choices,
        "changes": changes,
        "model": config["model"]["name"],
        "w_bits": config["w_bits"],
        "a_bits": config["a_bits"],
        "epochs": len(rows),
        "scores": scores,
        "labels_used": labels_used,
        "float_run": float_record and {key: float_record[key] for key in ("name", "seed", "scores")},
        "paper": paper,
        "parameters": cost.parameters,
        "packed_bytes": cost.packed_bytes,
        "bit_operations": cost.bit_operations,
        "images_per_second": _median([row["images_per_second"] for row in rows]),
        "training_seconds": round(training_seconds, 2),
        "commit": commit(),
        "versions": versions(),
        "device": device_name(device),
        "devices": devices,
        "threads": torch.get_num_threads(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "train.py", *sentence.overrides]),
    }
    if float_record and "top1" in float_record["scores"] and "top1" in scores:
        record["drop_from_float"] = float_record["scores"]["top1"]["last"] - scores["top1"]["last"]
    if paper and "top1" in scores:
        record["difference_from_paper"] = scores["top1"]["last"] - paper["top1"]
    return record


def _median(rates: list[float]) -> float | None:
    """Middle of the epochs whose rate was measured; an epoch that was resumed in its middle has none."""
    known = sorted(rate for rate in rates if math.isfinite(rate))
    return known[len(known) // 2] if known else None


def spread(values: list[float], *, best: Callable[[list[float]], float]) -> dict[str, float]:
    """Last value, best value, and mean of the last five epochs."""
    tail = values[-5:]
    return {"last": values[-1], "best": best(values), "mean_of_last_5": sum(tail) / len(tail)}


def main_score(record: dict[str, Any]) -> float | None:
    """Last top-1, or agreement with the teacher where there are no labels."""
    scores = record["scores"]
    score = scores.get("top1") or scores.get("agreement")
    return None if score is None else float(score["last"])


def summary(record: dict[str, Any]) -> str:
    """The result in one line."""
    scores = record["scores"]
    parts = [f"{record['name']} seed {record['seed']}"]
    if "top1" in scores:
        parts.append(f"top-1 {100 * scores['top1']['last']:.2f}% (best {100 * scores['top1']['best']:.2f}%)")
    if paper := record.get("paper"):
        note = "" if paper["cell"] == ITS_OWN else f" ({paper['cell']})"
        parts.append(f"paper {100 * paper['top1']:.2f}%{note}")
    if "drop_from_float" in record:
        parts.append(f"float {100 * record['float_run']['scores']['top1']['last']:.2f}%")
    if "agreement" in scores:
        parts.append(f"agrees with its teacher on {100 * scores['agreement']['last']:.2f}%")
    parts.append(f"{record['packed_bytes'] / 1000:.1f} kB packed")
    return ", ".join(parts)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The record's results as a logger wants them: {"record/top1/last": 0.91, ...}."""
    flat = {f"{name}/{kind}": value for name, score in record["scores"].items() for kind, value in score.items()}
    if record.get("paper"):
        flat["paper/top1"] = record["paper"]["top1"]
    differences, costs = ("drop_from_float", "difference_from_paper"), ("packed_bytes", "bit_operations")
    single = (*differences, *costs, "images_per_second", "training_seconds")
    flat |= {name: float(record[name]) for name in single if record.get(name) is not None}
    return {f"record/{name}": value for name, value in flat.items()}


def commit() -> str | None:
    """The code's git commit, with a plus if files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """What the device calls itself; of a processor, its model where the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "cpu")
    return device.type


def versions() -> dict[str, str]:
    """What computed the result."""
    return {
        "sqakd": sqakd.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "lightning": version("pytorch-lightning"),
    }
