"""Odd commands for train.py that are not a value of the wrong type: choices, names, syntax and contradictions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from tests.reliability.attempt import Attempt
from tests.reliability.case import Case, Expected
from tests.reliability.options import BASE, GIVEN
from tests.reliability.samples import Samples

REFUSED, EITHER, ACCEPTED = Expected.REFUSED, Expected.EITHER, Expected.ACCEPTED

NEEDED = ("dataset", "model", "model@teacher", "kd", "recipe", "recipe@teacher.recipe", "trainer", "paths", "quantizer")
GROUPS = (*NEEDED, "callbacks", "logger", "quantizer/rounding", "plus", "experiment", "table", "hparams", "debug")
NAMES = {
    "..": REFUSED,
    ".": REFUSED,
    "''": REFUSED,
    "a/b": REFUSED,
    "../x": REFUSED,
    "/absolute": REFUSED,
    "'a\nb'": REFUSED,
    "'a\tb'": REFUSED,
    "'a\x1b[31m'": REFUSED,
    "'a\u202eb'": REFUSED,
    "x" * 300: REFUSED,
    "' '": REFUSED,
    "'a b'": ACCEPTED,
    "'é'": ACCEPTED,
    "é": EITHER,  # Hydra's grammar wants quotes
    "null": REFUSED,
    "nan": REFUSED,
    "true": EITHER,
    "5": EITHER,
    "[a]": REFUSED,
    "{a:1}": REFUSED,
    "-x": EITHER,
    "'a\\b'": EITHER,
    ".hidden": EITHER,
    "seed0": EITHER,
}
CONTRADICTIONS = (
    "quantizer=none bits=2",
    "quantizer=none plus=ema",
    "quantizer=none plus=bn kd=at",
    "plus=[progressive,two_step]",
    "kd=none plus=cutmix",
    "kd=kd plus=trivial plus=cutmix kd.ce=1 kd.kl=0",
    *(f"bits={bits}" for bits in ("0", "9", "33", "-2", "1.5", "abc", "true", "null", "nan", "[2]", "''")),
    *(f"w_bits={bits}" for bits in ("0", "9", "abc", "true")),
    *(f"a_bits={bits}" for bits in ("0", "9", "abc", "nan")),
    "dataset=imagefolder",
    "dataset=imagefolder dataset.folder=nowhere",
    "dataset=cifar10",
    "dataset=tiny_imagenet",
    *(f"trainer.devices={devices}" for devices in (str((os.cpu_count() or 1) + 3), "0", "-2", "abc", "[0,0]", "1.5")),
    *(f"trainer.accelerator={word}" for word in ("cuda", "tpu", "mps", "gpu", "abc", "null")),
    *(f"trainer.precision={word}" for word in ("abc", "17", "bf17-mixed", "null", "64", "16-mixed")),
    *(f"trainer.strategy={word}" for word in ("abc", "deepspeed", "fsdp", "5")),
    "trainer.num_nodes=0",
    "recipe.epochs=-1",
    "recipe.epochs=0 plus=ema",
    "recipe.batch_size=0",
    "recipe.accumulate=0",
    "recipe.calibration_batches=0",
    "recipe.calibration_batches=1000000",
    "recipe.accumulate=1000",
    "recipe.gradient_clip=0",
    "recipe.label_smoothing=1.5",
    "recipe.label_smoothing=1",
    "recipe.optimizer._target_=torch.optim.Nonsense",
    "recipe.optimizer._target_=torch.optim.LBFGS",
    "+recipe.optimizer.nonsense=3",
    "+recipe.optimizer.lr=3",
    "dataset.limit=0",
    "dataset.limit=1",
    "dataset.holdout=1",
    "dataset.holdout=1.5",
    "dataset.holdout=0.0001",
    "dataset.eval_batch_size=0",
    "dataset.image_size=0",
    "dataset.image_size=1",
    "dataset.image_size=100000",
    "dataset.augment.padding=100000",
    "dataset.std=[0,0,0]",
    "dataset.std=[64,64,64]",
    "dataset.mean=[128,128,128]",
    "kd.temperature=0",
    "kd.kl=0",
    "kd=at kd.feature=0 kd.ce=0 kd.kl=0",
    "kd=at model.feature_layers=[]",
    "kd=at model.feature_layers=[nonsense]",
    "kd=fitnet kd.feature_loss.layer=99",
    "kd=squat kd.feature_loss.distance=l3",
    "kd=crd kd.feature_loss.negatives=0",
    "model.net.blocks=0",
    "model.net.blocks=100000",
    "model=torchvision model.arch=nonsense",
    "model=timm model.arch=nonsense",
    "model@teacher=vgg8",
    "model.first=[nonsense]",
    "quantizer.first_last=nonsense",
    "quantizer.first_last=7",
    "quantizer.outer=nonsense",
    "quantizer.start=nonsense",
    "quantizer=dorefa quantizer.start=mse",
    "quantizer.rounding.delta=abc",
    "quantizer.rounding.delta=-1",
    "quantizer.rounding.delta=true",
    "callbacks.hessian_scaling.update_every=0",
    "callbacks.hessian_scaling.max_probes=0",
    "callbacks.hessian_scaling.batches=0",
    "plus=ema plus.ema.epochs=0",
    "plus=cutmix plus.cutmix.probability=2",
    "plus=progressive plus.progressive.stages=[]",
    "plus=progressive plus.progressive.stages=[5]",
    "plus=progressive plus.progressive.stages=[{share:2,w_bits:8,a_bits:8}]",
    "plus=progressive plus.progressive.stages=[{share:0.5}]",
    "plan=abc",
    "plan=2",
    "plan=null",
    "+trainer.max_time=00:00:00:01",
    "+trainer.max_steps=1",
    "+trainer.max_epochs=1",
    "+trainer.limit_train_batches=0",
    "+trainer.nonsense=3",
    "+trainer.callbacks=[a]",
    "+trainer.logger=abc",
    "+trainer.gradient_clip_val=nan",
    "+trainer.check_val_every_n_epoch=0",
    "+trainer.val_check_interval=abc",
    "+trainer.fast_dev_run=true",
    "+trainer.num_sanity_val_steps=abc",
    "+trainer.default_root_dir=/nonsense",
    "+kd.nonsense=3",
    "+dataset.nonsense=3",
    "+model.net.nonsense=3",
    "+quantizer.nonsense=3",
    "+callbacks.mine._target_=os.system +callbacks.mine.command=true",
    "+callbacks.mine=5",
    "+callbacks.mine._target_=builtins.print",
    "callbacks=[]",
    "callbacks.progress=null callbacks.nonsense=1",
    "logger=wandb logger.wandb.project=''",
    "logger=[csv,nonsense]",
    "seed=0,1",
    "kd=sqakd,at",
    "kd=[sqakd,sqakd]",
    "plus=[ema,ema]",
    "plus=ema,bn",
    "plus=5",
    "model=[resnet20,resnet20]",
    "teacher.seed=abc",
    "teacher.checkpoint=nowhere.pt",
    "teacher.checkpoint=.",
    "teacher.checkpoint=/dev/null",
    "paths.runs=teacher.pt",
    "paths.runs=/proc/nonsense",
    "paths.runs=''",
    "paths.runs=null",
    "paths.data=teacher.pt dataset=cifar10",
)
SYNTAX = (
    ("recipe.lr",),
    ("recipe.lr=",),
    ("=5",),
    ("recipe.lr==5",),
    ("recipe.lr=[",),
    ("recipe.lr='",),
    ("recipe.lr={",),
    ("recipe..lr=1",),
    (".lr=1",),
    ("recipe.lr=1 2",),
    ("recipe.lr=${nonsense}",),
    ("recipe.lr=${recipe.lr}",),
    ("recipe.lr=${",),
    ("recipe.lr=${nonsense:1}",),
    ("recipe.lr=0.1,0.2",),
    ("recipe.lr=range(1,3)",),
    ("nonsense=1",),
    ("nonsense.more=1",),
    ("+nonsense=1",),
    ("++nonsense.more=1",),
    ("recipe.lrr=1",),
    ("++recipe.lrr=1",),
    ("~recipe.lr",),
    ("~nonsense",),
    ("+recipe.lr=1",),
    ("recipe.lr=1", "recipe.lr=abc"),
    ("Recipe.lr=1",),
    ("recipe.lr=0,1",),
    ("--nonsense",),
    ("-x",),
    ("--config-name=nonsense",),
    ("--config-name",),
    ("--config-path=/nonsense",),
    ("--config-dir=nonsense",),
    ("--config-dir=teacher.pt",),
    ("--cfg", "nonsense"),
    ("--cfg", "job", "--package", "nonsense"),
    ("--info", "nonsense"),
    ("seed=abc,0", "-m"),
    ("recipe.lr=abc,0.1", "-m"),
    ("nonsense=0,1", "-m"),
    ("hydra/launcher=nonsense", "-m"),
    ("hydra.mode=nonsense",),
    ("hydra.run.dir=nowhere/deep",),
    ("hydra/job_logging=nonsense",),
    ("hydra.sweeper=nonsense",),
    ("hydra.output_subdir=5",),
    ("train",),
    ("quantizer:ewgs",),
    ("quantizer ewgs",),
    ("\u2019quantizer=ewgs\u2019",),
)
GOOD_SYNTAX = {"hydra.run.dir=nowhere/deep", "hydra.output_subdir=5", "recipe.lr=range(1,3)", "recipe.lr=${recipe.lr}"}


def cases(samples: Samples) -> Iterator[Case]:
    """Yield the cases of choices, names, contradictions and syntax."""
    for group in GROUPS:
        for word, expected in _words(group):
            yield _case(samples, "group word", (word,), expected)
    for name, expected in NAMES.items():
        yield _case(samples, "name", (f"name={name}",), expected)
    for name in ("..", "../x", "''", "'a\nb'", "/absolute"):
        for key in ("model.name", "cell"):
            yield _case(samples, "name", (f"{key}={name}",), EITHER if key == "cell" else REFUSED)
    for text in CONTRADICTIONS:
        yield _case(samples, "contradiction", tuple(text.split(" ")), _expected(text))
    for words in SYNTAX:
        yield _case(samples, "syntax", words, EITHER if words[0] in GOOD_SYNTAX else REFUSED)


def _words(group: str) -> Iterator[tuple[str, Expected]]:
    missing = REFUSED if group in NEEDED and group != "recipe@teacher.recipe" else EITHER
    yield f"{group}=nonsense", REFUSED
    yield f"{group}=null", missing
    yield f"{group}=''", EITHER
    yield f"{group}=5", REFUSED
    yield f"{group.upper()}=1", REFUSED
    yield f"{group}=../train", REFUSED
    yield f"~{group}", missing
    yield f"+{group}=nonsense", REFUSED
    yield f"{group}=[a,a]", REFUSED


# Contradictions that also may do something sensible.
SENSIBLE = {
    "recipe.accumulate=1000",
    "recipe.label_smoothing=1",
    "dataset.limit=1",
    "dataset.holdout=0.0001",
    "dataset.image_size=1",
    "trainer.precision=64",
    "trainer.precision=16-mixed",
    "trainer.strategy=fsdp",
    "callbacks=[]",
    "model@teacher=vgg8",
    "+trainer.num_sanity_val_steps=abc",
    "+trainer.default_root_dir=/nonsense",
    "plus=[ema,ema]",
    "plan=null",
    "trainer.accelerator=null",
    "trainer.precision=null",
    "plus=progressive plus.progressive.stages=[]",
    "logger=wandb logger.wandb.project=''",
    "recipe.gradient_clip=0",
    "dataset.augment.padding=100000",
    "model@teacher=resnet32",
    "kd=kd plus=trivial plus=cutmix kd.ce=1 kd.kl=0",
}


def _expected(text: str) -> Expected:
    return EITHER if text in SENSIBLE else REFUSED


def _case(samples: Samples, kind: str, words: tuple[str, ...], expected: Expected) -> Case:
    given = () if any(word.startswith("teacher.checkpoint") for word in words) else (GIVEN,)
    attempt = Attempt(
        ("train.py", *BASE, *given, *words), expected, prepare=lambda folder: shutil.copy(samples.teacher, folder)
    )
    return Case("options", kind, " ".join(words).replace("\n", "\\n").replace("\x1b", "\\x1b"), attempt)
