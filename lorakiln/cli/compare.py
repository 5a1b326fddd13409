"""`kiln compare`: runs side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from lorakiln.base.errors import UserError

WIDTH = 80


def add_verbs(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: list[str] = typer.Argument(help="Two runs or more: folders, names or ids as 'kiln runs' lists them."),
    out: Path = typer.Option(Path("compare.png"), help="Where the picture of their samples goes."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing picture."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show in which settings runs differ, what each came to, and their samples in one picture."""
    from lorakiln.lab import compare as lab

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the picture is a PNG; write its name with .png")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; choose another --out, or --overwrite")
    sides = lab.look(runs)
    settings, measures, same = lab.differences(sides), lab.measures(sides), lab.same_pictures(sides)
    file = str(out) if lab.picture(sides, out) else None
    titles = [side.title for side in sides]
    if as_json:
        told = {"runs": titles, "settings": settings, "measures": measures, "same_pictures": same, "picture": file}
        typer.echo(json.dumps(told))
        return
    typer.echo(_table("setting", titles, settings) if settings else "no setting differs")
    typer.echo("")
    typer.echo(
        _table("measure", titles, {key: row for key, row in measures.items() if any(v is not None for v in row)})
    )
    for line in _remarks(measures, same, file):
        typer.echo(line)


def _remarks(measures: dict[str, list[Any]], same: bool | None, file: str | None) -> list[str]:
    """What must be said lest the table be misread, and where the picture is."""
    lines = []
    if None in measures["verdict"]:
        lines.append("not judged: 'kiln judge RUN' tells how it came out; a loss does not.")
    if same is False:
        lines.append("trained on different pictures: their losses cannot be compared.")
    lines.append(f"samples   {file}" if file else "no run has samples to show")
    return ["", *lines]


def _table(head: str, titles: Sequence[str], rows: dict[str, list[Any]]) -> str:
    """Columns for the runs in 80 columns; cells that are too long are cut, and more runs than fit go below."""
    left = min(30, max(len(head), *(len(key) for key in rows)))
    width = max(9, (WIDTH - left) // len(titles) - 1)
    fits = max(1, (WIDTH - left) // (width + 1))
    blocks = []
    for start in range(0, len(titles), fits):
        part = slice(start, start + fits)
        lines = [_line(head, left, titles[part], width)]
        lines += [_line(key, left, [_cell(value) for value in row[part]], width) for key, row in rows.items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _line(head: str, left: int, cells: Sequence[str], width: int) -> str:
    return " ".join([_cut(head, left).ljust(left), *(_cut(cell, width).ljust(width) for cell in cells)]).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}~"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
