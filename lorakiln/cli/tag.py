"""`kiln tag` and `kiln tags`: words for pictures, from taggers and rules, and changing them by hand."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.tag.caption import Caption
    from lorakiln.tag.edits import Change
    from lorakiln.tag.folder import Set


def add_verbs(app: typer.Typer) -> None:
    app.command("tag")(tag)
    app.command("tags")(tags)


def tag(
    folder: Path = typer.Argument(help="Folder of pictures, with subfolders."),
    tagger: str = typer.Option(
        "", help="Folder or cached hub id of a WD-family tagger, or 'starter'; none: only rules."
    ),
    captioner: str = typer.Option("", help="Folder of a transformers image-to-text model, for sentences."),
    sentences: float = typer.Option(0.5, min=0.0, max=1.0, help="Share of the pictures that get a sentence."),
    threshold: float = typer.Option(0.35, min=0.0, max=1.0, help="Chance from which a general tag is taken."),
    character_threshold: float = typer.Option(0.85, min=0.0, max=1.0, help="The same for characters."),
    mcut: bool = typer.Option(False, "--mcut", help="Find both thresholds for each picture instead."),
    rating: bool = typer.Option(False, "--rating", help="Write the likeliest rating too."),
    rules: Path | None = typer.Option(None, help="Rules, a TOML file; see docs/tag.md."),
    trigger: str = typer.Option("", help="The trigger word, first in every caption."),
    existing: str = typer.Option("keep", help="What becomes of existing tags: keep, replace or add."),
    preview: bool = typer.Option(False, "--preview", help="Show what would be written; write nothing."),
    device: str = typer.Option("auto", help="auto, cpu or gpu."),
    threads: int = typer.Option(0, min=0, help="Threads of the tagger; 0: one for each core."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tag pictures, write sentences, apply rules; every run can be taken back with 'kiln tags --undo'."""
    from dataclasses import replace

    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.tag import folder as folders
    from lorakiln.tag.rules import Rules, read
    from lorakiln.tag.tagger import Thresholds

    if existing not in ("keep", "replace", "add"):
        raise UserError(f"--existing {existing}: choose from keep, replace, add")
    wanted = read(rules) if rules else Rules()
    wanted = replace(wanted, trigger=trigger or wanted.trigger)
    if not (tagger or captioner or rules or trigger):
        raise UserError("nothing to do; give --tagger, --captioner, --rules or --trigger")
    limits = Thresholds(threshold, character_threshold, mcut, rating)
    whole = folders.read(folder)
    captions, failed, notes = whole.captions, [], list(whole.warnings)
    with TerminalReporter(as_json) as reporter:
        if tagger:
            model = _tagger(tagger, device, threads)
            notes.insert(0, f"tagger {model.folder} on {model.provider}")
            new, failed = folders.tagged(whole, model, limits, existing, _advance(reporter, "tag"))
            captions |= new
        if captioner:
            captions, more = _with_sentences(whole, captions, captioner, sentences, _advance(reporter, "caption"))
            failed += more
    if rules or trigger:
        captions = folders.ruled(captions, wanted, _count() if wanted.max_tokens else None)
    what = f"kiln tag {folder}" + (f" --tagger {tagger}" if tagger else "")
    _finish(whole, captions, what, preview, as_json, notes + failed, keep_tokens=wanted.keep_tokens)


