"""`kiln tag` and `kiln tags`: words for pictures, from taggers and rules, and changing them by hand."""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.tag.caption import Caption
    from lorakiln.tag.edits import Change, Session
    from lorakiln.tag.folder import Set
    from lorakiln.tag.rules import Rules
    from lorakiln.tag.run import Outcome, Plan

_SHOWN = 3  # changes that are shown before they are written; --preview shows all
_WIDEST = 300  # characters of a caption that are shown of those
_NAMED = 5  # tags that are named in a line
# What `kiln tags` does: the options that ask for it, and those that go with it.
_MODES = {
    "--undo": ("undo", ""),
    "--import": ("load", "where preview"),
    "an edit": ("add first remove rename replace", "where preview"),
    "--export": ("export", "where"),
    "--to-kohya": ("to_kohya", "where repeats trigger"),
    "showing the words": ("", "where beside tagger trigger"),
}


def add_verbs(app: typer.Typer) -> None:
    app.command("tag")(tag)
    app.command("tags")(tags)


def tag(
    context: typer.Context,
    folder: Path = typer.Argument(help="Folder of pictures, with subfolders."),
    tagger: str = typer.Option(
        "", help="Folder or cached hub id of a WD-family tagger, or 'starter'; none: only rules."
    ),
    captioner: str = typer.Option("", help="Folder of a transformers image-to-text model, for sentences."),
    sentences: float = typer.Option(0.5, min=0.0, max=1.0, help="Share of the pictures that hold a sentence then."),
    threshold: float = typer.Option(0.35, min=0.0, max=1.0, help="Chance from which a general tag is taken."),
    character_threshold: float = typer.Option(0.85, min=0.0, max=1.0, help="The same for characters."),
    mcut: bool = typer.Option(False, "--mcut", help="Find both thresholds for each picture instead."),
    rating: bool = typer.Option(False, "--rating", help="Write the likeliest rating too."),
    rules: Path | None = typer.Option(None, help="Rules, a TOML file; see docs/tag.md."),
    trigger: str = typer.Option("", help="The trigger word, first in every caption."),
    existing: str = typer.Option("keep", help="What becomes of tags in caption files: keep, replace or add."),
    preview: bool = typer.Option(False, "--preview", help="Show all that would be written; write nothing."),
    device: str = typer.Option("auto", help="auto, cpu or gpu."),
    threads: int = typer.Option(0, min=0, help="Threads of the tagger; 0: one for each core."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tag pictures, write sentences, apply rules; every run can be taken back with 'kiln tags --undo'."""
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.tag import folder as folders
    from lorakiln.tag.run import Plan, run
    from lorakiln.tag.tagger import Thresholds

    _needs(context, "--tagger", bool(tagger), "threshold character_threshold mcut rating existing device threads")
    _needs(context, "--captioner", bool(captioner), "sentences")
    if existing not in ("keep", "replace", "add"):
        raise UserError(f"--existing {existing}: choose from keep, replace, add")
    if mcut and _given(context) & {"threshold", "character_threshold"}:
        raise UserError("--mcut: finds the thresholds itself; leave --threshold and --character-threshold out")
    wanted = _rules(rules, trigger)
    if not (tagger or captioner or wanted):
        raise UserError("nothing to do; give --tagger, --captioner, --rules or --trigger")
    limits = Thresholds(threshold, character_threshold, mcut, rating)
    whole = folders.read(folder)
    model = _tagger(tagger, device, threads) if tagger else None
    count = _count() if wanted and wanted.max_tokens else None
    plan = Plan(model, limits, existing, _captioner(captioner), sentences, wanted, count)
    with _session(whole, f"kiln tag {folder}" + (f" --tagger {tagger}" if tagger else ""), preview) as session:
        with TerminalReporter(as_json) as reporter:
            outcome = run(whole, plan, _keep(whole, session), reporter.steps)
        notes = [f"tagger {model.folder} on {model.provider}"] if model else []
        notes += [*whole.warnings, *outcome.failed, *_remarks(whole, outcome, plan)]
        more = {"keep_tokens": wanted.keep_tokens if wanted else 0, "sentences": outcome.told}
        _finish(whole, dict(outcome.captions), session, as_json, notes, **more, fallen=dict(outcome.fallen))


def tags(
    context: typer.Context,
    folder: Path = typer.Argument(help="Folder of pictures, with subfolders."),
    where: str = typer.Option("", help="Only captions such as 'has:hat and not has:outdoors'."),
    add: list[str] = typer.Option([], metavar="TAG", help="Add a tag at the end; repeatable."),
    first: list[str] = typer.Option([], metavar="TAG", help="Add a tag in front; repeatable."),
    remove: list[str] = typer.Option([], metavar="TAG", help="Remove a tag, * for anything; repeatable."),
    rename: list[str] = typer.Option([], metavar="OLD=NEW", help="Rename a tag; repeatable."),
    replace: str | None = typer.Option(None, metavar="OLD=NEW", help="Replace text anywhere, in sentences too."),
    undo: bool = typer.Option(False, "--undo", help="Take the last edit back, byte for byte."),
    preview: bool = typer.Option(False, "--preview", help="Show all that would be written; write nothing."),
    beside: str = typer.Option("", metavar="TAG", help="Show what stands together with this tag."),
    tagger: str = typer.Option("", help="Compare with this tagger's vocabulary: unknown tags, likely typos."),
    trigger: str = typer.Option("", help="Check this trigger word; with --to-kohya, the name of the folder."),
    export: Path | None = typer.Option(None, help="Write kohya metadata, .json or .jsonl."),
    load: Path | None = typer.Option(None, "--import", help="Take captions from kohya metadata, .json or .jsonl."),
    to_kohya: Path | None = typer.Option(None, help="Copy pictures and captions to 10_name folders below this one."),
    repeats: int = typer.Option(10, min=1, help="Repeats in the names of those folders."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show the words of a folder's captions with their counts, what does not fit together, and change them."""
    from lorakiln.tag import folder as folders
    from lorakiln.tag import metadata
    from lorakiln.tag.selection import parse

    mode = _mode(context)
    if mode == "--undo":
        _undo(folder, as_json)
        return
    change, test = _change(add, first, remove, rename, replace), parse(where)
    whole = folders.read(folder)
    chosen = {name: one for name, one in whole.captions.items() if test(name, one)}
    if load is not None:
        new = metadata.read(load, folder, whole.pictures)
        _edit(whole, {name: new[name] for name in new if name in chosen}, f"import {load}", preview, as_json)
    elif mode == "an edit":
        what = ", ".join([*(f"add {t}" for t in [*first, *add]), *(f"remove {t}" for t in remove), *rename])
        what = ", ".join(filter(None, [what, replace]))
        _edit(whole, folders.changed(whole, change, test), what, preview, as_json)
    elif export is not None:
        metadata.write(export, chosen)
        written = {"written": str(export), "pictures": len(chosen)}
        typer.echo(json.dumps(written) if as_json else _line(f"wrote {export}"))
    elif to_kohya is not None:
        files = folders.kohya_folders(whole, chosen, to_kohya, repeats, trigger)
        written = {"written": [str(file) for file in files]}
        typer.echo(json.dumps(written) if as_json else _line(f"{len(files)} files in {to_kohya}"))
    else:
        _show(whole, chosen, beside, tagger, trigger, as_json)


def _given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line, by name."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _option(context: typer.Context, names: set[str]) -> str:
    """The first of some parameters as it is written: `--import`."""
    return next(one.opts[0] for one in context.command.params if one.name in names)


def _needs(context: typer.Context, what: str, there: bool, names: str) -> None:
    """Raises UserError for an option that stands there without what it belongs to."""
    idle = _given(context) & set(names.split())
    if idle and not there:
        raise UserError(f"{_option(context, idle)}: has no effect without {what}")


def _mode(context: typer.Context) -> str:
    """Which of _MODES is asked for. Raises UserError for two of them, and for an option that does not go with it."""
    given = _given(context) - {"folder", "as_json"}
    asked = [mode for mode, (own, _) in _MODES.items() if given & set(own.split())]
    if len(asked) > 1:
        raise UserError(f"{asked[0]} with {asked[1]}: do one after the other")
    mode = asked[0] if asked else list(_MODES)[-1]
    idle = given - set(" ".join(_MODES[mode]).split())
    if idle:
        raise UserError(f"{_option(context, idle)}: has no effect with {mode}")
    return mode


def _rules(path: Path | None, trigger: str) -> "Rules | None":
    from dataclasses import replace

    from lorakiln.tag.rules import Rules, read

    if path is None and not trigger.strip():
        return None
    wanted = read(path) if path else Rules()
    return replace(wanted, trigger=trigger.strip() or wanted.trigger)


def _tagger(name: str, device: str, threads: int) -> Any:
    from lorakiln.tag.wd import load

    return load(name, device, threads)


def _captioner(folder: str) -> Any:
    from lorakiln.tag.captioner import TransformersCaptioner

    return TransformersCaptioner(Path(folder)) if folder else None


@contextlib.contextmanager
def _session(whole: "Set", what: str, preview: bool) -> "Generator[Session | None]":
    """An edit of the folder's captions, None for a preview; cut short, it says what was written until then."""
    from lorakiln.tag import edits

    if preview:
        yield None
        return
    with edits.editing(whole.folder, what) as session:
        try:
            yield session
        except BaseException:
            if session.written:
                text = f"stopped; {session.written} captions were written and count as existing when it is run again"
                typer.echo(_line(f"{text}; take them back with: kiln tags {whole.folder} --undo"), err=True)
            raise


def _keep(whole: "Set", session: "Session | None") -> Any:
    """Writes each batch of captions as it comes; nothing for a preview."""
    from lorakiln.tag import folder as folders

    return lambda new: session.write(folders.edits(whole, new)) if session else None


def _remarks(whole: "Set", outcome: "Outcome", plan: "Plan") -> Generator[str]:
    passed = sum(bool(one.own.tags) for one in whole.pictures.values())
    if plan.tagger and plan.existing == "keep" and passed:
        yield f"{passed} pictures have tags already and kept them; --existing add or replace looks at them too"
    if plan.captioner:
        share = outcome.told / len(outcome.captions)
        yield f"{outcome.told} of {len(outcome.captions)} captions hold a sentence ({share:.0%})"
    if plan.rules and outcome.cut:
        most = ", ".join(f"'{tag}' ({count})" for tag, count in outcome.fallen.most_common(_NAMED))
        more = ", ..." if len(outcome.fallen) > _NAMED else ""
        yield f"max_tokens = {plan.rules.max_tokens}: {outcome.cut} captions lost their last tags: {most}{more}"


def _count() -> Any:
    """Tokens of a text, as SDXL's encoders count them."""
    from lorakiln.families.sdxl.text import tokenizer

    return lambda text: len(tokenizer()(text, add_special_tokens=False).input_ids)


def _change(add: list[str], first: list[str], remove: list[str], rename: list[str], replace: str | None) -> "Change":
    """All asked-for changes in one, removals before renames before additions."""
    from lorakiln.tag import edits

    steps = []
    if remove:
        steps.append(edits.remove(remove))
    if rename:
        steps.append(edits.rename(dict(_pair("--rename", text) for text in rename)))
    if replace is not None:
        steps.append(edits.substitute(*_pair("--replace", replace)))
    if first:
        steps.append(edits.add(first, first=True))
    if add:
        steps.append(edits.add(add))

    def change(caption: "Caption") -> "Caption":
        for step in steps:
            caption = step(caption)
        return caption

    return change


def _pair(option: str, text: str) -> tuple[str, str]:
    old, found, new = text.partition("=")
    if not found or not old.strip():
        raise UserError(f"{option} {text}: write it as OLD=NEW")
    return old.strip(), new.strip()


def _edit(whole: "Set", captions: "dict[str, Caption]", what: str, preview: bool, as_json: bool) -> None:
    with _session(whole, what, preview) as session:
        _finish(whole, captions, session, as_json, list(whole.warnings))


def _finish(
    whole: "Set",
    captions: "dict[str, Caption]",
    session: "Session | None",
    as_json: bool,
    notes: list[str],
    **more: Any,
) -> None:
    """Show what changes, and write it where this is no preview."""
    from lorakiln.tag import folder as folders

    planned = folders.edits(whole, captions)
    changes = folders.previews(planned)
    if not as_json:
        for note in notes:
            typer.echo(_line(note))
        _differences(changes, len(changes) if session is None else _SHOWN)
    if session:
        session.write(planned)
        if session.left and not session.written:
            raise UserError(session.left[0])
    if as_json:
        rows = [{"path": path, "before": old, "after": new} for path, old, new in changes]
        left, written = (session.left, session.written) if session else ([], 0)
        typer.echo(json.dumps({"written": written, "changes": rows, "notes": notes + left} | more))
        return
    for line in session.left if session else ():
        typer.echo(_line(line))
    if session is None:
        typer.echo(f"{len(changes)} captions would change; nothing was written")
        return
    undo = f"; take it back with: kiln tags {whole.folder} --undo" if session.written else ""
    typer.echo(_line(f"{session.written} captions written{undo}"))
    if more.get("keep_tokens"):
        typer.echo(f"keep_tokens = {more['keep_tokens']} keeps what stands in front when tags are shuffled")


def _line(text: str) -> str:
    """One line for the terminal: line breaks, control characters and bytes that are no text become escapes."""
    from lorakiln.base.errors import shown

    return shown(text)


def _differences(changes: list[tuple[str, str, str]], most: int) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for path, old, new in changes[:most]:
        console.print(Text(_line(path), "bold"))
        for mark, text, colour in (("-", old, "red"), ("+", new, "green")):
            for line in text.splitlines():
                cut = line if most == len(changes) or len(line) <= _WIDEST else f"{line[:_WIDEST]} ..."
                console.print(Text(f"{mark} {_line(cut)}", colour))
    if len(changes) > most:
        console.print(f"and {len(changes) - most} more; --preview shows all and writes nothing")


def _undo(folder: Path, as_json: bool) -> None:
    from lorakiln.tag import edits

    what, restored, left = edits.undo(folder)
    if as_json:
        typer.echo(json.dumps({"undone": what, "restored": restored, "left": left}))
        return
    typer.echo(_line(f"{restored} captions as before: {what}"))
    for line in left:
        typer.echo(_line(line))


def _show(
    whole: "Set",
    captions: "dict[str, Caption]",
    beside: str,
    tagger: str,
    trigger: str,
    as_json: bool,
) -> None:
    from lorakiln.tag import edits, vocabulary

    words = vocabulary.of(captions)
    known = _tagger(tagger, "cpu", 1).vocabulary if tagger else ()
    split = None
    if trigger:
        from lorakiln.families.sdxl.text import tokenizer

        split = tokenizer().tokenize
    notes = [*whole.warnings, *vocabulary.notices(captions, known, trigger, split)]
    rows = words.together(beside, 50) if beside else list(words.counts.items())
    if as_json:
        values = {"captions": words.captions, "missing": words.missing, "sentences": words.sentences}
        typer.echo(json.dumps(values | {"tags": dict(rows), "notes": notes, "history": edits.history(whole.folder)}))
        return
    typer.echo(f"{words.captions} captions, {words.missing} missing, {words.sentences:.0%} with a sentence")
    for name, count in rows[:200]:
        typer.echo(_line(f"{count:6}  {name}"))
    if len(rows) > 200:
        typer.echo(f"        and {len(rows) - 200} more; --json lists all")
    for note in notes:
        typer.echo(_line(note))
