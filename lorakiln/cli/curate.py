"""`kiln curate`: which pictures of a folder are worth training on, and moving the others out of the way."""

import contextlib
import json
import re
import shlex
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from lorakiln.curate.act import Cut
    from lorakiln.curate.advice import Advice, Findings
    from lorakiln.curate.balance import Place
    from lorakiln.curate.picture import Picture
    from lorakiln.curate.scan import Scan
    from lorakiln.data.buckets import Buckets


def add_verbs(app: typer.Typer) -> None:
    app.command("curate")(curate)


def curate(
    folder: Path = typer.Argument(help="Folder of pictures, with subfolders."),
    purpose: str = typer.Option("character", "--for", help="What is to be trained: character, style or concept."),
    resolution: int = typer.Option(1024, min=64, max=4096, help="Side of a square training picture, pixels."),
    by_tag: str = typer.Option("", metavar="TAG,TAG", help="Count sub-concepts by these tags instead of by folder."),
    apply: bool = typer.Option(False, "--apply", help="Move rejects to _rejected/; nothing is deleted."),
    keep: list[str] = typer.Option([], metavar="FAULT", help="Do not reject for this fault, e.g. copy; repeatable."),
    trim: bool = typer.Option(False, "--trim", help="Replace pictures with bars by copies without; needs --apply."),
    crop: bool = typer.Option(
        False, "--crop", help="Replace pictures that their bucket cuts by copies of its shape; needs --apply."
    ),
    undo: bool = typer.Option(False, "--undo", help="Bring back what the last --apply moved."),
    report: Path | None = typer.Option(None, help="Where the HTML report goes; default FOLDER/.kiln/curate.html."),
    workers: int = typer.Option(0, min=0, max=256, help="Pictures read at once; 0: one for each core."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON; 'duplicates' holds the groups as lists of paths."),
) -> None:
    """Find copies, near poses and bad pictures in a folder, weigh it for a purpose, and say what to do."""
    from lorakiln.base.records import Size
    from lorakiln.curate import act, advice
    from lorakiln.data.buckets import Buckets

    if undo:
        with act.alone(folder):
            _undo(folder, as_json)
        return
    for name, asked in {"--trim": trim, "--crop": crop}.items():
        if asked and not apply:
            raise UserError(f"{name}: writes files, so it needs --apply as well")
    advice.check(purpose, keep)
    order = Order(purpose, resolution, Buckets(Size(resolution, resolution)), by_tag, tuple(keep), workers)
    with act.alone(folder) if apply else contextlib.nullcontext(), _sound(folder):
        look = _look(folder, order, as_json)
        values, trouble = _report(look, order, report)
        if apply:
            cuts = _cuts(look, order.buckets, trim, crop)
            values["moved"] = [vars_of(moved) for moved in act.apply(look.scan.folder, _rejects(look), cuts)]
    if as_json:
        typer.echo(json.dumps(values))
    else:
        _print(look, values)
    if trouble and report is not None:
        raise UserError(trouble)


@contextlib.contextmanager
def _sound(folder: Path) -> "Generator[None]":
    """Name the index where it turns out to be damaged in the middle."""
    from lorakiln.curate.index import FILE, FOLDER

    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{folder / FOLDER / FILE}: {error}; delete it and look again") from error


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a folder."""

    purpose: str
    resolution: int
    buckets: "Buckets"
    by_tag: str
    keep: tuple[str, ...]
    workers: int


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in it, and what is said about it; `notes` are remarks on files and folders."""

    scan: "Scan"
    findings: "Findings"
    advice: "list[Advice]"
    notes: list[str]


def _look(folder: Path, order: Order, as_json: bool) -> Look:
    """Scan, compare and weigh; this is where curating meets buckets and captions."""
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.curate import advice, balance, duplicates
    from lorakiln.curate.scan import scan as scan_folder

    with TerminalReporter(as_json) as reporter:
        scan = scan_folder(folder, reporter.steps("measure"), order.workers)
        found = duplicates.find(
            scan.pictures, scan.index, reporter.steps, lambda one: advice.unfit(one, order.resolution, order.keep)
        )
    crops = {picture.name: order.buckets.fit(picture.size) for picture in scan.pictures}
    staying = advice.staying(scan.pictures, found, order.resolution, order.keep)
    notes = list(scan.notes)
    weighed = balance.weigh(staying, crops, _placer(scan.folder, order.by_tag, notes))
    findings = advice.Findings(scan.pictures, scan.refused, found, crops, staying, weighed)
    return Look(scan, findings, advice.advise(order.purpose, order.resolution, findings, order.keep), notes)


def _placer(folder: Path, by_tag: str, notes: list[str]) -> "Callable[[Picture], Place]":
    """A function that says which sub-concept a picture belongs to; what is odd on the way goes to `notes`."""
    from lorakiln.curate.balance import Place
    from lorakiln.tag import captions, sidecar

    wanted = captions.parse(by_tag)

    def remark(text: str) -> None:
        if text and text not in notes:
            notes.append(text)

    def words(picture: "Picture") -> str:
        try:
            file = sidecar.of(folder / picture.name)
        except UserError as error:
            remark(str(error))
            return ""
        remark(file.warning)
        return file.text

    def place(picture: "Picture") -> Place:
        outermost = picture.folder.partition("/")[0]
        try:
            repeats, named = captions.parse_folder(outermost) or (1, picture.folder)
        except UserError as error:  # 0_name: training refuses it, and what is in it can be looked at all the same
            remark(str(error))
            repeats, named = 1, picture.folder
        if wanted:
            text = words(picture)
            named = next((tag for tag in wanted if _mentions(text, tag)), "(none of them)")
        return Place(named, repeats)

    return place


def _mentions(text: str, tag: str) -> bool:
    """Whether a caption holds a tag, as one of a line's tags or as words of a sentence; underscores are spaces."""
    from lorakiln.tag import captions

    wanted = tag.replace("_", " ").casefold()
    for line in text.replace("_", " ").casefold().splitlines():
        for piece in captions.parse(line):
            prose = len(piece.split()) > 4 or piece.endswith(".")
            if piece == wanted or (prose and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", piece)):
                return True
    return False


def _report(look: Look, order: Order, report: Path | None) -> tuple[dict[str, Any], str]:
    """(everything for --json, why the page could not be written); the page goes to `report`."""
    from lorakiln.base.files import atomic
    from lorakiln.curate.report import page_of, values_of

    place, trouble = report or look.scan.folder / ".kiln" / "curate.html", ""
    values = values_of(look.scan, look.findings, look.advice, look.notes)
    page = page_of(look.scan, look.findings, look.advice, look.notes, order.purpose)
    look.scan.index.close()
    try:
        with atomic(place) as stream:
            stream.write(page)
    except UserError as error:
        trouble = f"no report: {error}"
        look.notes.append(trouble)
    return values | {"notes": look.notes, "report": None if trouble else str(place), "moved": []}, trouble


def _rejects(look: Look) -> dict[str, str]:
    """What is moved, and why; a file that vanished or a folder that cannot be entered is left alone."""
    rejects: dict[str, str] = {}
    for entry in look.advice:
        if entry.level == "reject":
            for name in entry.names:
                if (look.scan.folder / name).is_file():
                    rejects[name] = f"{rejects[name]}, {entry.fault}" if name in rejects else entry.fault
    return rejects


def _cuts(look: Look, buckets: "Buckets", trim: bool, crop: bool) -> "dict[str, Cut]":
    """The copies that --trim and --crop write of pictures that stay: bars off first, then the bucket's shape."""
    from lorakiln.base.records import Size
    from lorakiln.curate.act import Cut
    from lorakiln.curate.advice import MUCH_LOST

    cuts = {}
    for picture in look.findings.staying:
        left, top, right, bottom = picture.measures.border if trim else (0, 0, 0, 0)
        inside = Size(picture.size.width - left - right, picture.size.height - top - bottom)
        box, what = (left, top, left + inside.width, top + inside.height), "trimmed" if inside != picture.size else ""
        fitted = buckets.fit(inside)
        if crop and fitted.lost > MUCH_LOST:
            scale = fitted.resized.width / inside.width
            x, y = left + round(fitted.left / scale), top + round(fitted.top / scale)
            width, height = (min(round(side / scale), most) for side, most in zip(fitted.target, inside, strict=True))
            box, what = (x, y, x + width, y + height), "cropped"
        if what:
            cuts[picture.name] = Cut(box, what)
    return cuts


def vars_of(moved: Any) -> dict[str, str]:
    return {"name": moved.name, "to": moved.to, "why": moved.why, "written": moved.written}


def _undo(folder: Path, as_json: bool) -> None:
    from lorakiln.base.errors import shown
    from lorakiln.curate import act

    back, remarks = act.undo(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "brought_back": back, "remarks": remarks}))
        return
    typer.echo(f"{len(back)} files brought back")
    for remark in remarks:
        typer.echo(shown(remark))


