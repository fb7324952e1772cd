"""Command-line advice for library errors, by topic.

The library raises `SqakdError` in its own words and names a topic; a command adds the advice of that topic. A gap such
as {channel} is filled from the error's facts. Only commands import this file.
"""

from __future__ import annotations

import sys

from sqakd.errors import SqakdError
from sqakd.terminal import printable


def install(extra: str) -> str:
    """Return the command that installs optional packages: an extra of pyproject.toml, in a checkout of the project.

    Example:
        >>> install("export")
        "pip install -e '.[export]'"
    """
    return f"pip install -e '.[{extra}]'"


QUANTIZATION: dict[str, str] = {
    "calibration.empty_channel": "use quantizer.per_channel=false for one range per layer",
    "hessian.no_second_derivative": "use quantizer.rounding.delta=0.001 for a fixed scaling, or quantizer/rounding=ste",
    "quantization.no_layer": "use quantizer.first_last=same",
    "quantization.no_sum": "use residual_bits=null, or a network with such modules, e.g. model=resnet20",
    "quantizer.start": "quantizer=ewgs, ste, lsq, lsq_pow2 and pact, also as released, have one",
    "quantizer.bits": "use for instance bits=2, or quantizer=none for the float network",
}

KD: dict[str, str] = {
    "kd.shapes": "choose other layers with model.feature_layers=[...] (student) and teacher.feature_layers=[...],"
    " or another kd",
    "kd.layer": "choose layers with model.feature_layers=[...] (student) and teacher.feature_layers=[...]",
    "kd.no_feature_loss": "choose a kd with a feature loss, e.g. kd=at",
    "kd.no_negatives": "use kd=sqakd, which needs no labels",
    "kd.intermediate": "for the pooled vector alone use kd=crd",
    "kd.not_quantized": "choose a quantizer, e.g. quantizer=ewgs, or another kd",
}

MODELS: dict[str, str] = {
    "model.torchvision_name": 'python -c "from torchvision import models; print(models.list_models(models))" lists all',
    "model.torchvision_weights": "put that file into torch's cache (TORCH_HOME), or use model.weights=null",
    "model.timm_name": 'python -c "import timm; print(timm.list_models())" lists all',
    "model.timm_weights": "put the file into Hugging Face's cache (HF_HOME), or use model.weights=null",
    "model.timm_missing": f"use {install('timm')} in the checkout of sqakd",
    "model.weights": "or use model.weights=null for random weights",
    "model.images": "choose another model, or a data set with images of the size that it was made for, e.g."
    " dataset=imagefolder dataset.image_size=224",
}

DATASET: dict[str, str] = {
    "data.missing": "use dataset.download=true to fetch it, or dataset.root=FOLDER if it is in another folder",
    "data.archive": "delete it and use dataset.download=true, or put the original there; if it is the same data packed"
    " again, unpack it: the folder {folder} in {root} is used without an archive",
    "data.incomplete": "put these files there, or the archive {archive} into {root}, or use dataset.download=true to"
    " fetch it: the files that are there stay",
    "data.download": "download the file yourself and put it there",
    "data.unpacked": "delete {files} alone: if {archive} is in {root}, the same command takes the original from it; use"
    " dataset.download=true to fetch the archive",
    "data.root": "choose another folder with dataset.root=FOLDER",
    "data.folder": "choose another folder with dataset.folder=FOLDER",
    "data.cache": "choose another folder with dataset.cache=FOLDER",
    "data.unreadable": "remove them, or use dataset.unreadable=skip",
    "data.formats": "convert them, for instance to JPEG, or use dataset.unreadable=skip to leave them out",
    "data.emptied": "replace these files, or remove the class",
    "data.spelling": "rename the folder",
    "data.one_class": "for images without labels put them directly into train/ and val/, without class folders",
    "data.classes": "name all folders in dataset.classes, in the order of the teacher's logits",
    "data.statistics": "divide values on the scale 0 .. 255 by 255",
    "data.no_batch": "choose fewer devices, a smaller recipe.batch_size, or dataset.drop_last=false",
    "data.small_batch": "choose a larger recipe.batch_size, or fewer devices",
    "data.sizes": "choose dataset.augment and dataset.evaluate so that both make images of one size",
    "data.image_size": "give dataset.evaluate the same size",
    "fashion_mnist.missing": "use dataset.download=true to fetch it, apt install dataset-fashion-mnist (Debian),"
    " or dataset.root=FOLDER if it is in another folder",
    "fashion_mnist.damaged": "delete {file} and use dataset.download=true, or put the original there",
    "tiny_imagenet.unlisted": "add the classes to wnids.txt, or remove the folders",
    "tiny_imagenet.size": "put the original there, or use dataset=imagefolder for images of other sizes",
}

TRAINING: dict[str, str] = {
    "trainer.compile": "use trainer.compile=false, or trainer.compile=auto, which continues with eager steps",
    "trainer.partial": "use dataset.limit for fewer images",
    "trainer.length": "use recipe.epochs; an interrupted run continues with the same command",
    "divergence.training": "a lower learning rate may help, e.g. recipe.lr={lr:g} name=ANOTHER_NAME, or"
    " recipe.gradient_clip=1",
    "divergence.pretraining": "a lower learning rate may help, e.g. kd.feature_loss.pretrain_lr={lr:g}"
    " name=ANOTHER_NAME",
    "ema.too_short": "use for instance plus.ema.epochs={epochs}",
    "feature_layers.too_few": "name them with model.feature_layers=[layer1:input,layer1,layer2,fc:input] (student) or"
    " teacher.feature_layers=[...]",
    "feature_layers.unequal": "name as many with model.feature_layers=[...] and teacher.feature_layers=[...]",
    "task.no_labels": "use kd=sqakd, which needs no labels",
    "task.no_teacher": "use teacher.checkpoint=FILE, or let the run train a teacher",
    "trainer.half_precision": "use trainer.precision=bf16-mixed",
}

