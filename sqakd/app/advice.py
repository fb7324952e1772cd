"""What to type after an error of the library: one sentence for each topic.

The library raises `SqakdError` in its own words and names a topic; the application adds the advice of that topic. A gap
such as {channel} is filled from the error's facts.
"""

from __future__ import annotations

from sqakd.errors import SqakdError

QUANTIZATION: dict[str, str] = {}

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
    "model.timm_missing": "install it with: pip install sqakd[timm]",
    "model.weights": "or use model.weights=null for random weights",
    "model.images": "choose another model, or a data set with images of the size that it was made for, e.g."
    " dataset=imagefolder dataset.image_size=224",
}

DATASET: dict[str, str] = {}

TRAINING: dict[str, str] = {}

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
