"""Where each number is from: run, seed, commit, versions, device, and the command that makes it again."""

from __future__ import annotations

from sqakd.report.charts.svg import tag, text
from sqakd.report.records import KINDS, Cell, Finished, Results
from sqakd.report.tables import KIND_NAMES
from sqakd.runs.record import Record

UNKNOWN = "not recorded"
HEADER = ("run", "command", *(f"top-1, {KIND_NAMES[kind]}" for kind in KINDS), "finished", "trained for")
HEADER += ("commit", "versions", "device", "weights, sha256")


def anchors(results: Results) -> dict[Cell, str]:
    """The place of each cell's runs on the page."""
    return {cell: f"runs-{i}" for i, cell in enumerate(results.cells)}


def provenance(results: Results) -> str:
    """A table of all runs with a box to filter it, as HTML."""
    places = anchors(results)
    groups = [
        tag("tbody", *(_row(run) for run in runs), id=places[cell], data_words=str(cell))
        for cell, runs in results.cells.items()
    ]
    head = tag("thead", tag("tr", *(tag("th", text(name), scope="col") for name in HEADER)))
    box = (
        '<p class="tools"><label>Filter <input type="search" id="filter" placeholder="ewgs W1A1 sqakd seed0"'
        ' autocomplete="off"></label> <output id="shown"></output>'
        ' <button type="button" id="copy-all">Copy commands</button></p>'
    )
    return box + tag("div", tag("table", head, *groups, class_="runs"), class_="scroll", tabindex="0")


def _row(run: Finished) -> str:
    record = run.record
    scores = [run.score("top1", kind) for kind in KINDS]
    command = record.command
    fields = [
        tag("code", text(f"{record.name}/seed{run.seed}"), title="/".join(run.folder.parts[-3:])),
        f'<button type="button" class="copy">Copy</button> {tag("code", text(command))}',
        *("-" if score is None else f"{score:.2f}" for score in scores),
        text((record.finished or UNKNOWN).replace("T", " ").replace("+00:00", " UTC")),
        seconds(record.training_seconds),
        _commit(record.commit),
        text(versions(record)),
        text(device(record)),
        _long(record.weights_sha256),
    ]
    first, *rest = fields
    return tag(
        "tr",
        tag("th", first, scope="row"),
        *(tag("td", field, data_name=name) for name, field in zip(HEADER[1:], rest, strict=True)),
    )


def seconds(value: float | None) -> str:
    """As minutes where there are many.

    >>> seconds(53.3), seconds(7260), seconds(None)
    ('53 s', '2 h 1 min', 'not recorded')
    """
    if value is None:
        return UNKNOWN
    minutes, rest = divmod(round(value), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def versions(record: Record) -> str:
    """What computed a result, in a line."""
    return ", ".join(f"{name} {version}" for name, version in record.versions.items()) or UNKNOWN


def device(record: Record) -> str:
    """What a run was trained on; records of earlier versions do not say."""
    if record.device is None:
        return UNKNOWN
    threads = record.threads
    return record.device + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")


def short_commit(commit: str | None) -> str:
    """Its first characters; a plus stays, it says that files differed from the commit.

    >>> short_commit("0123456789abcdef+"), short_commit(None)
    ('0123456789+', 'not recorded')
    """
    return UNKNOWN if not commit else commit[:10] + "+" * commit.endswith("+")


def _commit(commit: str | None) -> str:
    if not commit:
        return UNKNOWN
    return _long(commit.removesuffix("+")) + (" and files that differ" if commit.endswith("+") else "")


def _long(word: str | None) -> str:
    """In full, but shown no longer than there is room for."""
    return tag("code", text(word), class_="long", title=word) if word else UNKNOWN