FILES: dict[str, str] = {
    "file.unreadable": "nothing was changed, and the same command continues once the file can be read",
    "file.full": "make room there and repeat the same command",
    "file.unwritable": "make it writable and repeat the same command",
}

RUNS: dict[str, str] = {
    "run.name": "use letters, digits, dots and dashes, e.g. name=my-run",
    "run.other": "use name=ANOTHER_NAME to keep both, or delete that folder",
    "run.unwritable": "make it writable, or use paths.runs=FOLDER",
    "run.foreign_class": "nothing was constructed, because a run folder of somebody else could run any code; classes of"
    " your own: docs/options.md, or put them into the package sqakd (docs/extending.md)",
    "run.description": "put the run's own config.yaml back, or delete the folder and train again",
    "run.weights": "put the run's own {file} back, or delete {record}: the command of that run then writes both again"
    " from its last checkpoint",
    "run.config_damaged": "restore the file, or delete the run's folder",
    "checkpoint.no_state": "delete {folder}/{name}*.ckpt, and the same command trains from the beginning",
    "checkpoint.missing": "give the path of a weights file, e.g. teacher.checkpoint=FILE",
    "checkpoint.unsafe": "where the file comes from, save it again with torch.save(model.state_dict(), FILE)",
    "checkpoint.safetensors": "use pip install safetensors",
    "checkpoint.several": "load the one that you mean and save it alone, with torch.save(model.state_dict(), FILE)",
    "checkpoint.other_network": "choose the network that the checkpoint was made for, e.g. model@teacher=resnet32",
    "record.newer": "update sqakd to the version that wrote it",
    "record.damaged": "delete {file} and repeat the command of the run, which resumes it or trains it again",
    "record.export": "delete {file} or export the run again",
    "paper.missing": "copy {own} there, or use --results FOLDER for a folder that has the file",
    "paper.damaged": "restore {file} from the repository, or delete it: runs are then compared with nothing published",
}

EXPORT: dict[str, str] = {
    "export.benchmark": "use benchmark.rounds=0 to export without measuring speed",
    "export.changed_weights": "put the run's own weights.pt back, or delete record.json: the command of that run then"
    " writes both again from its last checkpoint",
    "export.depends_on_batch": "train with quantizer=dorefa, the quantizer of the paper, instead",
    "export.folder": "use folder=ANOTHER_FOLDER, which may be absent, empty or an earlier export",
    "export.gate": "use gate=NUMBER to accept less",
    "export.input_needs_nine_bits": "train with a_bits=7, or with a quantizer that has a zero on its grid, e.g."
    " quantizer=lsq",
    "export.no_quantized_layer": "export a run with a quantizer, e.g. quantizer=ewgs bits=2",
    "export.no_run": "use run=runs/NAME/seed0, the folder of a finished run",
    "export.other_version": "export it with the version that trained it (commit {commit})",
    "export.qonnx_codes": "train with quantizer=lsq, whose codes QONNX has at any number of bits",
    "export.qonnx_option": "omit {keys} with format=qonnx",
    "export.thresholds": "use format=qonnx, or omit thresholds",
    "export.trt_codes": "train with quantizer=lsq a_bits={bits}, or use profile=exact",
    "export.trt_sums": "train with residual_bits={bits}, or use another profile",
    "export.outer": "train with quantizer.outer=float for a network that can be exported",
    "export.unfinished": "repeat the command that started the run, which resumes it",
    "export.weights_need_nine_bits": "use regrid=true to round them to -127 .. 127 (about one percent of error, which"
    " is reported), or train with w_bits=7 or quantizer=lsq",
}

REPORT: dict[str, str] = {
    "report.csv_damaged": "restore the file, or delete it: the report can do without it",
    "report.no_run": "use --runs FOLDER for another folder of runs",
    "report.other_seed": "rename the folder to seed{seed}, or delete it",
    "report.repeated": "train a repetition with another seed",
}

DASHBOARD: dict[str, str] = {
    "dashboard.package": f"use {install('dashboard')} in the checkout of sqakd, or --offline for a page",
    "dashboard.refused": "use --project and --entity for the project of the runs, or --offline for a page",
}

ADVICE = QUANTIZATION | KD | MODELS | DATASET | TRAINING | FILES | RUNS | EXPORT | REPORT | DASHBOARD


def explain(error: BaseException) -> str:
    """Return an error's message, followed by the advice of its topic where there is one, as one printable line.

    Raises:
        KeyError: if the topic or one of its placeholders is unknown, which is a mistake in the code.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename}: {error.strerror}")
    if not isinstance(error, SqakdError) or error.topic is None:
        return printable(error)
    return printable(f"{error}; {ADVICE[error.topic].format(**error.facts)}")


def left_out(error: SqakdError) -> None:
    """Print why a run, or a part of it, is left out of a list."""
    print(f"left out: {explain(error)}", file=sys.stderr, flush=True)  # noqa: T201
