"""A folder of pictures and their captions: read all at once, tagged, ruled, changed, and written back as one edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lorakiln.base import walk
from lorakiln.base.errors import UserError
from lorakiln.tag import batches, caption, rules, sidecar
from lorakiln.tag.caption import Caption
from lorakiln.tag.captions import parse_folder
from lorakiln.tag.edits import Change, Edit
from lorakiln.tag.rules import Count, Rules
from lorakiln.tag.selection import Test
from lorakiln.tag.sidecar import Sidecar
from lorakiln.tag.tagger import Captioner, Tagger, Thresholds, words

Existing = Literal["keep", "replace", "add"]


@dataclass(frozen=True, slots=True)
class Captioned:
    """One picture, its caption file as it is, and the caption in it. `name` is the path below the folder."""

    name: str
    path: Path
    file: Sidecar
    caption: Caption


@dataclass(frozen=True, slots=True)
class Set:
    """All pictures of a folder by name, and what was odd about their captions."""

    folder: Path
    pictures: Mapping[str, Captioned]
    warnings: tuple[str, ...]

    @property
    def captions(self) -> dict[str, Caption]:
        return {name: one.caption for name, one in self.pictures.items()}


def read(folder: Path, extension: str = ".txt") -> Set:
    """Every picture with its caption; without a caption file, kohya's `10_name` folder gives it.

    Raises UserError for a missing folder, one without pictures, and two pictures that share a caption file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    warnings: list[str] = []
    found: dict[str, Captioned] = {}
    owners: dict[Path, str] = {}
    for path in walk.pictures(folder, lambda place, why: warnings.append(why)):
        name = path.relative_to(folder).as_posix()
        file = sidecar.of(path, extension)
        if file.path in owners:
            raise UserError(f"{name!r} and {owners[file.path]!r} would share {file.path.name!r}; rename one of them")
        owners[file.path] = name
        if file.warning:
            warnings.append(file.warning)
        written = caption.read(file.text)
        named = parse_folder(path.parent.resolve().name)
        if named and named[1] and not file.text and not file.path.exists():
            written = Caption((named[1],))
        found[name] = Captioned(name, path, file, written)
    if not found:
        raise UserError(f"{folder}: holds no picture")
    return Set(folder, found, tuple(warnings))


def tagged(
    whole: Set,
    tagger: Tagger,
    wanted: Thresholds,
    existing: Existing = "keep",
    report: batches.Report = lambda done, total: None,
) -> tuple[dict[str, Caption], list[str]]:
    """New captions by name, and what could not be read. `existing` captions are kept, replaced, or added to."""
    todo = {one.path: one for one in whole.pictures.values() if existing != "keep" or not one.caption.tags}
    found: dict[str, Caption] = {}
    failed: list[str] = []
    done = 0
    for paths, pictures in batches.ahead(list(todo), lambda p: p, tagger.batch, lambda _, why: failed.append(why)):
        for path, answer in zip(paths, tagger.tags(pictures), strict=True):
            one, new = todo[path], words(answer, wanted)
            before = one.caption.tags if existing == "add" else ()
            found[one.name] = replace(one.caption, tags=tuple(dict.fromkeys([*before, *new])))
        done += len(paths)
        report(done, len(todo))
    return found, failed


def told(
    whole: Set, captioner: Captioner, share: float, report: batches.Report = lambda done, total: None
) -> tuple[dict[str, Caption], list[str]]:
    """Sentences for a share of the pictures (evenly chosen, those with one counted), and what could not be read."""
    names = list(whole.pictures)
    chosen = [name for at, name in enumerate(names) if int((at + 1) * share) > int(at * share)]
    todo = {whole.pictures[name].path: whole.pictures[name] for name in chosen}
    todo = {path: one for path, one in todo.items() if not one.caption.sentence}
    found: dict[str, Caption] = {}
    failed: list[str] = []
    done = 0
    for paths, pictures in batches.ahead(list(todo), lambda p: p, captioner.batch, lambda _, why: failed.append(why)):
        for path, sentence in zip(paths, captioner.sentences(pictures), strict=True):
            found[todo[path].name] = replace(todo[path].caption, sentence=sentence)
        done += len(paths)
        report(done, len(todo))
    return found, failed


def ruled(captions: Mapping[str, Caption], wanted: Rules, count: Count | None = None) -> dict[str, Caption]:
    """Every caption after the rules; the trigger also opens a sentence that does not name it."""
    known = rules.statistics([one.tags for one in captions.values()], wanted)
    found = {}
    for name, one in captions.items():
        tags = tuple(rules.apply(one.tags, wanted, known, count)) if one.tags or not one.sentence else ()
        sentence = one.sentence
        if wanted.trigger and sentence and not one.joined and wanted.trigger.lower() not in sentence.lower():
            sentence = f"{wanted.trigger}, {sentence}"
        found[name] = Caption(tags, sentence, one.joined)
    return found


def changed(whole: Set, change: Change, where: Test) -> dict[str, Caption]:
    """The captions that a change alters, among those that the test selects."""
    found = {}
    for name, one in whole.pictures.items():
        if where(name, one.caption) and (new := change(one.caption)) != one.caption:
            found[name] = new
    return found


def edits(whole: Set, captions: Mapping[str, Caption]) -> list[Edit]:
    """What has to be written so that the files hold these captions; the others stay byte for byte."""
    found = []
    for name, new in captions.items():
        one = whole.pictures[name]
        if new != one.caption or not one.file.path.exists():
            found.append(Edit(one.file, new.text()))
    return [edit for edit in found if edit.changes]


def kohya_folders(whole: Set, out: Path, repeats: int, trigger: str) -> list[Path]:
    """Copies of all pictures and captions in kohya's layout, `OUT/10_name`, one folder a subfolder; the files written.

    Raises UserError when a file is there already: nothing is replaced.
    """
    if repeats < 1:
        raise UserError(f"repeats = {repeats}: must be 1 or more")
    plan: list[tuple[Path, bytes]] = []
    for name, one in whole.pictures.items():
        below = name.rpartition("/")[0]
        named = parse_folder(below.partition("/")[0]) if below else None
        times, words_ = named or (repeats, below.replace("/", " ") or trigger or whole.folder.resolve().name)
        target = out / f"{times}_{words_}" / one.path.name
        plan.append((target, one.path.read_bytes()))
        if one.file.path.exists():
            plan.append((target.with_suffix(one.file.path.suffix), one.file.path.read_bytes()))
    for target, _ in plan:
        if target.exists():
            raise UserError(f"{target}: exists already; choose an empty folder")
    from lorakiln.base.files import atomic

    for target, data in plan:
        with atomic(target) as stream:
            stream.write(data)
    return [target for target, _ in plan]


def previews(planned: Sequence[Edit]) -> list[tuple[str, str, str]]:
    """(file name, text before, text after) of what would be written."""
    return [(str(edit.sidecar.path), edit.sidecar.text, edit.text) for edit in planned if edit.changes]
