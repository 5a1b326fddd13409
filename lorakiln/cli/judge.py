"""`kiln judge`: underbaked, baked or overbaked, which checkpoint, and at what strength."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.runs.judge import Judged


def add_verbs(app: typer.Typer) -> None:
    app.command("judge")(judge)


def judge(
    what: Path = typer.Argument(metavar="RUN|FILE", help="A run's folder, or a LoRA .safetensors file."),
    budget: float = typer.Option(0.0, min=0.0, metavar="MINUTES", help="Take at most about so long; 0: as is usual."),
    unseen: Path | None = typer.Option(None, help="Pictures of the same that it never trained on."),
    base: str = typer.Option("", help="For a file: the base it was trained on."),
    pictures: Path | None = typer.Option(None, help="For a file: the pictures it was trained on."),
    cfg: float = typer.Option(6.0, min=1.0, help="For a file: guidance scale of the drawings."),
    out: Path | None = typer.Option(None, help="For a file: folder of the report; by default beside the file."),
    tagger: str = typer.Option("", help="A WD tagger's folder or cached hub id; 'none'. The starter has its own."),
    overwrite: bool = typer.Option(False, "--overwrite", help="For a file: replace an existing report."),
    as_json: bool = typer.Option(False, "--json", help="Print the whole verdict as JSON."),
) -> None:
    """Say whether a LoRA is underbaked, baked or overbaked, which checkpoint to use and at what strength."""
    is_file = what.suffix == ".safetensors"
    if not what.exists():
        raise UserError(f"{what}: no such {'file' if is_file else 'run folder'}")
    if is_file and not (base and pictures):
        raise UserError(f"{what}: a LoRA file needs --base MODEL and --pictures FOLDER to be judged by")
    if not is_file and (base or pictures or out):
        raise UserError("--base, --pictures and --out are for a LoRA file; a run knows its own")
    folder = out or what.parent / f"{what.stem}-judged"
    if is_file and folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"{folder}: exists; choose another --out, or --overwrite")
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.runs.judge import as_json as table
    from lorakiln.runs.judge import run_judge
    from lorakiln.runs.reporter import Stages
    from lorakiln.runs.subject import of_file, of_run

    with TerminalReporter(as_json) as reporter:
        stages = Stages(reporter)
        if is_file:
            assert pictures is not None
            subject = of_file(what, base, pictures, unseen, folder, cfg, stages)
        else:
            subject = of_run(what, unseen, stages)
        done = run_judge(subject, 60 * budget, tagger, reporter, stages)
    if as_json:
        typer.echo(json.dumps({"event": "verdict", **table(done)}))
    else:
        _show(done)


def _show(done: "Judged") -> None:
    """The verdict in a few lines."""
    from lorakiln.judge.report import sentence

    verdict = done.verdict
    typer.echo(f"\n{done.subject.name}: {verdict.word}. {sentence(verdict)}")
    width = max(len(one.name) for one in done.measures.checkpoints)
    for one in done.measures.checkpoints:
        strength, worth = verdict.tops[one.name]
        mark = "*" if one.name == verdict.best else " "
        found = f"best at {strength:.2f}, worth {worth:+.3f} by {verdict.by}" if strength else "worth nothing"
        typer.echo(f" {mark} {one.name:<{width}}  {verdict.words[one.name]:<18}  {found}")
    for title, reasons in (("why", verdict.reasons), ("next", verdict.advice)):
        for one in reasons:
            typer.echo(f"{title:<8}{one.text} [{', '.join(one.evidence)}]")
    for note in done.measures.notes:
        typer.echo(f"note    {note}")
    typer.echo(f"report  {done.subject.folder / 'report.html'}")
