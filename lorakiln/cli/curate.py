"""`kiln curate`: which pictures of a folder are worth training on, and moving the others out of the way."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.curate.advice import Advice, Findings
    from lorakiln.curate.scan import Scan


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
    undo: bool = typer.Option(False, "--undo", help="Bring back what the last --apply moved."),
    report: Path | None = typer.Option(None, help="Where the HTML report goes; default FOLDER/.kiln/curate.html."),
    workers: int = typer.Option(0, min=0, max=256, help="Pictures read at once; 0: one for each core."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON; 'duplicates' holds the groups as lists of paths."),
) -> None:
    """Find copies, near poses and bad pictures in a folder, weigh it for a purpose, and say what to do."""
    from lorakiln.base.files import atomic
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.curate import act
    from lorakiln.curate.advice import advise
    from lorakiln.curate.report import page_of, values_of

    if undo:
        _undo(folder, as_json)
        return
    if trim and not apply:
        raise UserError("--trim: writes files, so it needs --apply as well")
    with TerminalReporter(as_json) as reporter:
        scan, findings = _look(folder, resolution, by_tag, workers, reporter)
    advice = advise(purpose, resolution, findings)
    place = report or scan.folder / ".kiln" / "curate.html"
    with atomic(place) as stream:
        stream.write(page_of(scan, findings, advice, purpose))
    values = values_of(scan, findings, advice) | {"report": str(place), "moved": []}
    scan.index.close()
    if apply:
        rejects = _rejects(scan, advice, keep)
        trims = [p for p in scan.pictures if trim and any(p.measures.border) and p.name not in rejects]
        values["moved"] = [vars_of(moved) for moved in act.apply(scan.folder, rejects, trims)]
    if as_json:
        typer.echo(json.dumps(values))
    else:
        _print(scan, findings, advice, values)


def _look(folder: Path, resolution: int, by_tag: str, workers: int, reporter: Any) -> tuple["Scan", "Findings"]:
    """Scan, compare and weigh; this is where curating meets buckets and captions."""
    from lorakiln.base.records import Size
    from lorakiln.curate import balance, duplicates
    from lorakiln.curate.advice import Findings
    from lorakiln.curate.scan import scan as scan_folder
    from lorakiln.data.buckets import Buckets
    from lorakiln.tag import captions

    side = max(resolution // 64, 1) * 64
    scan = scan_folder(folder, reporter.steps("measure"), workers)
    found = duplicates.find(scan.pictures, scan.index, reporter.steps("compare"))
    read, wanted = captions.reader(), captions.parse(by_tag)

    def concept(picture: Any) -> str:
        if wanted:
            tags = captions.parse(read(scan.folder / picture.name) or "")
            return next((tag for tag in wanted if tag in tags), "(none of them)")
        named = captions.parse_folder(picture.folder.partition("/")[0])
        return named[1] if named else picture.folder

    weighed = balance.weigh(scan.pictures, Buckets(Size(side, side)).fit, concept)
    return scan, Findings(scan.pictures, scan.refused, found, weighed)


def _rejects(scan: "Scan", advice: "list[Advice]", keep: list[str]) -> dict[str, str]:
    """What is moved, and why; a file that vanished or a folder that cannot be entered is left alone."""
    from lorakiln.base.errors import nearest
    from lorakiln.curate.advice import REJECTS

    for fault in keep:
        if fault not in REJECTS:
            raise UserError(f"--keep {fault}: is not a reason to reject{nearest(fault, REJECTS)}")
    rejects: dict[str, str] = {}
    for entry in advice:
        if entry.level == "reject" and entry.fault not in keep:
            for name in entry.names:
                if (scan.folder / name).is_file():
                    rejects[name] = f"{rejects[name]}, {entry.fault}" if name in rejects else entry.fault
    return rejects


def vars_of(moved: Any) -> dict[str, str]:
    return {"name": moved.name, "to": moved.to, "why": moved.why, "written": moved.written}


def _undo(folder: Path, as_json: bool) -> None:
    from lorakiln.curate import act
    from lorakiln.curate.picture import shown

    back, remarks = act.undo(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "brought_back": back, "remarks": remarks}))
        return
    typer.echo(f"{len(back)} files brought back")
    for remark in remarks:
        typer.echo(shown(remark))


def _print(scan: "Scan", findings: "Findings", advice: "list[Advice]", values: dict[str, Any]) -> None:
    """The table in the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lorakiln.curate.picture import shown

    copies = sum(len(group.copies) for group in findings.duplicates.groups)
    near = sum(len(poses.pictures) - 1 for poses in findings.duplicates.near)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(
        f"{len(scan.pictures)} pictures ({scan.read} read now), {copies} copies, {near} near poses, "
        f"{len(scan.refused)} unreadable; variety {findings.balance.variety:.2f}"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "finding", "pictures"):
        table.add_column(column, overflow="fold")
    colours = {"reject": "red", "warn": "yellow", "note": "blue", "good": "green"}
    for entry in advice:
        names = ", ".join(shown(name) for name in entry.names[:3]) + (", ..." if len(entry.names) > 3 else "")
        text = f"{entry.text} [{entry.rule}]" if entry.rule else entry.text
        table.add_row(Text(entry.level, colours[entry.level]), entry.fault, Text(text), Text(names))
    console.print(table)
    for line in [*(entry.reason for entry in scan.refused), *scan.notes]:
        console.print(Text(shown(line)))
    if values["moved"]:
        console.print(f"{len(values['moved'])} files moved to _rejected/; bring them back with: kiln curate --undo")
    console.print(f"report {values['report']}", soft_wrap=True)
