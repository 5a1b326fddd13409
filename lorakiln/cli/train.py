"""`kiln train` and `kiln tell`: make a LoRA from a recipe, and speak to the run while it goes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.runs.run import Result


def add_verbs(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("tell")(tell)


def train(
    recipe: Path = typer.Argument(help="The recipe, a TOML file; see 'kiln settings'."),
    resume: bool = typer.Option(False, "--resume", help="Continue the run of this recipe where it stopped."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing run of the same name."),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting, e.g. optim.lr=1e-4."),
    as_json: bool = typer.Option(
        False, "--json", help="Print the run's events as JSON lines instead of a progress bar."
    ),
) -> None:
    """Train a LoRA from a recipe."""
    from lorakiln.base.recipe import read
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.runs.run import train as train_run

    if resume and overwrite:
        raise UserError("--resume and --overwrite: choose one; --resume continues a run, --overwrite replaces it")
    with TerminalReporter(as_json) as reporter:
        result = train_run(read(recipe, changes), recipe, resume=resume, overwrite=overwrite, reporter=reporter)
    if not as_json:
        _summary(result, recipe)
    raise typer.Exit(result.exit_code)


def _summary(result: "Result", recipe: Path) -> None:
    """Where everything is, how long each stage took, and what to try next."""
    folder = result.folder
    if result.stop:
        typer.echo(f"stopped ({result.stop.reason}); continue with: kiln train {recipe} --resume")
        return
    typer.echo("")
    for what, path in [("LoRA", folder.lora), ("samples", folder.grid), ("loss curve", folder.curve)]:
        if path.exists():
            typer.echo(f"{what:<11} {path}")
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    typer.echo(f"{'time':<11} {stages}; in all {sum(result.seconds.values()):.0f} s")
    typer.echo(f'{"next":<11} kiln sample --base {result.base} --lora {folder.lora}:0.7 --prompt "{result.prompt}"')


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
