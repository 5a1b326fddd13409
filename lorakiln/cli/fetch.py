"""`kiln fetch`: download a model, the one verb that does."""

import json

import typer


def add_verbs(app: typer.Typer) -> None:
    app.command("fetch")(fetch)


def fetch(
    name: str = typer.Argument(help="The model's id on the Hugging Face hub, e.g. SmilingWolf/wd-swinv2-tagger-v3."),
    only: list[str] = typer.Option([], metavar="PATTERN", help="Only files of this name, e.g. 'vae/*'; repeatable."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be downloaded, and stop there."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Download a base, tagger or captioner into the local cache; afterwards its id works offline."""
    from lorakiln.runs.fetch import download, look_up

    wanted = look_up(name).wanted(only)
    if not as_json:
        for file, size in wanted.items():
            typer.echo(f"{size / 1e6:>10,.1f} MB  {file}")
        typer.echo(f"{sum(wanted.values()) / 1e6:>10,.1f} MB  in {len(wanted)} files")
    folder = "" if dry_run else str(download(name, wanted))
    if as_json:
        typer.echo(json.dumps({"name": name, "files": wanted, "folder": folder or None}))
    elif folder:
        typer.echo(folder)
