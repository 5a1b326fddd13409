"""`kiln probe`: does the base already know this?"""

import json
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.judge.probe import Probe


def add_verbs(app: typer.Typer) -> None:
    app.command("probe")(probe)


def probe(
    folder: Path = typer.Argument(help="The folder of pictures."),
    base: str = typer.Option(help="The base model, as in a recipe."),
    trigger: str = typer.Option("", help="The trigger word; none: the tag that nearly all captions share."),
    count: int = typer.Option(24, min=4, max=64, help="So many pictures, spread over the folder."),
    cfg: float = typer.Option(4.0, min=1.0, help="Guidance scale of the base's own drawings."),
    steps: int = typer.Option(20, min=1, max=1000, help="Sampling steps of the base's own drawings."),
    out: Path = typer.Option(Path("probe.png"), help="Where your pictures and the base's go, side by side."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, ..."),
    precision: str = typer.Option("auto", help="auto, fp32, bf16 or fp16."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing picture."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tell whether the base already knows these pictures, in one sentence and a picture."""
    from lorakiln.advise.pictures import look, trigger_place
    from lorakiln.base.settings import Dataset

    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; choose another --out, or --overwrite")
    shown = look([Dataset(folder=str(folder), missing="empty", bucket=False, resolution=64)], 64).shown
    named = [one for one in shown if one.caption or one.trigger]
    if len(named) < 4:
        raise UserError(
            f"{folder}: {len(named)} pictures with captions are too few to tell anything; 4 or more are needed"
        )
    step = max(1, len(named) // count)
    picked = named[::step][:count]
    place = trigger_place([one.caption for one in named if one.caption])
    word = trigger or (place[0] if place else "")
    files, texts = [Path(one.path) for one in picked], [one.caption or one.trigger for one in picked]
    found = _measure(files, texts, word, base, cfg, steps, out, device, precision, as_json)
    if not as_json:
        known = f"--novelty={found.excess:.3f}"
        typer.echo(f"next    kiln advise {shlex.quote(str(folder))} --base {shlex.quote(base)} --for style {known}")


def _measure(
    pictures: list[Path], captions: list[str], trigger: str, base: str, cfg: float, steps: int, out: Path, device: str,
    precision: str, as_json: bool,
) -> "Probe":  # fmt: skip
    """Draw, measure, and tell what was found."""
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.judge import probe as judge
    from lorakiln.runs.machine import DTYPES, choose_device, load_base
    from lorakiln.sample.grid import save_png

    if precision not in DTYPES:
        raise UserError(f"--precision {precision}: choose from {', '.join(DTYPES)}")
    family = load_base(base, choose_device(device), precision)
    plain = [judge.without(text, trigger) for text in captions]
    with tempfile.TemporaryDirectory(prefix="kiln-probe-") as place, TerminalReporter(as_json) as reporter:
        drawings = judge.draw_own(family, plain, Path(place), cfg, steps, reporter.steps("draw"))
        found = judge.probe(family, pictures, captions, drawings, trigger)
        save_png(judge.sheet(family, pictures, drawings), out, {"base": base, "probe": found.sentence})
    if as_json:
        typer.echo(
            json.dumps({**asdict(found), "novelty": found.novelty, "sentence": found.sentence, "picture": str(out)})
        )
        return found
    typer.echo(found.sentence)
    typer.echo(f"excess  {found.excess:+.2f} +- {found.spread:.2f} (novel from +{judge.NOVEL:g})")
    typer.echo(f"words   {found.words:+.3f} with its own caption, {found.own_words:+.3f} for the base's own drawings")
    if trigger:
        typer.echo(f"trigger {found.trigger:+.3f} with '{trigger}'")
    typer.echo(f"picture {out}")
    return found
