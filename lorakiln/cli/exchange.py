"""`kiln import` and `kiln export`: other tools' files in and out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.base.settings import Recipe
    from lorakiln.exchange.report import Import


def add_verbs(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    file: Path = typer.Argument(help="A kohya_ss preset, sd-scripts, LoRA Easy or Jupyter .toml, or a LoRA file."),
    out: Path | None = typer.Option(None, help="Write the recipe here."),
    base: str = typer.Option("", help="The base model, where the file does not name one."),
    folder: str = typer.Option("", help="The folder of pictures, where the file does not name one."),
    every: bool = typer.Option(False, "--all", help="Show the keys without effect too."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing file."),
    as_json: bool = typer.Option(False, "--json", help="Print recipe and keys as JSON."),
) -> None:
    """Make a recipe of another tool's settings, and say what became of each key."""
    from lorakiln.base.files import write_text
    from lorakiln.base.recipe import parse, write
    from lorakiln.exchange.read import import_file

    done = import_file(file, base=base, folder=folder)
    if out:
        if out.exists() and not overwrite:
            raise UserError(f"{out}: exists; choose another --out, or --overwrite")
        write_text(out, write(parse(done.recipe, str(file))))
    if as_json:
        typer.echo(json.dumps({"recipe": done.recipe, "keys": [asdict(key) for key in done.keys]}))
        return
    _show(done, every, file, out)


def _show(done: "Import", every: bool, file: Path, out: Path | None) -> None:
    from lorakiln.exchange.report import FATES

    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.print(f"{file.name}: {done.kind}, {len(done.keys)} keys")
    for fate, meaning in FATES.items():
        rows = [key for key in done.keys if key.fate == fate]
        if not rows:
            continue
        console.print(f"\n{fate} ({len(rows)}): {meaning}")
        if fate == "no-effect" and not every:
            loud = [key for key in rows if not key.why.startswith(("off", "empty", "0 is off"))]
            console.print(f"  {', '.join(key.key for key in loud[:12])}{' ...' if len(loud) > 12 else ''}; see --all")
            continue
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(max_width=34, overflow="fold")
        table.add_column(max_width=16, overflow="ellipsis", no_wrap=True)
        table.add_column(overflow="fold")
        for key in rows:
            table.add_row(
                f"  {key.key}", shown(key.value), "; ".join(filter(None, [f"-> {key.to}" if key.to else "", key.why]))
            )
        console.print(table)
    console.print("")
    if done.asked:
        console.print(f"still to fill in: {', '.join(done.asked)} (--base, --folder, or in the recipe)")
    if out:
        console.print(f"recipe  {out}\nnext    kiln check {out}")
    else:
        console.print("nothing was written: add --out my.toml for the recipe")


def shown(value: Any) -> str:
    """A value for a narrow column."""
    return json.dumps(value, ensure_ascii=False)


def export(
    recipe: Path = typer.Argument(help="The recipe, a TOML file."),
    to: str = typer.Option("kohya", help="kohya (a GUI preset) or sd-scripts (a command and its files)."),
    out: Path | None = typer.Option(None, help="A .json file for kohya, a folder for sd-scripts; none: print."),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting first."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files."),
    as_json: bool = typer.Option(False, "--json", help="Print files and problems as JSON."),
) -> None:
    """Write a recipe for kohya_ss or sd-scripts, and say what they cannot express."""
    from lorakiln.base.files import write_text
    from lorakiln.base.recipe import read

    files, problems = _exported(read(recipe, changes), recipe, to, out)
    if out:
        for path in files:
            if path.exists() and not overwrite:
                raise UserError(f"{path}: exists; choose another --out, or --overwrite")
        for path, text in files.items():
            write_text(path, text)
    if as_json:
        typer.echo(json.dumps({"files": {str(path): text for path, text in files.items()}, "problems": problems}))
        return
    for path, text in files.items():
        typer.echo(str(path) if out else text)
    for problem in problems:
        typer.echo(f"cannot be expressed: {problem}", err=True)


def _exported(settings: "Recipe", recipe: Path, to: str, out: Path | None) -> tuple[dict[Path, str], list[str]]:
    """(files with their text, what cannot be expressed) for one tool."""
    from lorakiln.exchange.export import command, export, prompt_lines
    from lorakiln.exchange.export_gui import preset
    from lorakiln.exchange.export_pictures import dataset_file

    if to == "kohya":
        file = out or Path(f"{recipe.stem}.json")
        datasets = file.with_suffix(".dataset.toml")
        table, problems = preset(settings, str(datasets))
        files = {file: json.dumps(table, indent=2) + "\n"}
        if table["dataset_config"]:
            files[datasets] = dataset_file(export(settings))
        return files, problems
    if to != "sd-scripts":
        raise UserError(f"--to {to}: choose from kohya, sd-scripts")
    exported, folder = export(settings), out or Path(recipe.stem)
    if "sample_prompts" in exported.arguments and settings.sample.prompts:
        exported.arguments["sample_prompts"] = str(folder / "prompts.txt")
    files = {folder / "train.sh": command(exported, str(folder / "dataset.toml"))}
    if exported.datasets:
        files[folder / "dataset.toml"] = dataset_file(exported)
    if settings.sample.prompts:
        files[folder / "prompts.txt"] = prompt_lines(settings)
    return files, exported.problems
