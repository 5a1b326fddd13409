"""`kiln runs`: the ledger of everything that was trained here, listed, filtered, annotated and shared."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import STATUSES, VARIABLE, Entry, Ledger

WIDTH = 80
LABEL = 12  # columns of a fact's name in `kiln runs show`

runs = typer.Typer(invoke_without_command=True, no_args_is_help=False, pretty_exceptions_enable=False)


def add_verbs(app: typer.Typer) -> None:
    app.add_typer(runs, name="runs")


BASE = typer.Option("", "--base", help="Only runs on a base whose name holds this.")
STATUS = typer.Option("", "--status", help=f"Only runs that are {', '.join(STATUSES)}.")
TAG = typer.Option("", "--tag", help="Only runs with this tag.")
WHERE = typer.Option([], "--where", metavar="CONDITION", help="Only runs where this holds, e.g. optim.name=came.")
AS_JSON = typer.Option(False, "--json", help="Print JSON.")
RUN = typer.Argument(help="The run's name, id or folder; of several of one name, the newest.")


@runs.callback()
def _list(
    context: typer.Context,
    base: str = BASE,
    status: str = STATUS,
    tag: str = TAG,
    where: list[str] = WHERE,
    last: int = typer.Option(0, min=0, help="Only so many, the newest; 0: all."),
    as_json: bool = AS_JSON,
) -> None:
    """List, filter, annotate and share every run that was trained here."""
    if context.invoked_subcommand:
        return
    ledger = _ledger()
    found = _chosen(ledger.entries(), base, status, tag, where)
    found = found[:last] if last else found
    if as_json:
        typer.echo(json.dumps([_table(one) for one in found]))
    elif found:
        typer.echo(_line("run", "outcome", "base", "optim", "lr", "steps", "time"))
        for one in found:
            typer.echo(_row(one))
    else:
        typer.echo(f"no such run in {ledger.path}" if base or status or tag or where else f"no run in {ledger.path}")


@runs.command()
def show(run: str = RUN, as_json: bool = AS_JSON) -> None:
    """Show everything that is known of a run."""
    one = _ledger().find(run)
    if as_json:
        typer.echo(json.dumps(_table(one)))
        return
    for name, text in _facts(one):
        typer.echo(textwrap.fill(text, WIDTH, initial_indent=f"{name:<{LABEL}}", subsequent_indent=" " * LABEL,
                                 break_on_hyphens=False))  # fmt: skip


@runs.command()
def note(
    run: str = RUN,
    text: str = typer.Argument("", help="A line to remember, e.g. 'eyes too large above 0.8'."),
    tag: list[str] = typer.Option([], "--tag", help="A word to find it by; repeatable."),
    price: float | None = typer.Option(None, min=0.0, help="What an hour of its machine cost."),
    as_json: bool = AS_JSON,
) -> None:
    """Add a note, tags or the price of an hour to a run."""
    if not text.strip() and not tag and price is None:
        raise UserError("nothing to remember: give a text, --tag or --price")
    ledger = _ledger()
    one = ledger.annotate(ledger.find(run).id, note=" ".join(text.split()), tags=tag, price=price)
    typer.echo(json.dumps(_table(one)) if as_json else f"noted   {one.name} ({one.id})")


@runs.command("export")
def export(
    file: Path = typer.Argument(help="A .csv or .json file to write."),
    base: str = BASE,
    status: str = STATUS,
    tag: str = TAG,
    where: list[str] = WHERE,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing file."),
    as_json: bool = AS_JSON,
) -> None:
    """Write runs to a file for others: with settings, seconds and verdicts, without your folders and host."""
    from lorakiln.base import share

    if file.exists() and not overwrite:
        raise UserError(f"{file}: exists; choose another name, or --overwrite")
    found = _chosen(_ledger().entries(), base, status, tag, where)
    share.write(file, found)
    typer.echo(
        json.dumps({"file": str(file), "runs": len(found)}) if as_json else f"wrote   {len(found)} runs to {file}"
    )


@runs.command("import")
def import_(file: Path = typer.Argument(help="A file that 'kiln runs export' wrote."), as_json: bool = AS_JSON) -> None:
    """Take others' runs into the ledger; your own stay as they are."""
    from lorakiln.base import share

    ledger = _ledger()
    read = share.read(file)
    own = {one.id for one in ledger.entries() if not one.origin}
    taken = [one for one in read if one.id not in own]
    ledger.save(taken)
    told = {"file": str(file), "taken": len(taken), "already_yours": len(read) - len(taken)}
    line = f"took    {len(taken)} runs from {file}; {told['already_yours']} were yours already"
    typer.echo(json.dumps(told) if as_json else line)


