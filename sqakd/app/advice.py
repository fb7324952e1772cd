"""What to type after an error of the library: one sentence for each topic.

The library raises `SqakdError` in its own words and names a topic; the application adds the advice of that topic. A gap
such as {channel} is filled from the error's facts.
"""

from __future__ import annotations

from sqakd.errors import SqakdError

QUANTIZATION: dict[str, str] = {}

KD: dict[str, str] = {}

MODELS: dict[str, str] = {}

DATASET: dict[str, str] = {}

TRAINING: dict[str, str] = {}

RUNS: dict[str, str] = {}

EXPORT: dict[str, str] = {
    "export.benchmark": "use benchmark.rounds=0 to export without measuring speed",
    "export.changed_weights": "put the run's own weights.pt back, or train again with another name=NAME",
    "export.depends_on_batch": "train with quantizer=dorefa, the quantizer of the paper, instead",
    "export.folder": "use folder=ANOTHER_FOLDER",
    "export.gate": "use gate=NUMBER to accept less",
    "export.input_needs_nine_bits": "train with a_bits=7, or with a quantizer that has a zero on its grid, e.g."
    " quantizer=lsq",
    "export.no_quantized_layer": "export a run with a quantizer, e.g. quantizer=ewgs bits=2",
    "export.no_run": "use run=runs/NAME/seed0, the folder of a finished run",
    "export.other_version": "export it with the version that trained it (commit {commit})",
    "export.trt_codes": "train with quantizer=lsq a_bits={bits}, or use profile=exact",
    "export.unfinished": "repeat the command that started the run, which resumes it",
    "export.weights_need_nine_bits": "use regrid=true to round them to -127 .. 127 (about one percent of error, which"
    " is reported), or train with w_bits=7 or quantizer=lsq",
}

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
