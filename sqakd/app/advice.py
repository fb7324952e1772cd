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

RUNS: dict[str, str] = {
    "run.other": "type name=ANOTHER_NAME to keep both, or delete that folder",
    "run.unwritable": "make it writable, or type paths.runs=FOLDER",
    "run.config_damaged": "restore the file, or delete the run's folder",
}

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
