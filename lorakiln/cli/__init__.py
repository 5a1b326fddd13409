"""The command line, `kiln <verb>`: parse, call one function, print. One file a group of verbs."""

import os
import sys

# Before torch is imported: OpenMP threads that spin while they wait make a busy machine a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console

from lorakiln import __version__
from lorakiln.base.errors import UserError
from lorakiln.cli import draw, exchange, settings, train

app = typer.Typer(
    name="kiln",
    help="From a folder of pictures to a LoRA that came out right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (train, draw, exchange, settings):
    group.add_verbs(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kiln {__version__}")
        raise typer.Exit


@app.callback()
def _kiln(version: bool = typer.Option(False, "--version", callback=_version, help="Show the version.")) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Exit codes: 0 done, 1 a bug, 2 bad input (one line on stderr), 130 and 143 stopped by a signal."""
    try:
        app(arguments)
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"kiln: {error}")
        sys.exit(2)
