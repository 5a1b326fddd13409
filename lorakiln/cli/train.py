"""`kiln train` and `kiln tell`: make a LoRA from a recipe, and speak to the run while it goes."""

import json
import os
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.base.settings import Recipe
    from lorakiln.runs.run import Result


def add_verbs(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("tell")(tell)


def train(
    recipe: Path | None = typer.Argument(None, help="The recipe, a TOML file; see 'kiln settings'."),
    name: str = typer.Option("", "--recipe", help="Instead of a file: one of the guides' recipes, by name."),
    resume: bool = typer.Option(False, "--resume", help="Continue the run of this recipe where it stopped."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing run of the same name."),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting, e.g. optim.lr=1e-4."),
    as_json: bool = typer.Option(
        False, "--json", help="Print the run's events as JSON lines instead of a progress bar."
    ),
) -> None:
    """Train a LoRA from a recipe, once 'kiln check' finds nothing that would waste it."""
    from lorakiln.cli.progress import TerminalReporter

    if resume and overwrite:
        raise UserError("--resume and --overwrite: choose one; --resume continues a run, --overwrite replaces it")
    settings, source = _settings(recipe, name, changes)
    _preflight(settings, source, may_exist=resume or overwrite, as_json=as_json)
    from lorakiln.runs.run import train as train_run  # torch comes only now: what stops a run is said at once

    with TerminalReporter(as_json) if _leads() else nullcontext() as reporter:
        result = train_run(settings, source, resume=resume, overwrite=overwrite, reporter=reporter)
    if _leads() and not as_json:
        _summary(result, shlex.join(_words(recipe, name, changes, resume=result.begun, overwrite=overwrite)))
    raise typer.Exit(result.exit_code)


def _settings(recipe: Path | None, name: str, changes: list[str]) -> "tuple[Recipe, Path]":
    """The recipe of a file or of a name, and the file it is called after."""
    from lorakiln.advise.methods import named
    from lorakiln.base.recipe import read

    if (recipe is None) == (not name):
        raise UserError("give a recipe's file, or --recipe NAME, and not both")
    return (read(recipe, changes), recipe) if recipe else (named(name, changes), Path(f"{name}.toml"))


def _preflight(settings: "Recipe", source: Path, *, may_exist: bool, as_json: bool) -> None:
    """Ask the rules of `kiln check`, say what they find (once, if several processes train), and stop at an error."""
    from lorakiln.advise.check import check, gather, row, stops
    from lorakiln.cli.advise import show_findings

    case = gather(settings, source, may_exist=may_exist)
    findings = check(case)
    if _leads():
        if as_json:
            typer.echo(json.dumps({"event": "check", "findings": [row(one) for one in findings]}))
        else:
            show_findings([one for one in findings if one.rule.severity != "note"], case, source)
    if stops(findings):
        ids = ", ".join(one.rule.id for one in findings if one.rule.severity == "error" and not one.ignored)
        raise UserError(f"{source}: not started because of {ids}; change the recipe, or ignore = [...] to train anyway")


def _leads() -> bool:
    """Whether this process speaks to the user; of several that torchrun started one does."""
    return os.environ.get("RANK", "0") == "0"


def _words(recipe: Path | None, name: str, changes: list[str], *, resume: bool, overwrite: bool) -> list[str]:
    """The command that continues this run, or starts it again where nothing of it was written yet."""
    what = [str(recipe)] if recipe else ["--recipe", name]
    how = ["--resume"] if resume else ["--overwrite"] if overwrite else []
    return ["kiln", "train", *what, *(word for change in changes for word in ("--set", change)), *how]


def _summary(result: "Result", again: str) -> None:
    """Where everything is, how long each stage took, and what to try next."""
    folder = result.folder
    if result.stop and not result.stop.complete:
        typer.echo(f"stopped ({result.stop.reason}); continue with: {again}")
        return
    typer.echo(result.stop.reason if result.stop else "")
    for what, path in [("LoRA", folder.lora), ("samples", folder.grid), ("loss curve", folder.curve)]:
        if path.exists():
            typer.echo(f"{what:<11} {path}")
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    typer.echo(f"{'time':<11} {stages}; in all {sum(result.seconds.values()):.0f} s")
    typer.echo(f"{'next':<11} kiln judge {folder.path}")
    typer.echo(f'{"":<11} kiln sample --base {result.base} --lora {folder.lora}:0.7 --prompt "{result.prompt}"')


def tell(
    run: Path = typer.Argument(help="The run's folder."),
    command: str = typer.Argument(help="sample, save or stop."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Ask a run that is going on to draw samples, save a checkpoint, or stop, at the end of its step."""
    from lorakiln.runs.control import COMMANDS, tell

    if command not in COMMANDS:
        raise UserError(f"unknown command '{command}'; choose from {', '.join(COMMANDS)}")
    tell(run, command)
    typer.echo(json.dumps({"run": str(run), "told": command}) if as_json else f"told {run}: {command}")
