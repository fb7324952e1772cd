"""The table of all runs: seed, scores, commit, versions, device, and the command that trains the run again."""

from __future__ import annotations

from sqakd.report.cells import Cell
from sqakd.report.charts.svg import tag, text
from sqakd.report.result_tables import AGGREGATE_NAMES
from sqakd.report.results import AGGREGATES, FinishedRun, Results
from sqakd.runs.record import Record

UNKNOWN = "not recorded"
HEADER = ("run", "command", *(f"top-1, {AGGREGATE_NAMES[name]}" for name in AGGREGATES), "finished", "trained for")
HEADER += ("commit", "versions", "device", "weights, sha256")


def anchors(results: Results) -> dict[Cell, str]:
    """Return the anchor on the page of the runs of each cell."""
    return {cell: f"runs-{i}" for i, cell in enumerate(results.cells)}


def provenance(results: Results) -> str:
    """Return a table of all runs with a box to filter it, as HTML."""
    names = anchors(results)
    groups = [
        tag("tbody", *(_row(run) for run in runs), id=names[cell], data_words=str(cell))
        for cell, runs in results.cells.items()
    ]
    head = tag("thead", tag("tr", *(tag("th", text(name), scope="col") for name in HEADER)))
    box = (
        '<p class="tools"><label>Filter <input type="search" id="filter" placeholder="ewgs W1A1 sqakd seed0"'
        ' autocomplete="off"/></label> <output id="shown"></output>'
        ' <button type="button" id="copy-all">Copy commands</button></p>'
    )
    return box + tag("div", tag("table", head, *groups, class_="runs"), class_="scroll", tabindex="0")


def _row(run: FinishedRun) -> str:
    record = run.record
    scores = [run.score("top1", name) for name in AGGREGATES]
    command = record.command
    fields = [
        tag("code", text(f"{record.name}/seed{run.seed}"), title="/".join(run.folder.parts[-3:])),
        f'<button type="button" class="copy">Copy</button> {tag("code", text(command))}',
        *("-" if score is None else f"{score:.2f}" for score in scores),
        text((record.finished or UNKNOWN).replace("T", " ").replace("+00:00", " UTC")),
        seconds(record.training_seconds),
        _commit(record.commit),
        text(versions_text(record)),
        text(device_text(record)),
        _long(record.weights_sha256),
    ]
    first, *rest = fields
    return tag(
        "tr",
        tag("th", first, scope="row"),
        *(tag("td", field, data_name=name) for name, field in zip(HEADER[1:], rest, strict=True)),
    )


def seconds(value: float | None) -> str:
    """Return a time in seconds, minutes or hours.

    >>> seconds(53.3), seconds(7260), seconds(None)
    ('53 s', '2 h 1 min', 'not recorded')
    """
    if value is None:
        return UNKNOWN
    minutes, rest = divmod(round(value), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def versions_text(record: Record) -> str:
    """Return the versions of the packages that computed a result, in one line."""
    return ", ".join(f"{name} {version}" for name, version in record.versions.items()) or UNKNOWN


def device_text(record: Record) -> str:
    """Return the device that trained a run; early records do not have it."""
    if record.device is None:
        return UNKNOWN
    threads = record.threads
    return record.device + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")


def short_commit(commit: str | None) -> str:
    """Return the first characters of a commit, with the plus that marks files that differed from it.

    >>> short_commit("0123456789abcdef+"), short_commit(None)
    ('0123456789+', 'not recorded')
    """
    return UNKNOWN if not commit else commit[:10] + "+" * commit.endswith("+")


def _commit(commit: str | None) -> str:
    if not commit:
        return UNKNOWN
    return _long(commit.removesuffix("+")) + (" with uncommitted changes" if commit.endswith("+") else "")


def _long(word: str | None) -> str:
    """Return a long word of which the page shows as much as there is room for."""
    return tag("code", text(word), class_="long", title=word) if word else UNKNOWN