@runs.command()
def rebuild(
    folder: Path = typer.Argument(help="A run folder, or a folder of run folders."), as_json: bool = AS_JSON
) -> None:
    """Write the rows of run folders anew, from what lies in them."""
    from lorakiln.runs.row import row_of, run_folder

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    places = (
        [folder] if (folder / "recipe.toml").exists() else sorted(one.parent for one in folder.glob("*/recipe.toml"))
    )
    if not places:
        raise UserError(f"{folder}: neither a run folder nor a folder of them (no recipe.toml)")
    found = [row_of(run_folder(place)) for place in places]
    _ledger().save(found)
    names = [one.name for one in found]
    typer.echo(json.dumps({"rebuilt": names}) if as_json else f"rebuilt {', '.join(names)}")


def _ledger() -> Ledger:
    ledger = Ledger()
    if ledger.path is None:
        raise UserError(f"the ledger is switched off ({VARIABLE} = off)")
    return ledger


def _chosen(entries: list[Entry], base: str, status: str, tag: str, where: list[str]) -> list[Entry]:
    """The runs that all filters let through. Raises UserError for a filter that could never hold."""
    from lorakiln.base.where import check, condition

    if status and status not in STATUSES:
        raise UserError(f"--status {status}: choose from {', '.join(STATUSES)}")
    tests: list[Callable[[Entry], bool]] = [condition(text) for text in where]
    check(where, entries)
    tests += [lambda one: base.casefold() in one.base.casefold()] if base else []
    tests += [lambda one: one.status == status] if status else []
    tests += [lambda one: tag in one.tags] if tag else []
    return [one for one in entries if all(test(one) for test in tests)]


def _table(one: Entry) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(one) | {"time": round(one.time, 3), "cost": one.cost, "step_seconds": one.step_seconds}


def _line(*cells: str) -> str:
    """Cells in columns of an 80-column line; what is too long is cut."""
    widths = (17, 18, 13, 9, 7, 6, 4)
    cut = [text if len(text) <= width else f"{text[: width - 1]}~" for text, width in zip(cells, widths, strict=True)]
    return " ".join(f"{text:<{width}}" for text, width in zip(cut, widths, strict=True)).rstrip()


def _row(one: Entry) -> str:
    optim = one.recipe.get("optim", {})
    rate = optim.get("lr")
    lr = f"{rate:g}" if isinstance(rate, int | float) else ""
    base = Path(one.base).stem if one.base.endswith(".safetensors") else Path(one.base).name
    outcome = one.verdict or one.status
    return _line(one.name, outcome, base, str(optim.get("name", "")), lr, str(one.steps), _clock(one.time))


def _clock(seconds: float) -> str:
    """Four columns at most: 45s, 59m, 12h."""
    if seconds < 100:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.0f}h"


def _facts(one: Entry) -> list[tuple[str, str]]:
    """What `kiln runs show` prints: a name and a text each, empty ones left out."""
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in one.seconds.items())
    memory = f", {one.peak_memory:.1f} GiB at most" if one.peak_memory else ""
    step = f", {one.step_seconds:.2f} s a step" if one.step_seconds else ""
    facts = {
        "run": f"{one.name} ({one.id})" + (f", from {one.origin}" if one.origin else ""),
        "folder": one.folder,
        "status": one.status + (f": {one.error}" if one.error else ""),
        "verdict": (one.verdict or "not judged") + _best(one),
        "base": one.base,
        "purpose": one.purpose,
        "pictures": f"{one.pictures}" + (f", dataset {one.dataset[:12]}" if one.dataset else ""),
        "steps": f"{one.steps}" + (f", settled loss {one.loss:.4f}" if one.loss is not None else ""),
        "time": f"{one.time:.0f} s in all ({stages}){step}" if stages else "",
        "machine": f"{one.device}{memory}" if one.device else "",
        "cost": "" if one.cost is None else f"{one.cost:.2f} at {one.price:g} an hour",
        "started": one.started,
        "finished": one.finished,
        "settings": _settings(one),
        "tags": ", ".join(one.tags),
    }
    notes = [("note", line) for line in one.notes.splitlines()]
    return [(name, text) for name, text in facts.items() if text] + notes


def _best(one: Entry) -> str:
    """Which checkpoint the judge found best, and at which strength; '' where its folder is gone or was not judged."""
    from lorakiln.runs.folder import RunFolder
    from lorakiln.runs.row import judged

    found = judged(RunFolder(Path(one.folder), one.name)) if one.folder else None
    if not found or found.step is None:
        return ""
    return f"; best: step {found.step}" + (f" at strength {found.strength:g}" if found.strength else "")


def _settings(one: Entry) -> str:
    """The settings that are not at their defaults."""
    from lorakiln.base.recipe import flatten, parse
    from lorakiln.base.where import settings_of

    plain = flatten(parse({"base": "", "dataset": [{"folder": ""}]}, "defaults"))
    hidden = {"base", "name", "runs", "purpose"}
    changed = {key: value for key, value in settings_of(one).items() if key not in hidden and plain.get(key) != value}
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()
    )