def tags(
    folder: Path = typer.Argument(help="Folder of pictures, with subfolders."),
    where: str = typer.Option("", help="Only captions such as 'has:hat and not has:outdoors'."),
    add: list[str] = typer.Option([], metavar="TAG", help="Add a tag at the end; repeatable."),
    first: list[str] = typer.Option([], metavar="TAG", help="Add a tag in front; repeatable."),
    remove: list[str] = typer.Option([], metavar="TAG", help="Remove a tag, * for anything; repeatable."),
    rename: list[str] = typer.Option([], metavar="OLD=NEW", help="Rename a tag; repeatable."),
    replace: str = typer.Option("", metavar="OLD=NEW", help="Replace text anywhere, in sentences too."),
    undo: bool = typer.Option(False, "--undo", help="Take the last edit back, byte for byte."),
    preview: bool = typer.Option(False, "--preview", help="Show what would be written; write nothing."),
    beside: str = typer.Option("", metavar="TAG", help="Show what stands together with this tag."),
    tagger: str = typer.Option("", help="Compare with this tagger's vocabulary: unknown tags, likely typos."),
    trigger: str = typer.Option("", help="Check this trigger word."),
    export: Path | None = typer.Option(None, help="Write kohya metadata, .json or .jsonl."),
    load: Path | None = typer.Option(None, "--import", help="Take captions from kohya metadata, .json or .jsonl."),
    to_kohya: Path | None = typer.Option(None, help="Copy pictures and captions to 10_name folders below this one."),
    repeats: int = typer.Option(10, min=1, help="Repeats in the names of those folders."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show the words of a folder's captions with their counts, what does not fit together, and change them."""
    from lorakiln.tag import edits, metadata
    from lorakiln.tag import folder as folders
    from lorakiln.tag.selection import parse

    if undo:
        _undo(folder, as_json)
        return
    whole, test = folders.read(folder), parse(where)
    change = _change(add, first, remove, rename, replace)
    if load is not None:
        _finish(whole, metadata.read(load, folder), f"import {load}", preview, as_json, list(whole.warnings))
    elif change is not None:
        new = folders.changed(whole, change, test)
        what = ", ".join([*(f"add {t}" for t in [*first, *add]), *(f"remove {t}" for t in remove), *rename, replace])
        _finish(whole, new, what.strip(", "), preview, as_json, list(whole.warnings))
    elif export is not None:
        chosen = {name: one for name, one in whole.captions.items() if test(name, one)}
        metadata.write(export, chosen)
        typer.echo(json.dumps({"written": str(export), "pictures": len(chosen)}) if as_json else f"wrote {export}")
    elif to_kohya is not None:
        files = folders.kohya_folders(whole, to_kohya, repeats, trigger)
        typer.echo(json.dumps({"written": [str(f) for f in files]}) if as_json else f"{len(files)} files in {to_kohya}")
    else:
        chosen = {name: one for name, one in whole.captions.items() if test(name, one)}
        _show(whole, chosen, beside, tagger, trigger, edits.history(folder), as_json)


def _tagger(name: str, device: str, threads: int) -> Any:
    from lorakiln.tag.wd import load

    return load(name, device, threads)


def _with_sentences(
    whole: "Set", captions: "dict[str, Caption]", model: str, share: float, report: Any
) -> "tuple[dict[str, Caption], list[str]]":
    from dataclasses import replace

    from lorakiln.tag import folder as folders
    from lorakiln.tag.captioner import TransformersCaptioner

    found, failed = folders.told(whole, TransformersCaptioner(Path(model)), share, report)
    return captions | {name: replace(captions[name], sentence=one.sentence) for name, one in found.items()}, failed


def _advance(reporter: Any, stage: str) -> Any:
    """A callback (done, total) for progress that comes in batches."""
    one, before = reporter.steps(stage), 0

    def show(done: int, total: int) -> None:
        nonlocal before
        for step in range(before + 1, done + 1):
            one(step, total)
        before = done

    return show


def _count() -> Any:
    """Tokens of a text, as SDXL's encoders count them."""
    from lorakiln.families.sdxl.text import tokenizer

    return lambda text: len(tokenizer()(text, add_special_tokens=False).input_ids)


def _change(add: list[str], first: list[str], remove: list[str], rename: list[str], replace: str) -> "Change | None":
    """All asked-for changes in one, removals before renames before additions; None for none."""
    from lorakiln.tag import edits

    steps = []
    if remove:
        steps.append(edits.remove(remove))
    if rename:
        steps.append(edits.rename(dict(_pair("--rename", text) for text in rename)))
    if replace:
        steps.append(edits.substitute(*_pair("--replace", replace)))
    if first:
        steps.append(edits.add(first, first=True))
    if add:
        steps.append(edits.add(add))
    if not steps:
        return None

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


def _finish(
    whole: "Set", captions: "dict[str, Caption]", what: str, preview: bool, as_json: bool, notes: list[str], **more: Any
) -> None:
    """Write the captions as one edit, or show the difference."""
    from lorakiln.tag import edits
    from lorakiln.tag import folder as folders

    planned = folders.edits(whole, captions)
    written = 0 if preview else edits.commit(whole.folder, what, planned)
    if as_json:
        changes = [{"path": path, "before": old, "after": new} for path, old, new in folders.previews(planned)]
        typer.echo(json.dumps({"written": written, "changes": changes, "notes": notes} | more))
        return
    for note in notes:
        typer.echo(note)
    if preview:
        _differences(folders.previews(planned))
        typer.echo(f"{len(planned)} captions would change; nothing was written")
        return
    undo = f"; take it back with: kiln tags {whole.folder} --undo" if written else ""
    typer.echo(f"{written} captions written{undo}")
    if more.get("keep_tokens"):
        typer.echo(f"keep_tokens = {more['keep_tokens']} keeps what stands in front when tags are shuffled")


def _differences(changes: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for path, old, new in changes:
        console.print(Text(path, "bold"))
        console.print(Text(f"- {old}", "red"))
        console.print(Text(f"+ {new}", "green"))


def _undo(folder: Path, as_json: bool) -> None:
    from lorakiln.tag import edits

    what, restored, left = edits.undo(folder)
    if as_json:
        typer.echo(json.dumps({"undone": what, "restored": restored, "left": left}))
        return
    typer.echo(f"{restored} captions as before: {what}")
    for line in left:
        typer.echo(line)


def _show(
    whole: "Set",
    captions: "dict[str, Caption]",
    beside: str,
    tagger: str,
    trigger: str,
    history: list[str],
    as_json: bool,
) -> None:
    from lorakiln.tag import vocabulary

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
        typer.echo(json.dumps(values | {"tags": dict(rows), "notes": notes, "history": history}))
        return
    typer.echo(f"{words.captions} captions, {words.missing} missing, {words.sentences:.0%} with a sentence")
    for name, count in rows[:200]:
        typer.echo(f"{count:6}  {name}")
    if len(rows) > 200:
        typer.echo(f"        and {len(rows) - 200} more; --json lists all")
    for note in notes:
        typer.echo(note)
