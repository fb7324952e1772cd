"""What to type after an error of the library: one sentence for each topic.

The library raises `SqakdError` in its own words and names a topic; the application adds the advice of that topic. A gap
such as {channel} is filled from the error's facts.
"""

from __future__ import annotations

from sqakd.errors import SqakdError

QUANTIZATION: dict[str, str] = {
    "calibration.empty_channel": "use quantizer.per_channel=false for one range per layer",
    "hessian.no_second_derivative": "use quantizer.rounding.delta=0.001 for a fixed scaling, or quantizer/rounding=ste",
    "quantization.no_layer": "use quantizer.first_last=same",
    "quantizer.bits": "use for instance bits=2, or quantizer=none for the float network",
}

KD: dict[str, str] = {}

MODELS: dict[str, str] = {}

DATASET: dict[str, str] = {}

TRAINING: dict[str, str] = {
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

RUNS: dict[str, str] = {}

EXPORT: dict[str, str] = {}

REPORT: dict[str, str] = {}

ADVICE = QUANTIZATION | KD | MODELS | DATASET | TRAINING | RUNS | EXPORT | REPORT


def explain(error: BaseException) -> str:
    """Return an error's message, followed by the advice of its topic where there is one.

    Raises:
        KeyError: if the topic or one of its placeholders is unknown, which is a mistake in the code.
    """
    if not isinstance(error, SqakdError) or error.topic is None:
        return str(error)
    return f"{error}; {ADVICE[error.topic].format(**error.facts)}"
