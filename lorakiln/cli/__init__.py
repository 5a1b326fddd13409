"""The command line, `kiln <verb>`: parse, call one function, print. One file a group of verbs."""

import logging
import os
import sys

# Before torch is imported: OpenMP threads that spin while they wait make a busy machine a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console
from typer.exceptions import Abort, TyperException

from lorakiln import __version__
from lorakiln.base.errors import UserError, shown
from lorakiln.cli import (
    advise,
    compare,
    curate,
    draw,
    exchange,
    fetch,
    judge,
    lora,
    probe,
    runs,
    settings,
    sweep,
    tag,
    train,
)

app = typer.Typer(
    name="kiln",
    help="From a folder of pictures to a LoRA that came out right.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (advise, probe, curate, tag, train, judge, runs, compare, sweep, draw, lora, exchange, fetch, settings):
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
    # where it is installed, diffusers imports it, and it warns of a 4-bit kernel that nothing here uses
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        sys.exit(app((sys.argv[1:] if arguments is None else arguments) or ["--help"], standalone_mode=False))
    except TyperException as error:  # a misspelt verb, option or value
        _complain(getattr(error, "format_message", error.__str__)())
    except UserError as error:
        _complain(str(error))
    except (Abort, KeyboardInterrupt):
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not loaded to ask
            raise
        _complain("the GPU's memory is full; close what else uses it, or ask for smaller or fewer pictures")
    sys.exit(2)


def _complain(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False).print(f"kiln: {shown(line)}")
