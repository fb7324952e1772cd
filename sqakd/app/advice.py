"""What to type after an error of the library: one sentence for each topic.

The library raises `SqakdError` in its own words and names a topic; the application adds the advice of that topic. A gap
such as {channel} is filled from the error's facts.
"""

from __future__ import annotations

from sqakd.errors import SqakdError

QUANTIZATION: dict[str, str] = {}

KD: dict[str, str] = {}

MODELS: dict[str, str] = {}

DATASET: dict[str, str] = {
    "data.missing": "type dataset.download=true to fetch it, or dataset.root=FOLDER if it is in another folder",
    "data.archive": "delete it and type dataset.download=true, or put an intact copy there",
    "data.download": "download the file yourself and put it there",
    "data.unpacked": (
        "delete {folder}, and put an intact {archive} into {root} or type dataset.download=true to fetch it"
    ),
    "data.root": "choose another folder with dataset.root=FOLDER",
    "data.folder": "choose another folder with dataset.folder=FOLDER",
    "data.cache": "choose another folder with dataset.cache=FOLDER",
    "data.unreadable": "remove them, or type dataset.unreadable=skip",
    "data.no_batch": "choose fewer devices, a smaller recipe.batch_size, or dataset.drop_last=false",
    "data.sizes": "choose dataset.augment and dataset.evaluate so that both make images of one size",
    "data.image_size": "give dataset.evaluate the same size",
    "tiny_imagenet.unlisted": "add the classes to wnids.txt, or remove the folders",
    "tiny_imagenet.size": "put the original there, or use dataset=imagefolder for images of other sizes",
}

TRAINING: dict[str, str] = {}

RUNS: dict[str, str] = {
    "checkpoint.missing": "give the path of a weights file, e.g. teacher.checkpoint=FILE",
    "checkpoint.unsafe": "where the file comes from, save it again with torch.save(model.state_dict(), FILE)",
    "checkpoint.other_network": "choose the network that the checkpoint was made for, e.g. model@teacher=resnet32",
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
