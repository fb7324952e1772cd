"""The texts of --help, made of the configuration files, so that they list what there is."""

from __future__ import annotations

import textwrap

from sqakd.shipped import conf_folder
from sqakd.terminal import program

WIDTH = 100
# The groups of conf/train.yaml that people choose, and what each one decides. `--info defaults` prints all groups.
GROUPS = {
    "quantizer": "method of quantization",
    "model": "network",
    "dataset": "images",
    "kd": "loss",
    "plus": "add-ons",
    "quantizer/rounding": "rounding rule",
    "recipe": "optimizer and length",
    "trainer": "devices",
    "logger": "views of a run",
    "table": "runs of a table",
    "experiment": "named run",
    "hydra/launcher": "processes of a sweep",
}
TRAIN = """{name} [GROUP=OPTION ...] [KEY=VALUE ...] [-m]: train a low-bit network without labels

  {name} quantizer=ewgs model=resnet20 bits=2        train a run, its float teacher first
  {name} bits=1,2 seed=0,1,2 -m                      train several runs, a sweep
  {name} table=table5 plan=true                      list the runs of a table, with times

{groups}

KEY=VALUE changes any value, e.g. seed=1 recipe.epochs=50 kd.temperature=2 paths.runs=FOLDER
--cfg job      print all values of a command and train nothing
--config-dir   folder with your own options; settings of your machine: conf/local/default.yaml
"""
EXPORT = """{name} run=FOLDER [KEY=VALUE ...]: write a finished run as an ONNX file of integers

  {name} run=runs/digits-resnet20-ewgs-w2a2-sqakd/seed0
  {name} run=runs/digits-resnet20-ewgs-w2a2-sqakd/seed0 profile=int8 benchmark.rounds=0

{keys}
"""


SENSITIVITY = """{name} run=FOLDER [KEY=VALUE ...]: measure what fewer bits cost, for each layer of a float run

  {name} run=runs/digits-resnet20-none-w32a32-none/seed0
  {name} run=runs/digits-resnet20-none-w32a32-none/seed0 method=lsq criterion=curvature

{keys}
"""
# Commands whose help lists the keys of their own file.
WITH_KEYS = {"export": EXPORT, "sensitivity": SENSITIVITY}


def help_text(command: str) -> str:
    """Return the text of --help of "train", "export" or "sensitivity".

    Example:
        >>> help_text("export").splitlines()[0]
        'python export.py run=FOLDER [KEY=VALUE ...]: write a finished run as an ONNX file of integers'
    """
    name = program("python -m sqakd.sensitivity" if command == "sensitivity" else f"python {command}.py")
    if command in WITH_KEYS:
        lines = (conf_folder() / f"{command}.yaml").read_text(encoding="utf-8").splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("run:"))
        return WITH_KEYS[command].format(name=name, keys="\n".join(f"  {line}" for line in lines[first:]))
    return TRAIN.format(name=name, groups="\n".join(map(_group_line, GROUPS)))


def _group_line(group: str) -> str:
    """Return one line about a group: its name, what it decides, and its options, as far as they fit."""
    options = sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
    line = f"{group}= {GROUPS[group]}: {', '.join(options)}"
    return textwrap.shorten(line, WIDTH, placeholder=" ...")