def _print(look: Look, values: dict[str, Any]) -> None:
    """The table in the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lorakiln.base.errors import shown

    scan, findings = look.scan, look.findings
    copies = sum(len(group.copies) for group in findings.duplicates.groups)
    near = sum(len(poses.pictures) - 1 for poses in findings.duplicates.near)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(
        f"{len(scan.pictures)} pictures ({scan.read} read now), {copies} copies, {near} near poses, "
        f"{len(scan.refused)} unreadable; {len(findings.staying)} stay, variety {findings.balance.variety:.2f}"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "finding", "pictures"):
        table.add_column(column, overflow="fold")
    colours = {"reject": "red", "warn": "yellow", "note": "blue", "good": "green"}
    for entry in look.advice:
        names = ", ".join(shown(name) for name in entry.names[:3]) + (", ..." if len(entry.names) > 3 else "")
        text = shown(f"{entry.text} [{entry.rule}]" if entry.rule else entry.text)
        table.add_row(Text(entry.level, colours[entry.level]), entry.fault, Text(text), Text(names))
    console.print(table)
    for line in [*(entry.reason for entry in scan.refused), *look.notes]:
        console.print(Text(shown(line)))
    if values["moved"]:
        again = f"kiln curate {shlex.quote(shown(str(scan.folder)))} --undo"
        moved = len(values["moved"])
        console.print(f"{moved} files moved to _rejected/; bring them back with: {again}", soft_wrap=True)
    if values["report"]:
        console.print(f"report {shown(values['report'])}", soft_wrap=True)
