"""Odd commands for export.py, predict, report and dashboard, and odd paths for all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import command
import yaml

from tests.reliability.attempt import Attempt
from tests.reliability.case import Case, Expected
from tests.reliability.option_values import Odd, odd_values
from tests.reliability.options import BASE, GIVEN, leaves
from tests.reliability.samples import STUDENT, Samples, copied

REFUSED, EITHER, ACCEPTED = Expected.REFUSED, Expected.EITHER, Expected.ACCEPTED
RUN = f"runs/{STUDENT}/seed0"
WITH_ROUND = ("benchmark.rounds=1", "benchmark.seconds=0.01", "benchmark.batches=[1]", "benchmark.threads=[1]")
EXPORT = (
    *(f"profile={word}" for word in ("nonsense", "null", "5", "[exact]", "''", "EXACT")),
    *(f"pack={word}" for word in ("nonsense", "null", "5", "true", "''")),
    *(f"gate={number}" for number in ("2", "-1", "100")),
    *(f"benchmark.batches={value}" for value in ("[]", "5", "[0]", "[-1]", "[1.5]", "[a]", "[true]", "null", "[nan]")),
    *(f"benchmark.threads={value}" for value in ("[]", "5", "[0]", "[-1]", "[1.5]", "[a]", "[true]", "null")),
    *(f"folder={word}" for word in (".", "..", "/", "runs", "'~nonsense/x'", RUN, f"{RUN}/record.json", "notes")),
    *(f"run={word}" for word in ("nowhere", "notes", "''", "null", "5", "[a]", "runs", f"{RUN}/record.json", ".")),
    "nonsense=1",
    "run",
    "+nonsense=1",
    "++benchmark.nonsense=1",
    "benchmark=5",
    "benchmark=null",
    "~benchmark",
    "paths=nonsense",
    "profile=exact,int8",
    "--nonsense",
)
PREDICT = {
    "": REFUSED,
    "MODEL": REFUSED,
    "MODEL nowhere.png": REFUSED,
    "MODEL notes": REFUSED,
    "MODEL notes/note.txt": REFUSED,
    "MODEL MODEL": REFUSED,
    "nowhere.onnx photo.png": REFUSED,
    "photo.png photo.png": REFUSED,
    "notes photo.png": REFUSED,
    "notes/note.txt photo.png": REFUSED,
    "/dev/null photo.png": REFUSED,
    "MODEL /dev/null": REFUSED,
    "MODEL ''": REFUSED,
    "MODEL link.png": REFUSED,
    **{f"MODEL photo.png --top {n}": REFUSED for n in ("0", "-1", "abc", "1.5", "nan", "''")},
    **{f"MODEL photo.png --batch {n}": REFUSED for n in ("0", "-1", "abc", "1.5", "1e3")},
    "MODEL photo.png --top 999999": ACCEPTED,
    "MODEL photo.png --batch 999999999999": EITHER,
    "MODEL photo.png --nonsense": REFUSED,
    "MODEL photo.png photo.png": ACCEPTED,
    "MODEL . ": EITHER,
    "MODEL 'a b=c,[d].png'": ACCEPTED,
}
REPORT = {
    "": ACCEPTED,
    "--runs nowhere": REFUSED,
    "--runs notes": EITHER,
    "--runs notes/note.txt": REFUSED,
    "--runs ''": EITHER,
    "--runs": REFUSED,
    "--runs runs --runs runs": EITHER,
    "--results nowhere": REFUSED,
    "--results notes/note.txt": REFUSED,
    f"--html {RUN}/record.json": REFUSED,
    f"--html {RUN}/weights.pt": REFUSED,
    f"--html {RUN}/metrics.csv": REFUSED,
    f"--html {RUN}/config.yaml": REFUSED,
    "--html results/paper.csv": REFUSED,
    "--html notes": REFUSED,
    "--html /proc/nonsense/page.html": REFUSED,
    "--html notes/note.txt/page.html": REFUSED,
    "--html ''": REFUSED,
    "--html new/deep/page.html": EITHER,
    f"--picture {RUN}/record.json": REFUSED,
    "--picture results/paper.csv": REFUSED,
    "--picture notes": REFUSED,
    "--picture ''": REFUSED,
    "--picture page.html --html page.html": REFUSED,
    "--readme nowhere.md": REFUSED,
    "--readme notes": REFUSED,
    "--readme photo.png": REFUSED,
    "--readme notes/note.txt": EITHER,
    f"--readme {RUN}/record.json": REFUSED,
    "--title ''": EITHER,
    "--title '<script>alert(1)</script>'": ACCEPTED,
    "--title 'a\nb'": EITHER,
    "--nonsense": REFUSED,
    "nonsense": REFUSED,
}
DASHBOARD = {
    "--offline": ACCEPTED,
    "--offline --runs nowhere": REFUSED,
    "--offline --runs notes": EITHER,
    "--offline --runs notes/note.txt": REFUSED,
    f"--offline --html {RUN}/record.json": REFUSED,
    f"--offline --html {RUN}/config.yaml": REFUSED,
    "--offline --html notes": REFUSED,
    "--offline --html /proc/nonsense/page.html": REFUSED,
    "--offline --html ''": EITHER,
    "--offline --name ''": EITHER,
    "--offline --entity": REFUSED,
    "--nonsense": REFUSED,
}
FOLDERS = (
    "a=b",
    "a b",
    "a[b]",
    "a,b",
    "a'b",
    'a"b',
    "a(b)",
    "a{b}",
    "~",
    "é中",
    "a#b",
    "a:b",
    "a$b",
    "%41",
    "a\\b",
    "-a",
)


def cases(samples: Samples) -> Iterator[Case]:
    """Yield the cases of the other commands and of paths."""
    yield from _export(samples)
    for module, commands in (("predict", PREDICT), ("report", REPORT), ("dashboard", DASHBOARD)):
        for text, expected in commands.items():
            yield _module(samples, module, text, expected)
    for folder in FOLDERS:
        for key in ("paths.runs", "dataset.folder", "teacher.checkpoint"):
            yield _path(samples, key, folder, _quoted(folder), ACCEPTED)
            yield _path(samples, key, folder, folder, EITHER)


def _export(samples: Samples) -> Iterator[Case]:
    base = ("export.py", f"run={RUN}", "benchmark.rounds=0")
    config = yaml.safe_load((command.ROOT / "conf" / "export.yaml").read_text())
    for key, default in leaves({key: value for key, value in config.items() if key not in ("defaults", "run")}):
        if key in ("folder", "profile", "pack") or isinstance(default, list):
            continue
        words = {"calibration_images": ("profile=int8",), "benchmark.seconds": ("benchmark.rounds=1",)}.get(key, ())
        for odd in odd_values(key, default):
            if odd.kind not in ("huge", "zero") or key == "images":
                yield _export_case(samples, (*base, *words, f"{key}={odd.text}"), f"{key}={odd.text}", odd)
    for word in EXPORT:
        rounds = WITH_ROUND if word.startswith("benchmark.") else ()
        yield _export_case(
            samples, (*base, *rounds, word), word, Odd("export", word, EITHER if "~" in word else REFUSED)
        )


def _export_case(samples: Samples, words: tuple[str, ...], name: str, odd: Odd) -> Case:
    attempt = Attempt(words, odd.expected, prepare=lambda folder: _prepare(samples.runs, samples, folder))
    return Case("options", odd.kind, f"export {name}", attempt)


def _prepare(source: Path, samples: Samples, folder: Path) -> None:
    copied(source, folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "note.txt").write_text("a note\n")
    (folder / "results").mkdir()
    shutil.copy(command.ROOT / "results" / "paper.csv", folder / "results")
    photo = samples.images / "photos" / "val" / "cat" / "cat0.png"
    for name in ("photo.png", "a b=c,[d].png"):
        shutil.copy(photo, folder / name)
    (folder / "link.png").symlink_to("nowhere.png")


def _module(samples: Samples, module: str, text: str, expected: Expected) -> Case:
    words = [_unquoted(word) for word in _split(text)]
    words = [f"{RUN}/export-exact/model.onnx" if word == "MODEL" else word for word in words]
    attempt = Attempt(
        ("-m", f"sqakd.{module}", *words),
        expected,
        prepare=lambda folder: _prepare(samples.exported, samples, folder),
        rewritten=("results/", "notes/note.txt") if module == "report" and "paper.csv" not in text else (),
    )
    return Case("options", module, text.replace("\n", "\\n"), attempt)


def _split(text: str) -> list[str]:
    """Split at spaces outside quotes; quotes stay."""
    parts, open_quote = [""], False
    for letter in text:
        open_quote ^= letter == "'"
        if letter == " " and not open_quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def _unquoted(word: str) -> str:
    return word[1:-1] if word.startswith("'") else word


def _quoted(text: str) -> str:
    """Return a text in Hydra's quotes, as docs/options.md describes them."""
    quote = "'" if '"' in text or "'" not in text else '"'
    return quote + text.replace(quote, f"\\{quote}") + quote


def _path(samples: Samples, key: str, place: str, written: str, expected: Expected) -> Case:
    def prepare(folder: Path) -> None:
        (folder / place).mkdir()
        shutil.copy(samples.teacher, folder)
        if key == "dataset.folder":
            copied(samples.images / "photos", folder / place)
        if key == "teacher.checkpoint":
            shutil.copy(samples.teacher, folder / place)

    words: tuple[str, ...] = (*BASE, GIVEN)
    if key == "dataset.folder":
        words = ("dataset=imagefolder", "dataset.image_size=16", "dataset.augment.padding=1", *BASE[3:], "kd=none")
        words += ("recipe=digits", "recipe@teacher.recipe=digits_float", "teacher.recipe.epochs=1", "recipe.epochs=1")
    if key == "teacher.checkpoint":
        quote = written[0] if written[0] in "'\"" and written[-1] == written[0] else ""
        written = f"{written[:-1]}/teacher.pt{quote}" if quote else f"{written}/teacher.pt"
    # "~" is the home folder for the commands, so that a folder of this name must be written "./~".
    written = written.replace("~", "./~")
    attempt = Attempt(("train.py", *words, f"{key}={written}"), expected, prepare=prepare)
    return Case("options", "path", f"{key}={written}", attempt)
