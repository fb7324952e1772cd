"""Export a finished run: python export.py run=runs/digits-resnet20-ewgs-w2a2-sqakd/seed0 (see conf/export.yaml)."""

from pathlib import Path

from sqakd.interrupts import exit_on_interrupt

if __name__ == "__main__":  # not in the processes of a sweep
    exit_on_interrupt("nothing was replaced, the same command starts again")

import hydra
from omegaconf import DictConfig

from sqakd.app import start
from sqakd.app.command import run_command


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(cfg: DictConfig) -> float | None:
    """Hydra calls this once per run."""
    return start.export(cfg)


if __name__ == "__main__":
    run_command(main, Path(__file__).with_name("conf"))
