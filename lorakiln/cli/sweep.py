"""`kiln sweep`: which value of a setting is better, and is the difference more than chance."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer


def add_verbs(app: typer.Typer) -> None:
    app.command("sweep")(sweep)


def sweep(
    recipe: Path = typer.Argument(help="The recipe that all trials share, a TOML file."),
    over: list[str] = typer.Option(
        [], metavar="KEY=VALUE,VALUE", help="Values of a setting; repeatable: all together."
    ),
    seeds: int = typer.Option(
        1, min=1, max=100, help="Trials a combination, each with the next seed; 3 give intervals."
    ),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting of all trials."),
    out: Path | None = typer.Option(None, help="The sweep's folder; none: sweeps/NAME OF THE RECIPE."),
    budget: float = typer.Option(0.0, min=0.0, metavar="MINUTES", help="Stop after so many minutes; 0: no limit."),
    spend: float = typer.Option(0.0, min=0.0, metavar="MONEY", help="Stop when so much is spent, at --price an hour."),
    price: float = typer.Option(0.0, min=0.0, help="What an hour of the machine costs."),
    retry: bool = typer.Option(False, "--retry", help="Train failed trials again."),
    address: str = typer.Option("", help="A Ray cluster ('auto', 'local' or ray://HOST:10001) instead of one by one."),
    gpus: float = typer.Option(1.0, min=0.0, help="GPUs a trial takes on the Ray cluster; 0: it runs on the CPU."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Train a recipe with every combination of some values and several seeds, and say which difference is real."""
    from lorakiln.base.files import write_text
    from lorakiln.lab import findings
    from lorakiln.lab import sweep as lab

    out = out or Path("sweeps") / recipe.stem
    deadline = lab.deadline_of(budget, spend, price)
    trials = [replace(trial, price=price) for trial in lab.plan(recipe, over, seeds, changes, out)]
    if address:
        outcomes = lab.run_on_ray(trials, deadline, retry, address, gpus)
    else:
        outcomes = lab.run_here(trials, deadline, retry)
    interrupted = False
    try:
        for number, outcome in enumerate(outcomes, start=1):
            if not as_json:
                typer.echo(_line(number, len(trials), outcome))
    except KeyboardInterrupt:
        interrupted = True
    found = lab.state_of(trials)
    remarks = _remarks(found, lab.loss_settings(trials), findings.measure_of(found))
    page = findings.page(out.name, found, remarks)
    write_text(out / "report.md", page)
    write_text(out / "findings.json", json.dumps(findings.table(found), indent=1) + "\n")
    typer.echo(json.dumps(findings.table(found)) if as_json else f"\n{page}\nreport  {out / 'report.md'}")
    done = [one.status for one in found]
    raise typer.Exit(130 if interrupted else 1 if set(done) == {"failed"} else 0)


def _line(number: int, count: int, outcome: Any) -> str:
    label = " ".join(f"{key}={value}" for key, value in outcome.changes)
    measured = [f"gain {outcome.gain:+.4f}"] if outcome.gain is not None else []
    measured += [f"loss {outcome.loss:.4f}"] if outcome.loss is not None and outcome.status == "finished" else []
    measured += [outcome.error] if outcome.status == "failed" else []
    told = ", ".join([outcome.status, *measured, f"{outcome.seconds:.0f} s"])
    return f"{number}/{count} {label} seed={outcome.seed}: {told}"


def _remarks(found: list[Any], losses: list[str], measure: str) -> list[str]:
    """What must be known to read the table."""
    remarks = []
    left = sum(one.status not in ("finished", "failed") for one in found)
    if left:
        remarks.append(f"{left} of {len(found)} trials are not done; the same command goes on where it stopped.")
    if measure == "loss" and losses:
        remarks.append(f"{', '.join(losses)} may change what the loss is: of these values the loss does not tell the "
                       "better; give dataset.heldout and judge.epochs, and the held-out gain does.")  # fmt: skip
    if len({one.seed for one in found}) < 2:
        remarks.append("One seed shows no chance: only differences that several seeds agree on are called real.")
    return remarks
