"""A sweep whose jobs only pretend: python sweep_app.py FOLDER seed=0,1,... hydra/launcher=... -m

What a job does depends on its seed: 0-9 work, 10 fails with a reason, 11 fails by a mistake, 12 is killed once and then
works, 13 is killed each time, 14 works until it is told to stop, 15 works for seven seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sqakd.app.compose import Told

CONF = str(Path(__file__).resolve().parents[2] / "conf")


def work(cfg: DictConfig) -> float:
    folder = Path(cfg.paths.runs) / cfg.name / f"seed{cfg.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    record, tried = folder / "record.json", folder / "tried"
    if record.exists():
        return 0.5
    again = tried.exists()
    with tried.open("a") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
    print(f"this is seed {cfg.seed}")
    os.system("echo from another program")
    if cfg.seed == 10:
        raise Told("error: wrong word")
    if cfg.seed == 11:
        raise RuntimeError("a mistake\nin two lines")
    if cfg.seed == 13 or (cfg.seed == 12 and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.seed == 14 and not again:
        signal.signal(signal.SIGTERM, lambda *_: stop(folder))
        time.sleep(300)
    if cfg.seed == 15:
        time.sleep(7)
    record.write_text("{}")
    return 0.25 + float(cfg.seed) / 100


def stop(folder: Path) -> None:
    (folder / "saved").touch()
    raise SystemExit(143)


main = hydra.main(version_base="1.3", config_path=CONF, config_name="train")(work)

if __name__ == "__main__":
    sys.argv.append(f"paths.runs={sys.argv.pop(1)}")
    sys.argv.append(sys.argv.pop(sys.argv.index("-m")))
    main()
