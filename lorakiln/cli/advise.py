"""`kiln why`, `kiln advise`, `kiln check`, `kiln estimate` and `kiln doctor`: everything before the clock runs."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from lorakiln.base.errors import UserError

WIDTH = 80


def add_verbs(app: typer.Typer) -> None:
    for verb, name in ((why, "why"), (advise, "advise"), (check, "check"), (estimate, "estimate"), (doctor, "doctor")):
        app.command(name)(verb)


def why(
    topic: str = typer.Argument("", help="A setting (learning_rate, optim.lr), a word (style, came) or a row (T6)."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show what is known about a setting, and where it comes from."""
    from lorakiln.advise.evidence import SOURCES, about, evidence, lines
    from lorakiln.advise.own import evidence_of

    found = about(topic) if topic else list(evidence().values())
    found = [*evidence_of(_remembered(), topic), *found]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found]))
        return
    for row in found:
        typer.echo("\n".join(lines(row, WIDTH)))
    typer.echo("")
    for letter in dict.fromkeys(row.source for row in found):
        typer.echo(textwrap.fill(f"{letter}  {SOURCES[letter]}", WIDTH, subsequent_indent="   "))


def advise(
    folder: Path = typer.Argument(help="The folder of pictures."),
    base: str = typer.Option(help="The base model, as in a recipe."),
    purpose: str = typer.Option(..., "--for", help="character, style or concept."),
    novelty: str = typer.Option(
        "", help="Whether the base knows it: familiar, novel, or what kiln probe says (its number, its --json)."
    ),
    like: str = typer.Option("", help="The release that an unknown base is of, e.g. pony; kept by its content."),
    trigger: str = typer.Option("", help="The trigger word, where the captions have none."),
    gpu: str = typer.Option("", help="The card it will run on, e.g. rtx4090; none: the one in this machine."),
    minutes: float = typer.Option(0.0, min=0.0, help="The most that the run may take; 0: no limit."),
    budget: float = typer.Option(0.0, min=0.0, help="The most that it may cost, with --price; 0: no limit."),
    price: float = typer.Option(0.0, min=0.0, help="Price of an hour of the card."),
    explore: bool = typer.Option(False, "--explore", help="Also the one or two recipes worth comparing."),
    out: Path | None = typer.Option(None, help="Write the recipe here; with --explore name-2.toml and so on."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Propose a recipe for your pictures, every value with its reason."""
    from lorakiln.advise.advice import advise, explained
    from lorakiln.base.files import write_text

    wish = _wish(folder, base, purpose, novelty, trigger, gpu, like, _seconds(minutes, budget, price))
    found = advise(wish)[: 3 if explore else 1]
    files = [(out.with_stem(f"{out.stem}-{n}") if n > 1 else out) if out else None for n in range(1, len(found) + 1)]
    for path in filter(None, files):
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists; choose another --out, or --overwrite")
    for path, one in zip(files, found, strict=True):
        if path:
            write_text(path, one.toml())
    if as_json:
        typer.echo(json.dumps([_as_table(one, explained(one)) for one in found]))
        return
    if wish.base.problem:
        typer.echo(f"kiln: {wish.base.problem}", err=True)
    if explore and len(found) == 1:
        typer.echo("kiln: --explore: there is one way to train this base, and nothing to compare it with", err=True)
    for path, one in zip(files, found, strict=True):
        if path:
            typer.echo(_told(one.title, *one.notes))
            typer.echo(f"recipe  {path}\nnext    kiln check {path}\n")
        else:
            typer.echo(one.toml())


def _seconds(minutes: float, budget: float, price: float) -> float:
    """The most that a run may take; 0: no limit."""
    if bool(budget) != bool(price):
        raise UserError("--budget and --price go together: the most that it may cost, and the price of an hour")
    limits = [60 * minutes] if minutes else []
    limits += [3600 * budget / price] if budget else []
    return min(limits, default=0.0)


def _wish(
    folder: Path, base: str, purpose: str, novelty: str, trigger: str, gpu: str, like: str, seconds: float
) -> Any:
    """What is asked for, looked up: the base's header, the pictures' sizes and captions, the card."""
    import importlib.util

    from lorakiln.advise.advice import Wish
    from lorakiln.advise.base_model import look_at, remember
    from lorakiln.advise.cards import card, installed
    from lorakiln.advise.novelty import read
    from lorakiln.advise.own import cited
    from lorakiln.advise.pictures import look
    from lorakiln.advise.profiles import PROFILES
    from lorakiln.base.settings import Dataset

    for value, option, choices in ((purpose, "--for", PURPOSES), (like, "--like", ("", *PROFILES))):
        if value not in choices:
            raise UserError(f"{option} {value}: choose from {', '.join(filter(None, choices))}")
    known = read(novelty)
    facts = look_at(base)
    if like:
        remember(facts, PROFILES[like])
        facts = look_at(base)
    step = 16 if facts.resolution < 512 else 64
    pictures = look([Dataset(folder=str(folder), missing="empty", bucket_step=step)], facts.resolution)
    here = installed() if not gpu else []
    chosen = card(gpu) if gpu else here[0].known if here else None
    runs = tuple(_remembered())
    if seconds and not chosen and not any(one.step_seconds for one in runs):
        raise UserError("a limit on time or money needs the card it will run on, as in --gpu rtx4090")
    return Wish(
        str(folder), facts, purpose, pictures, known, trigger,  # ty: ignore[invalid-argument-type]
        vram=chosen.vram if chosen else here[0].vram if here else 0.0,
        bf16=chosen.bf16 if chosen else here[0].capability >= (8, 0) if here else True,
        eight_bit=importlib.util.find_spec("bitsandbytes") is not None,
        card=chosen, own=cited(runs, facts, purpose, pictures.count), runs=runs, seconds=seconds,
    )  # fmt: skip


def _remembered() -> list[Any]:
    """The ledger's runs; a ledger that cannot be read is said, and is no reason to give no advice."""
    from lorakiln.base.ledger import Ledger

    try:
        return Ledger(patience=1.0).entries()
    except UserError as error:
        typer.echo(f"kiln: {error}; going on without it", err=True)
        return []


PURPOSES = ("character", "style", "concept")


def _as_table(one: Any, settings: list[dict[str, Any]]) -> dict[str, Any]:
    return {"method": one.method, "title": one.title, "notes": list(one.notes), "settings": settings,
            "recipe": one.recipe().model_dump()}  # fmt: skip


def _told(*texts: str) -> str:
    return "\n".join(line for text in texts for line in textwrap.wrap(text, WIDTH))


def check(
    recipe: Path = typer.Argument(help="The recipe, a TOML file."),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting first."),
    purpose: str = typer.Option("", "--for", help="character, style or concept; none: the recipe's own."),
    gpu: str = typer.Option("", help="The card it will run on, e.g. rtx4090; none: the one in this machine."),
    hours: float = typer.Option(0.0, min=0.0, help="Hours until the rental ends; 0: no clock."),
    fix: bool = typer.Option(False, "--fix", help="Make the safe changes in the recipe file."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Look for expensive mistakes before training; exit code 1 if training should not start."""
    from lorakiln.advise.cards import card
    from lorakiln.advise.check import apply_fixes, gather, row, stops
    from lorakiln.advise.check import check as ask
    from lorakiln.base.files import write_text
    from lorakiln.base.recipe import read

    if purpose not in ("", "character", "style", "concept"):
        raise UserError(f"--for {purpose}: choose from character, style, concept")
    chosen = card(gpu) if gpu else None
    case = gather(read(recipe, changes), recipe, purpose=purpose, card=chosen, hours=hours)
    findings, changed = ask(case), {}
    if fix:
        text, changed = apply_fixes(recipe.read_text(encoding="utf-8"), findings)
        if changed:
            write_text(recipe, text)
            case = gather(read(recipe, changes), recipe, purpose=purpose, card=chosen, hours=hours)
            findings = ask(case)
    if as_json:
        told = [row(one) for one in findings]
        typer.echo(json.dumps({"stops": stops(findings), "changed": changed, "findings": told}))
    else:
        for path, value in changed.items():
            typer.echo(f"fixed   {path} = {json.dumps(value)}")
        show_findings(findings, case, recipe)
    raise typer.Exit(1 if stops(findings) else 0)


def show_findings(findings: list[Any], case: Any, recipe: Path) -> None:
    """What the rules say, each with its fix, and a line that counts them."""
    from lorakiln.advise.evidence import cite

    loud = [one for one in findings if not one.ignored]
    for one in loud:
        rule = one.rule
        head = f"{rule.id} {rule.severity:<8}"
        typer.echo(textwrap.fill(f"{one.said.text} {cite(rule.evidence)}", WIDTH, initial_indent=f"{head} ",
                                 subsequent_indent=" " * 14))  # fmt: skip
        for path, value in one.said.fix.items():
            by = "--fix does it" if rule.safe else "by hand"
            typer.echo(f"{' ' * 14}-> {path} = {json.dumps(value)}  ({by})")
    totals = {kind: sum(one.rule.severity == kind for one in loud) for kind in ("error", "warning", "note")}
    counts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in totals.items()]
    quiet = len(findings) - len(loud)
    typer.echo(f"{recipe}: {', '.join(counts)}{f', {quiet} ignored' if quiet else ''}; "
               f"{case.count} pictures, {case.steps:,} steps")  # fmt: skip


def estimate(
    recipe: Path = typer.Argument(help="The recipe, a TOML file."),
    changes: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting first."),
    gpu: str = typer.Option("", help="The card, e.g. rtx4090; none: the one in this machine."),
    price: float = typer.Option(0.0, min=0.0, help="Price of an hour; 0: not asked."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Predict memory, time and cost of a run, and the largest batch that fits."""
    from lorakiln.advise import estimate as est
    from lorakiln.advise.base_model import look_at
    from lorakiln.advise.cards import CPU, card, installed
    from lorakiln.advise.measured import refined
    from lorakiln.advise.pictures import look_at_recipe
    from lorakiln.base.recipe import read

    settings = read(recipe, changes)
    base = look_at(settings.base)
    here = installed() if not gpu else []
    chosen = card(gpu) if gpu else (here[0].known if here else None)
    calculated = est.duration(settings, base, look_at_recipe(settings, base.resolution), chosen or CPU)
    time = refined(calculated, settings, base, _remembered(), chosen)
    if chosen is None and not time.measured:
        raise UserError("no NVIDIA card that Kiln knows is here: name the one it will run on, as in --gpu rtx4090")
    cost = est.price(time, price) if price else None
    memory = est.memory(settings, base) if chosen else None
    most = est.largest_batch(settings, base, chosen.vram) if chosen else None
    if as_json:
        counted = {**asdict(memory), "training": memory.training, "total": memory.total} if memory else None
        typer.echo(json.dumps({
            "gpu": chosen.name if chosen else None, "memory": counted, "vram": chosen.vram if chosen else None,
            "steps": time.steps, "seconds_a_step": time.step, "seconds": time.whole, "measured_runs": time.measured,
            "cost": cost, "largest_batch": most,
        }))  # fmt: skip
        return
    if memory and chosen:
        _show_memory(memory, chosen, most)
    _show_time(time, cost, price, "a " + chosen.name if chosen else "this machine's CPU")


def _show_memory(memory: Any, chosen: Any, most: int | None) -> None:
    from lorakiln.advise import estimate as est

    parts = {name: value for name, value in asdict(memory).items() if value and name not in est.PHASES}
    typer.echo(f"memory  {memory.total:.1f} GiB of {chosen.vram:g} on a {chosen.name}; counted from shapes")
    told = f"training {memory.training:.1f} ({', '.join(f'{k} {v:.1f}' for k, v in parts.items())}), "
    told += f"encoding pictures {memory.caching:.1f}"
    told += f", drawing samples {memory.sampling:.1f}" if memory.sampling else ""
    typer.echo(textwrap.fill(told, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8))
    typer.echo(f"batch   {most} is the largest that fits" if most else "batch   not even 1 fits")


def _show_time(time: Any, cost: Any, price: float, where: str) -> None:
    low, high = time.whole
    step = f"{time.step[0]:.2f}-{time.step[1]:.2f} s a step"
    typer.echo(f"time    {step}, {time.steps:,} steps: {_clock(low)} to {_clock(high)}")
    if cost:
        typer.echo(f"cost    {cost[0]:.2f} to {cost[1]:.2f} at {price:g} an hour")
    if time.measured:
        count = f"{time.measured} runs" if time.measured > 1 else "one run"
        typer.echo(f"        the step's time is from {count} of yours on {where}, scaled")
    else:
        typer.echo("        time and cost are estimates from the card's rating, not measured")


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d}"


def doctor(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Check this machine: card, driver, packages, memory, disk; exit code 1 if training cannot work here."""
    from lorakiln.advise.doctor import examine

    found = examine(Path.cwd())
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            mark = {"good": "ok", "bad": "BAD", "note": "-"}[one.state]
            text, head = f"{one.told}{f'; {one.cure}' if one.cure else ''}", f"{mark:<4}{one.what:<14}"
            typer.echo(textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * 18))
    raise typer.Exit(1 if any(one.state == "bad" for one in found) else 0)
