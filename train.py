"""Train one network, or many: python train.py quantizer=ewgs model=resnet20 bits=2 (see conf/train.yaml)."""

from pathlib import Path

from sqakd.interrupts import exit_on_interrupt

if __name__ == "__main__":  # not in the processes of a sweep
    exit_on_interrupt("the same command continues")

import hydra
from omegaconf import DictConfig

from sqakd.app import start
from sqakd.app.command import run_command


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Hydra calls this once per run."""
    return start.train(cfg)


if __name__ == "__main__":
    run_command(main, Path(__file__).with_name("conf"))
