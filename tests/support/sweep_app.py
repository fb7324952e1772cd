"""A sweep without training: python sweep_app.py FOLDER seed=0,1,... hydra/launcher=... -m

The seed decides the fate of a job: 0-9 succeed, 10 fails with a user error, 11 fails with an unexpected error, 12 is
killed once and then succeeds, 13 is killed each time, 14 runs until it gets a SIGTERM and succeeds the next time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sqakd.app import resolvers
from sqakd.app.errors import RunFailed

CONF = str(Path(__file__).resolve().parents[2] / "conf")


def run(cfg: DictConfig) -> float:
    folder = Path(cfg.paths.runs) / cfg.name / f"seed{cfg.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    record, tried = folder / "record.json", folder / "tried"
    if record.exists():
        return 0.5
    first_try = not tried.exists()
    with tried.open("a") as file:
        file.write(f"{os.getpid()}\n")
    print(f"this is seed {cfg.seed}")
    os.system("echo from another program")
    if cfg.seed == 10:
        raise RunFailed("error: wrong value")
    if cfg.seed == 11:
        raise RuntimeError("a mistake\nin two lines")
    if cfg.seed == 13 or (cfg.seed == 12 and first_try):
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.seed == 14 and first_try:
        signal.signal(signal.SIGTERM, lambda *_: save_and_stop(folder))
        time.sleep(300)
    hydra.compose("train", overrides=["seed=1"])  # as a training does for its teacher, in the process of the job
    record.write_text("{}")
    return 0.25 + float(cfg.seed) / 100


def save_and_stop(folder: Path) -> None:
    (folder / "saved").touch()
    raise SystemExit(143)


main = hydra.main(version_base="1.3", config_path=CONF, config_name="train")(run)

if __name__ == "__main__":
    resolvers.register()
    sys.argv.append(f"paths.runs={sys.argv.pop(1)}")
    sys.argv.append(sys.argv.pop(sys.argv.index("-m")))
    main()
